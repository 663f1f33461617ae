//! Giving a chain's pages back, always the second one, so that each step is as short as any other.
//!
//! ```text
//!  p7 ─► p12 ─► p9 ─► 0     each step:  first page  SetLink{the one behind the second}
//!  p7 ────────► p9 ─► 0                 map         SetBit{second, false}
//!  p7 ────────────────► 0   at last the first page, together with its pending row
//! ```
//!
//! A crash between two steps leaves a shorter chain that is freed by the same steps.

use argali_base::{PageId, Result};
use argali_pager::PageOp;
use argali_txn::{Edit, Txn, Undo};

use super::{Part, no_part};
use crate::Space;
use crate::attempt::{Attempt, Stop, retry};
use crate::fault::corrupt;

/// Log bytes of one step, generously.
const STEP_BYTES: usize = 64;

/// Frees at most `pages` pages of the chain at `first`, which nobody can reach; each step one record,
/// never undone. Returns true when only the first page is left.
pub(crate) fn free_some(space: &Space, txn: &mut Txn, first: PageId, pages: usize) -> Result<bool> {
    for _ in 0..pages {
        let Some(second) = next_of(space, first, first)? else { return Ok(true) };
        let third = next_of(space, second, first)?;
        retry(|patient| unlink(space, txn, (first, second, third), patient))?;
        space.freed(second);
    }
    Ok(next_of(space, first, first)?.is_none())
}

/// The page behind `page` in the chain at `first`.
fn next_of(space: &Space, page: PageId, first: PageId) -> Result<Option<PageId>> {
    let read = retry(|_| Ok(space.pool().read_passing(page)?))?;
    let part = Part::read(read.page(), first);
    part.map(|part| part.next).ok_or_else(|| no_part(space.pool(), page, first))
}

fn unlink(
    space: &Space,
    txn: &mut Txn,
    (first, second, third): (PageId, PageId, Option<PageId>),
    patient: bool,
) -> Attempt<()> {
    txn.admit(STEP_BYTES, 2)?;
    space.await_map(second)?;
    let mut page = space.pool().write(first)?;
    let Some(mut map) = space.try_map(second, patient)? else { return Err(Stop::Again) };
    // A chain that leads back into itself would be freed for ever.
    if second == first || !space.is_set(map.page(), second) {
        let what = format!("is linked into the overflow chain at {first} a second time");
        return Err(corrupt(space.pool(), second, what).into());
    }
    let link = third.map_or(0, PageId::get);
    let edits = &mut [
        Edit { page: &mut page, ops: &[PageOp::SetLink { link }] },
        Edit { page: &mut map, ops: &[space.bit(second, false)] },
    ];
    txn.update(edits, Undo::Never);
    Ok(())
}
