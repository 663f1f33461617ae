//! Group commit: who flushes, who waits, who wakes whom.
//!
//! ```text
//!   force(lsn):  durable? ─yes─► return
//!                   │no
//!                nobody flushes, writer not called, nobody to be waited for? ─yes─► flush by oneself
//!                   │no                                                             (no thread hop)
//!                join the open group, sleep on its word
//!
//!   one flush:   close the open group (the other one opens) ─► write + sync ─► publish the durable end
//!                ─► bump the closed group's word and wake it ─► pass the turn on
//!   turn passed: open group empty → nobody · covered by this flush as well → wake it, done
//!                the log writer flushed → its turn again · it sleeps → call it
//!                else wake the group: the first to come flushes
//!   gathering:   A B woken, C D wait ─► A joins ─► B joins, the last: flushes A B C D at once
//!                                       └ nobody else comes: 50 µs after the flush, without them
//! ```
//!
//! - F1: At most one flush is in flight. So the durable end is one boundary, and no padding is needed.
//! - F2: A group's word is bumped before its sleepers are woken, and a sleeper reads the word under the
//!   lock under which it joined; no wake-up can fall between.
//! - F3: Durable end and poison are set before anybody is woken.
//! - F4: Whoever waits has a flush ahead that covers it: the one that will close its group.
//! - F5: While a group gathers, somebody sleeps by the clock and then takes the turn: the log writer, or
//!   else the first in the group. So a gathering ends without those who do not come.
//!
//! Whoever was woken by the last flush is likely to commit again in a moment, and a flush that leaves
//! without it makes it wait for two. So while some of those are away and the group is small, nobody takes
//! the turn, until [`GATHER`] after that flush, and only if that took long enough for this to pay: with
//! four clients each flush serves all four instead of two. A lone committer is alone when it comes
//! back, and waits for nobody. In models time is how often somebody looked at the clock.
//!
//! Source: group commit goes back to Gawlick & Kinkade, IMS Fast Path (1985); the two words follow our
//! measurements: one futex per group woke 64 committers in a third less time than one condition variable.

use std::time::Duration;

use argali_base::sync::{AtomicU32, Clock, Condvar, Mutex, MutexGuard, Ordering, futex};

use crate::options::Mutations;

/// Longest wait for those whom the last flush woke: about one flush of a fast device.
const GATHER: Duration =
    if cfg!(feature = "shuttle") { Duration::from_millis(2) } else { Duration::from_micros(50) };
/// Committers in a group for which no other is waited: their shares of a flush are small already.
const GATHER_MEMBERS: usize = if cfg!(feature = "shuttle") { 2 } else { 16 };

#[derive(Debug)]
pub(crate) struct Groups {
    state: Mutex<State>,
    words: [AtomicU32; 2],
    writer: Condvar,
    patient: Condvar,
    clock: Clock,
    endless_gathering: bool,
}

#[derive(Debug, Default)]
struct State {
    /// F1.
    in_flight: bool,
    /// Which of the two groups committers join now.
    open: usize,
    /// Sleepers in the open group.
    waiting: usize,
    /// Greatest LSN anybody in the open group waits for.
    want: u64,
    /// Woken by the last flush and not back yet.
    away: usize,
    /// Until when the open group gathers those.
    gather_until: Duration,
    /// The log writer sleeps and may be called.
    writer_sleeps: bool,
    /// The log writer was called and has not come yet: the next turn is its.
    writer_called: bool,
    /// Committers that wait without asking for a flush.
    patient: usize,
}

/// What a committer does next.
#[derive(Debug)]
pub(crate) enum Role {
    /// Flush at least the record at `Turn::want`, then [`Groups::finish`].
    Flush(Turn),
    /// Sleep until the group's word changes, or the turn falls to the sleeper.
    Wait(Seat),
}

/// The right, and the duty, to do the one flush. Must go to [`Groups::finish`].
#[derive(Debug)]
pub(crate) struct Turn {
    group: usize,
    pub(crate) want: u64,
    /// Committers that this flush will send on their way.
    members: usize,
    /// The log writer has it.
    by_writer: bool,
    begun: Duration,
}

/// A place in a group.
#[derive(Debug)]
pub(crate) struct Seat {
    group: usize,
    word: u32,
    /// F5: how long to sleep before taking the turn.
    patience: Option<Duration>,
}

impl Groups {
    pub(crate) fn new(mutations: &Mutations) -> Self {
        Self {
            state: Mutex::default(),
            words: Default::default(),
            writer: Condvar::new(),
            patient: Condvar::new(),
            clock: Clock::system(),
            endless_gathering: mutations.endless_gathering,
        }
    }

    /// Takes the turn if it is free, else a seat in the open group.
    pub(crate) fn join(&self, lsn: u64) -> Role {
        let mut state = self.state.lock();
        state.away = state.away.saturating_sub(1);
        let free = !state.in_flight && !state.writer_called;
        let patience = if free { self.gathers(&state) } else { None };
        if free && patience.is_none() {
            let mut turn = state.take_turn(lsn, self.clock.now());
            turn.members += 1;
            return Role::Flush(turn);
        }
        let minds_clock = state.waiting == 0 && !self.endless_gathering;
        state.waiting += 1;
        state.want = state.want.max(lsn);
        let group = state.open;
        let word = self.words[group].load(Ordering::Relaxed);
        Role::Wait(Seat { group, word, patience: patience.filter(|_| minds_clock) })
    }

