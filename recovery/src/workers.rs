//! The threads of redo: one for each partition, fed with batches by the thread that reads the log.
//!
//! ```text
//!  scan ── batch fills ──► tray of at most 8 ──► worker redoes it ──┐
//!            ▲                                                      │
//!            └───────────── emptied batches ◄───────────────────────┘
//! ```
//!
//! A full tray makes the scan wait, so memory is bounded however far apart the two are. Each worker gets the
//! changes of its pages in log order, through one tray.
//!
//! - W1: When anybody fails, all changes below that LSN have been given out and are worked off before the
//!   failure is reported, so that the one at the least LSN is known.
//! - W2: A worker that ends, by a failure or a panic, takes in no more, and the scan does not wait for it.

use std::collections::VecDeque;

use argali_base::sync::thread::{self, JoinHandle};
use argali_base::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering};
use argali_base::{Error, Lsn, PageId, Result};
use argali_wal::Change;

use crate::Parts;
use crate::batch::Batch;
use crate::partition::{Failure, Partition};

/// Full batches in a tray.
const TRAY_MAX: usize = 8;

/// All workers, in the hands of the thread that reads the log.
pub(crate) struct Workers {
    hands: Vec<Hand>,
    failures: Arc<Failures>,
    by_record: bool,
}

/// One worker, and the batch that is being filled for it.
struct Hand {
    batch: Batch,
    tray: Arc<Tray>,
    thread: Option<JoinHandle<Partition>>,
}

impl Workers {
    /// Starts one for each partition.
    pub(crate) fn start(parts: &Parts, partitions: Vec<Partition>) -> Result<Self> {
        let failures = Arc::new(Failures::default());
        let start = |partition| Hand::start(partition, &failures);
        let hands = partitions.into_iter().map(start).collect::<Result<_>>()?;
        Ok(Self { hands, failures, by_record: parts.mutations.redo_partitioned_by_record })
    }

    /// Gives a change to the worker of its page; whether it makes sense to go on.
    pub(crate) fn give(&mut self, lsn: Lsn, change: &Change<'_>) -> bool {
        let by = if self.by_record { PageId::new(lsn.get()) } else { change.page };
        let number = Partition::of(by, self.hands.len());
        let hand = &mut self.hands[number];
        hand.batch.push(lsn, change);
        if hand.batch.is_full() {
            hand.hand_over();
        }
        !self.failures.happened.load(Ordering::Relaxed)
    }

    /// Waits until all is redone. Of all failures, and that of the scan, the one at the least LSN (W1).
    pub(crate) fn finish(
        mut self,
        scanned: Result<(), Failure>,
    ) -> Result<Vec<Partition>, Failure> {
        self.hands.iter_mut().for_each(Hand::hand_over);
        let partitions = self.hands.drain(..).map(Hand::join).collect();
        if let Err(failure) = scanned {
            self.failures.report(failure);
        }
        let first = self.failures.first.lock().take();
        first.map_or(Ok(partitions), Err)
    }
}

impl Hand {
    fn start(mut partition: Partition, failures: &Arc<Failures>) -> Result<Self> {
        let tray = Arc::new(Tray::default());
        let (theirs, failures) = (Arc::clone(&tray), Arc::clone(failures));
        let body = move || {
            let tray = Taker(theirs);
            tray.0.work(&mut partition, &failures);
            partition
        };
        let thread = thread::spawn("redo", body)
            .map_err(|error| Error::io("start thread", "redo", error))?;
        Ok(Self { batch: Batch::default(), tray, thread: Some(thread) })
    }

    fn hand_over(&mut self) {
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            self.batch = self.tray.put(batch);
        }
    }

    fn join(mut self) -> Partition {
        self.tray.close();
        let thread = self.thread.take().expect("joined once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // Also when the scan panics: nobody would ever close the tray.
        self.tray.close();
    }
}

/// The worker's end of its tray (W2).
struct Taker(Arc<Tray>);

impl Drop for Taker {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Batches on their way to one worker, and back.
#[derive(Default)]
struct Tray {
    batches: Mutex<Batches>,
    /// One of the two ends at most waits: the one for room, the other for work.
    moved: Condvar,
}

#[derive(Default)]
struct Batches {
    full: VecDeque<Batch>,
    emptied: Vec<Batch>,
    /// One end is gone, or will put nothing more.
    closed: bool,
}

impl Tray {
    /// Puts a full batch in and takes an empty one out.
    fn put(&self, mut batch: Batch) -> Batch {
        let mut batches = self.batches.lock();
        while batches.full.len() >= TRAY_MAX && !batches.closed {
            self.moved.wait(&mut batches);
        }
        if batches.closed {
            batch.clear(); // W2
            return batch;
        }
        batches.full.push_back(batch);
        let empty = batches.emptied.pop().unwrap_or_default();
        drop(batches);
        self.moved.notify_one();
        empty
    }

    fn take(&self) -> Option<Batch> {
        let mut batches = self.batches.lock();
        loop {
            if let Some(batch) = batches.full.pop_front() {
                drop(batches);
                self.moved.notify_one();
                return Some(batch);
            }
            if batches.closed {
                return None;
            }
            self.moved.wait(&mut batches);
        }
    }

    fn close(&self) {
        self.batches.lock().closed = true;
        self.moved.notify_one();
    }

    /// The worker's life: until the tray is closed and empty, or a change cannot be redone.
    fn work(&self, partition: &mut Partition, failures: &Failures) {
        while let Some(mut batch) = self.take() {
            if let Err(failure) = partition.redo(&batch, |_, _, _| ()) {
                return failures.report(failure);
            }
            batch.clear();
            self.batches.lock().emptied.push(batch);
        }
    }
}

/// What failed first in the log.
#[derive(Default)]
struct Failures {
    happened: AtomicBool,
    first: Mutex<Option<Failure>>,
}

impl Failures {
    fn report(&self, failure: Failure) {
        let mut first = self.first.lock();
        if first.as_ref().is_none_or(|first| failure.lsn < first.lsn) {
            *first = Some(failure);
        }
        self.happened.store(true, Ordering::Relaxed);
    }
}
