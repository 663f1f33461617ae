//! The proof after a crash: what was acknowledged against what is there.
//!
//! ```text
//!  acknowledged (heard)      journal (found)        balances (found)
//!   key → 42 7 100     ⊆      key → 42 7 100   ⇒     exactly the replay
//! ```
//!
//! Four claims, each either true or not:
//! 1. every acknowledged transfer is in the journal, word for word;
//! 2. replaying the journal gives exactly the balances, so none is half there;
//! 3. the sum is unchanged;
//! 4. of the unfinished statement not one row is there.
//!
//! A transfer in the journal that nobody acknowledged is no fault: its commit was durable, and the
//! process died before it could say so.

use std::collections::HashMap;

use crate::bank::ledger::{Ledger, Transfer};
use crate::output::grouped;

/// One claim and whether it holds.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// Stable name, for JSON.
    pub(super) name: &'static str,
    /// The claim in words, with its numbers.
    pub(super) text: String,
    /// Whether it is true.
    pub(super) holds: bool,
}

/// Goes through the books of a recovered bank. Empties `acknowledged` but for what is missing.
pub(super) fn prove(
    ledger: &Ledger,
    mut acknowledged: HashMap<String, Transfer>,
) -> argali::Result<Vec<Claim>> {
    let promised = acknowledged.len() as u64;
    let mut altered = 0_u64;
    let audit = ledger.audit(|key, found| {
        if let Some(told) = acknowledged.remove(key) {
            altered += u64::from(told != found);
        }
    })?;
    let missing = acknowledged.len() as u64;
    let kept = match (missing, altered) {
        (0, 0) => "every one is there, word for word".to_owned(),
        _ => format!("{} MISSING, {} ALTERED", grouped(missing), grouped(altered)),
    };
    let half = match &audit.first_fault {
        None => "give exactly the balances: none is half there".to_owned(),
        Some(first) => format!("do NOT give the balances, {} faults: {first}", audit.faults),
    };
    let (sum, expected) = (grouped(audit.sum), grouped(audit.expected_sum));
    Ok(vec![
        Claim {
            name: "acknowledged_present",
            text: format!("{} acknowledged transfers: {kept}", grouped(promised)),
            holds: missing == 0 && altered == 0,
        },
        Claim {
            name: "none_half_there",
            text: format!("{} journal rows, replayed, {half}", grouped(audit.transfers)),
            holds: audit.faults == 0,
        },
        Claim {
            name: "sum_unchanged",
            text: if sum == expected {
                format!("the sum is {sum}, as at the beginning")
            } else {
                format!("the sum is {sum}, NOT {expected}")
            },
            holds: audit.sum == audit.expected_sum,
        },
        Claim {
            name: "unfinished_gone",
            text: format!("{} rows of the unfinished statement are left", grouped(audit.drafts)),
            holds: audit.drafts == 0,
        },
    ])
}