    /// How much longer the open group waits for those who are away.
    fn gathers(&self, state: &State) -> Option<Duration> {
        if state.away == 0 || state.waiting >= GATHER_MEMBERS || state.gather_until.is_zero() {
            return None;
        }
        state.gather_until.checked_sub(self.clock.now()).filter(|left| !left.is_zero())
    }

    /// Sleeps until the seat's group was flushed, or is to look again; `Some` when the sleeper is to flush.
    pub(crate) fn sleep(&self, seat: &Seat) -> Option<Turn> {
        let word = &self.words[seat.group];
        let mut patience = seat.patience;
        while word.load(Ordering::Acquire) == seat.word {
            let Some(left) = patience else {
                futex::wait(word, seat.word);
                continue;
            };
            futex::wait_for(word, seat.word, left);
            let mut state = self.state.lock();
            // Whoever takes a turn closes the open group, so this is that flush.
            if state.in_flight || word.load(Ordering::Relaxed) != seat.word {
                patience = None;
                continue;
            }
            patience = self.gathers(&state);
            if patience.is_none() {
                return Some(state.take_turn(0, self.clock.now()));
            }
        }
        None
    }

    /// The turn, if somebody waits and nobody flushes: for the log writer.
    pub(crate) fn turn_for_waiters(&self) -> Option<Turn> {
        let mut state = self.state.lock();
        loop {
            state.writer_called = false;
            if state.in_flight || state.waiting == 0 {
                return None;
            }
            let Some(left) = self.gathers(&state) else { break };
            state.writer_sleeps = true;
            self.writer.wait_for(&mut state, left);
            state.writer_sleeps = false;
        }
        Some(Turn { by_writer: true, ..state.take_turn(0, self.clock.now()) })
    }

    /// The flush is over, well or badly (F3), and the log durable up to `durable`: wakes its group, and
    /// the open one if that is covered, too; else passes the turn on.
    pub(crate) fn finish(&self, turn: &Turn, durable: u64) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        assert!(state.in_flight, "F1: a flush ended that was not in flight");
        state.in_flight = false;
        state.away = turn.members;
        let worth_it = now.saturating_sub(turn.begun) >= GATHER / 2;
        state.gather_until = if worth_it { now + GATHER } else { Duration::ZERO };
        self.bump(turn.group);
        let open = state.open;
        let covered = state.want < durable;
        // A writer whose flush failed may be gone.
        let writer_comes = (turn.by_writer && turn.want < durable) || state.writer_sleeps;
        let wake_open = state.waiting > 0 && (covered || !writer_comes);
        if wake_open {
            state.away += state.waiting;
            state.waiting = 0;
            self.bump(open);
        } else if state.waiting > 0 {
            // Gathering, whoever completes the group may take the turn; the writer then minds the clock.
            state.writer_called = self.gathers(&state).is_none();
        }
        let (patient, call) = (state.patient > 0, state.waiting > 0 && state.writer_sleeps);
        drop(state);
        futex::wake_all(&self.words[turn.group]);
        if patient {
            self.patient.notify_all();
        }
        if wake_open {
            futex::wake_all(&self.words[open]);
        } else if call {
            self.writer.notify_one();
        }
    }

    fn bump(&self, group: usize) {
        self.words[group].fetch_add(1, Ordering::Release);
    }

    /// Wakes everybody, to look at the world again.
    pub(crate) fn wake(&self) {
        let mut state = self.state.lock();
        state.waiting = 0;
        self.bump(0);
        self.bump(1);
        drop(state);
        for word in &self.words {
            futex::wake_all(word);
        }
        self.patient.notify_all();
        self.writer.notify_all();
    }

    /// The log writer sleeps at most `idle`, unless a group is waiting for it.
    pub(crate) fn writer_sleeps(&self, idle: Duration) {
        let mut state = self.state.lock();
        if idle.is_zero() || (state.waiting > 0 && !state.in_flight) {
            return;
        }
        state.writer_sleeps = true;
        self.writer.wait_for(&mut state, idle);
        state.writer_sleeps = false;
    }

    /// Waits, at most `patience`, until `done` says so; looked at after each flush.
    pub(crate) fn wait_patiently(&self, patience: Duration, done: impl Fn() -> bool) {
        let clock = Clock::system();
        let mut state = self.state.lock();
        state.patient += 1;
        while !done() {
            let Some(left) = patience.checked_sub(clock.now()).filter(|left| !left.is_zero())
            else {
                break;
            };
            self.wait_once(&mut state, left);
        }
        state.patient -= 1;
    }

    fn wait_once(&self, state: &mut MutexGuard<'_, State>, left: Duration) {
        self.patient.wait_for(state, left);
    }
}

impl State {
    fn take_turn(&mut self, lsn: u64, begun: Duration) -> Turn {
        assert!(!self.in_flight, "F1: a second flush would be in flight");
        self.in_flight = true;
        let group = self.open;
        self.open ^= 1;
        let members = std::mem::take(&mut self.waiting);
        let want = std::mem::take(&mut self.want).max(lsn);
        Turn { group, want, members, by_writer: false, begun }
    }
}
