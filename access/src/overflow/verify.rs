//! Checking a chain: each page in its place, together as long as the row says.

use argali_base::{PageId, Result};

use super::{Part, Reference};
use crate::Survey;

/// What a chain must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Of so many bytes.
    Whole(u64),
    /// Being built or freed: pages behind the first may be gone, and nobody knows its length.
    Remains,
}

/// Checks the chain that a row refers to; returns its pages. Its owner must be the survey's present one.
pub(crate) fn verify(survey: &mut Survey, reference: Reference) -> Result<u64> {
    walk(survey, reference.first, State::Whole(reference.len))
}

/// Checks a chain that is being built or freed; returns its pages.
pub(crate) fn verify_remains(survey: &mut Survey, first: PageId) -> Result<u64> {
    walk(survey, first, State::Remains)
}

fn walk(survey: &mut Survey, first: PageId, state: State) -> Result<u64> {
    let (mut pages, mut len, mut least) = (0, 0, 0);
    let mut next = Some(first);
    while let Some(id) = next {
        if !survey.claim(id) {
            return Ok(pages);
        }
        let Some(copy) = survey.read(id)? else { return Ok(pages) };
        let Some(part) = Part::read(copy.page(), first) else {
            survey.fault(id, format_args!("is no sound page of the overflow chain at {first}"));
            return Ok(pages);
        };
        let in_place = match state {
            State::Whole(_) => part.index == least,
            State::Remains => part.index >= least,
        };
        if !in_place {
            let what =
                format!("is page {} of the overflow chain at {first}, not {least}", part.index);
            survey.fault(id, what);
        }
        (pages, len) = (pages + 1, len + part.data.len() as u64);
        (next, least) = (part.next, part.index.saturating_add(1));
    }
    if let State::Whole(expected) = state
        && len != expected
    {
        let what = format!("begins an overflow chain of {len} bytes, its row says {expected}");
        survey.fault(first, what);
    }
    Ok(pages)
}
