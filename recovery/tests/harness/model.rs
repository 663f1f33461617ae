//! The oracle: which states a database may be in after a crash.
//!
//! A workload appends *events* in log order: a transaction committed, a structure change was logged.
//! What survives a crash is a prefix of the log, so the state found afterwards must be the state after
//! some prefix of the events, and no shorter one than what was acknowledged:
//!
//! ```text
//!  events     E1   E2   E3   E4   E5
//!  known at        ▲         ▲    ▲
//!  the crash       │         │    └ logged by then: nothing later may be found
//!                  │         └ e.g. a commit that was asked for and not answered
//!                  └ acknowledged by then: nothing earlier may be found
//! ```
//!
//! Everything of a transaction is one event, so "all or nothing" and "order kept" need no check of
//! their own.

use std::fmt;

/// What one page holds, as far as the tests can see.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct PageState {
    /// Adds and undoes of transactions: not idempotent.
    pub counter: u64,
    /// Changes by structure changes and nested top actions, which no rollback takes back.
    pub structure: u64,
    /// Set as a whole.
    pub value: Vec<u8>,
    /// Appended one by one: not idempotent.
    pub appended: Vec<Vec<u8>>,
}

impl fmt::Debug for PageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (counter, structure) = (self.counter.cast_signed(), self.structure.cast_signed());
        write!(f, "counter {counter}, structure {structure}, ")?;
        write!(f, "value \"{}\", appended [", self.value.escape_ascii())?;
        self.appended.iter().try_for_each(|cell| write!(f, "\"{}\" ", cell.escape_ascii()))?;
        f.write_str("]")
    }
}

/// What the database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// By page, in the order of their ids.
    pub pages: Vec<PageState>,
}

/// One effect of a transaction.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Add to the page's counter.
    Count(usize, u64),
    /// Add to the page's structure counter.
    Structure(usize, u64),
    /// Set the page's value.
    Set(usize, Vec<u8>),
    /// Append to the page.
    Append(usize, Vec<u8>),
}

impl State {
    /// `pages` pages as they are after creation.
    pub fn new(pages: usize) -> Self {
        Self { pages: vec![PageState::default(); pages] }
    }

    /// Applies one effect.
    pub fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Count(page, delta) => {
                let counter = &mut self.pages[*page].counter;
                *counter = counter.wrapping_add(*delta);
            }
            Effect::Structure(page, delta) => {
                let counter = &mut self.pages[*page].structure;
                *counter = counter.wrapping_add(*delta);
            }
            Effect::Set(page, value) => self.pages[*page].value.clone_from(value),
            Effect::Append(page, cell) => self.pages[*page].appended.push(cell.clone()),
        }
    }
}

/// The states one run of a workload went through.
#[derive(Clone, Debug)]
pub struct Story {
    /// `states[k]` is the state after the first k events.
    pub states: Vec<State>,
    /// `logged[k]`: disk calls made before event k+1 could have been in the log.
    logged: Vec<u64>,
    /// From so many disk calls on, so many events are acknowledged; grows in both.
    acknowledged: Vec<(u64, usize)>,
}

impl Story {
    /// A story that begins with `state`, which is durable.
    pub fn new(state: State) -> Self {
        Self { states: vec![state], logged: Vec::new(), acknowledged: Vec::new() }
    }

    /// An event is about to be logged; `calls` disk calls have been made.
    pub fn event(&mut self, calls: u64, effects: &[Effect]) {
        let mut state = self.states.last().expect("a story has a beginning").clone();
        for effect in effects {
            state.apply(effect);
        }
        self.states.push(state);
        self.logged.push(calls);
    }

    /// Everything logged so far is known to be durable, `calls` disk calls having been made.
    pub fn acknowledge(&mut self, calls: u64) {
        self.acknowledged.push((calls, self.logged.len()));
    }

    /// Where the story ended up.
    pub fn last(&self) -> &State {
        self.states.last().expect("a story has a beginning")
    }

    /// The states that may be found when the power fails before disk call number `call`.
    pub fn candidates(&self, call: u64) -> &[State] {
        let known = self.acknowledged.iter().rev().find(|(calls, _)| *calls <= call);
        let least = known.map_or(0, |(_, events)| *events);
        let most = self.logged.iter().take_while(|calls| **calls <= call).count();
        assert!(least <= most, "acknowledged {least} events of {most} logged");
        &self.states[least..=most]
    }
}
