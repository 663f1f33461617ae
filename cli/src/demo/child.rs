//! The process that dies: tellers, and a statement that is never finished.
//!
//! ```text
//!  teller 0 … n   transfer ─► commit ─► durable ─► acknowledgement line on standard output
//!  clerk          put, put, put, …                 never commits: work for the undo pass
//! ```
//!
//! An acknowledgement is one `write(2)` of one line, made after the commit returned, so that whatever
//! the parent has read was durable before the kill. The clerk says nothing: whatever it wrote must be
//! gone afterwards, although other transactions' commits have long carried its log records to the disk.

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use argali::Options;

use crate::args::DemoChildArgs;
use crate::bank::ledger::Ledger;
use crate::bank::tellers::Shift;
use crate::output::Lines;

/// Rows of a statement before it is given up and begun again.
const STATEMENT_ROWS: u32 = 3000;
/// How many rows the clerk writes without a break.
const ROWS_AT_A_TIME: u32 = 50;

/// Runs until it is killed, or until its parent stops listening.
pub(crate) fn run(args: &DemoChildArgs) -> anyhow::Result<()> {
    let db = options().open(&args.dir)?;
    let ledger = Ledger::open(&db)?;
    let shift = Shift { tellers: args.threads, seed: args.seed, run: ledger.begin_run()? };
    let acks = Lines::stdout()?;
    let clerk = ledger.clone();
    thread::spawn(move || write_statements(&clerk));
    shift.work(&ledger, &AtomicBool::new(false), &|key, transfer| {
        acks.emit(format!("{key} {}", transfer.to_row())).map_err(Into::into)
    })
}

/// A cache smaller than the data, so that pages of unfinished transactions are stolen and written.
pub(super) fn options() -> Options {
    Options::new().create(false).cache_bytes(2 << 20)
}

fn write_statements(ledger: &Ledger) {
    let pause = |row: u32| {
        if row.is_multiple_of(ROWS_AT_A_TIME) {
            thread::sleep(Duration::from_millis(10));
        }
    };
    while ledger.draft(STATEMENT_ROWS, pause).is_ok() {}
}
