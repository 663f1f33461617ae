//! The model back end of `base::sync` under shuttle's schedulers.
#![cfg(feature = "shuttle")]
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use argali_base::sync::{
    Arc, AtomicBool, AtomicU32, AtomicU64, Clock, Condvar, Mutex, Ordering, RwLock, futex, thread,
};

const SCHEDULES: usize = 2000;

fn spawn(body: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn("model", body).unwrap()
}

/// Two sleepers on one word, one waker; `change` is what the waker does to the word first.
fn sleepers_and_waker(change: impl Fn(&AtomicU32) + Send + Sync + 'static) {
    let word = Arc::new(AtomicU32::new(0));
    let change = Arc::new(change);
    let sleepers = [(), ()].map(|()| {
        let word = word.clone();
        spawn(move || {
            while word.load(Ordering::Acquire) == 0 {
                futex::wait(&word, 0);
            }
        })
    });
    let waker = spawn(move || change(&word));
    sleepers.into_iter().chain([waker]).for_each(|thread| thread.join().unwrap());
}

#[test]
fn no_wake_up_is_lost() {
    shuttle::check_random(
        || {
            sleepers_and_waker(|word| {
                word.store(1, Ordering::Release);
                futex::wake_all(word);
            });
        },
        SCHEDULES,
    );
    shuttle::check_pct(
        || {
            sleepers_and_waker(|word| {
                word.store(1, Ordering::Release);
                futex::wake_one(word);
                futex::wake_one(word);
            });
        },
        SCHEDULES,
        3,
    );
}

/// The model must see the bugs: each of these leaves a sleeper behind in some schedule.
#[test]
fn a_missing_or_early_wake_up_is_found() {
    let deadlocks = |change: fn(&AtomicU32)| {
        let model = move || sleepers_and_waker(change);
        catch_unwind(AssertUnwindSafe(|| shuttle::check_random(model, SCHEDULES))).is_err()
    };
    assert!(deadlocks(|word| word.store(1, Ordering::Release)), "no wake");
    assert!(
        deadlocks(|word| {
            futex::wake_all(word);
            word.store(1, Ordering::Release);
        }),
        "woken before the word changed"
    );
    assert!(
        deadlocks(|word| {
            word.store(1, Ordering::Release);
            futex::wake_one(word);
        }),
        "one of two woken"
    );
}

#[test]
fn a_condition_variable_hands_the_lock_over() {
    shuttle::check_random(
        || {
            let shared = Arc::new((Mutex::new(0), Condvar::new()));
            let consumer = {
                let shared = shared.clone();
                spawn(move || {
                    let (count, changed) = &*shared;
                    let mut count = count.lock();
                    while *count < 2 {
                        changed.wait(&mut count);
                    }
                    *count += 10;
                })
            };
            let producers = [(), ()].map(|()| {
                let shared = shared.clone();
                spawn(move || {
                    *shared.0.lock() += 1;
                    shared.1.notify_one();
                })
            });
            producers.into_iter().chain([consumer]).for_each(|thread| thread.join().unwrap());
            assert_eq!(*shared.0.lock(), 12);
        },
        SCHEDULES,
    );
}

#[test]
fn a_timed_wait_ends_without_a_notification() {
    shuttle::check_random(
        || {
            let (lock, never) = (Mutex::new(()), Condvar::new());
            let mut guard = lock.lock();
            while !never.wait_for(&mut guard, Duration::from_secs(1)).timed_out() {}
            assert!(lock.try_lock().is_none(), "the lock is held again");
            let clock = Clock::system();
            while clock.now() < Duration::from_millis(10) {}
        },
        100,
    );
}

#[test]
fn writers_exclude_readers() {
    shuttle::check_random(
        || {
            let pair = Arc::new(RwLock::new((0, 0)));
            let stop = Arc::new(AtomicBool::new(false));
            let looks = Arc::new(AtomicU64::new(0));
            let reader = {
                let (pair, stop, looks) = (pair.clone(), stop.clone(), looks.clone());
                spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let both = *pair.read();
                        assert_eq!(both.0, both.1);
                        looks.fetch_add(1, Ordering::Relaxed);
                    }
                })
            };
            for _ in 0..3 {
                let mut both = pair.write();
                both.0 += 1;
                thread::yield_now();
                both.1 += 1;
            }
            stop.store(true, Ordering::Relaxed);
            reader.join().unwrap();
            assert_eq!(*pair.read(), (3, 3));
        },
        500,
    );
}
