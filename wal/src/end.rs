//! Where the log ends: the tail of a crash, or the damage of a disk?
//!
//! A restart reads frames from the checkpoint on until one is bad, at X. Writes in flight land in any
//! order, so a bad frame, even with good ones behind it, is what a power cut leaves. But a damaged sector
//! in the middle of acknowledged work looks the same, and cutting the log there would lose commits
//! silently. Evidence decides, and only evidence:
//!
//! | found | judgement |
//! | --- | --- |
//! | the control file proves more: checkpoint end or clean-shutdown mark beyond X | `Corrupt` |
//! | a later good frame carries a durable end beyond X | `Corrupt` |
//! | redo meets a pageLSN at or beyond X (recovery asks [`Wal::end`](crate::Wal::end)) | `Corrupt` |
//! | a good frame at X whose body nobody understands | `Corrupt` (found when it is decoded) |
//! | nothing of the kind | X is the tail |
//!
//! Evidence is looked for in all that lies within two rings of X: at most a ring of records is on its way to the
//! disk at any time. Farther on only in segments that were written in, as their first records tell
//! ([`was_written`]); the others, made ready for later, are many and full of old bytes. A log that was durable
//! beyond those two rings has whole records in every segment up to its end, so it takes a second damage, at the
//! beginning of each segment that holds evidence, to hide the first.
//!
//! Restart redoes what it reads while it looks for the end ([`EndSearch`]): a whole frame in the unbroken
//! run of frames from the checkpoint on is history, wherever that run ends.
//!
//! Commit, checkpoint and prepare records carry the durable end known when they were appended; that is the second
//! row's evidence. (Source of the problem: Alagappan et al., Protocol-Aware Recovery, FAST 2018.)
//! Erasing comes after this judgement, in `Wal::resume`.

use argali_base::{Lsn, Result};

use crate::block::is_zero;
use crate::boundary::was_written;
use crate::frame::{self, HEAD_BYTES_MAX, Seed};
use crate::read::{Direction, Window};
use crate::record::{Record, durable_claimed, may_claim};
use crate::segment::Segments;
use crate::{Control, Wal};

/// Bytes of long later frames whose CRC is computed in search of evidence; bounds the work on a hostile
/// file, in which every eighth byte may look like the start of a long record.
const SEARCH_BYTES_MAX: usize = 64 << 20;
/// Bytes looked at in one go.
const SEARCH_BYTES: usize = 64 << 10;
/// Most bytes of a commit or checkpoint-begin record. Their number is bounded by the file.
const SHORT_BYTES_MAX: usize = HEAD_BYTES_MAX.next_multiple_of(8);

/// Where the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) lsn: Lsn,
    /// Bytes of the frame before it (0: none).
    pub(crate) prev_len: u32,
}

/// Reads a log that was opened for a restart from its checkpoint on, frame by frame, and judges the first
/// bad one. Until then the log ends, as far as its readers know, behind the last frame given out.
#[derive(Debug)]
pub struct EndSearch<'w> {
    wal: &'w Wal,
    claims: Control,
    window: Window,
    at: End,
}

impl Wal {
    /// Looks for the end of a log that was opened by [`Wal::open_for_restart`] and this control file; `None` when it
    /// is known. What is there is made durable first.
    pub fn search_end(&self, control: &Control) -> Result<Option<EndSearch<'_>>> {
        if self.is_judged() {
            return Ok(None);
        }
        if !self.options.mutations.skip_first_sync {
            sync_unproven(&self.segments, control)?;
        }
        EndSearch::begin(self, control).map(Some)
    }

    /// As [`Wal::search_end`], to its end.
    pub fn find_end(&self, control: &Control) -> Result<()> {
        self.search_end(control)?.map_or(Ok(()), EndSearch::finish)
    }
}

impl<'w> EndSearch<'w> {
    pub(crate) fn begin(wal: &'w Wal, control: &Control) -> Result<Self> {
        let start = start(control);
        check_kept(&wal.segments, control.log_first, start)?;
        let at = End { lsn: start, prev_len: 0 };
        Ok(Self { wal, claims: control.clone(), window: Window::for_scan(), at })
    }

    /// LSN of the frame that comes next.
    pub fn at(&self) -> Lsn {
        self.at.lsn
    }

    /// The next whole frame, with its LSN; `None` when the end is found and was judged to be one.
    pub fn lend(&mut self) -> Result<Option<(Lsn, &[u8])>> {
        let (segments, seed, lsn) = (&self.wal.segments, self.wal.seed, self.at.lsn);
        let len = match next_frame(segments, &mut self.window, seed, self.at)? {
            Ok(frame) => frame.len(),
            Err(what) => {
                self.judge(what)?;
                self.wal.judged(self.at);
                return Ok(None);
            }
        };
        self.at = End { lsn: lsn.advance(len as u64), prev_len: len as u32 };
        self.wal.found_up_to(self.at.lsn);
        Ok(Some((lsn, self.window.part(lsn.get(), len))))
    }

    /// Whether the first bad frame, of which `what` is wrong, is where the log ends.
    fn judge(&mut self, what: &str) -> Result<()> {
        let (end, claims) = (self.at.lsn, &self.claims);
        let proof = if end < claims.checkpoint_end {
            format!("the control file proves the log durable up to {}", claims.checkpoint_end)
        } else if let Some(clean) = claims.clean_end.filter(|clean| end < *clean) {
            format!("the clean-shutdown mark proves the log durable up to {clean}")
        } else if let Some((by, durable)) = self.evidence_behind(end)? {
            format!("the record at {by} proves the log durable up to {durable}")
        } else {
            return Ok(());
        };
        Err(self.wal.segments.corrupt(end, format!("{what}, yet {proof}")))
    }

    /// The first record behind `end` that carries a durable end beyond it.
    fn evidence_behind(&mut self, end: Lsn) -> Result<Option<(Lsn, Lsn)>> {
        let (segments, seed) = (&self.wal.segments, self.wal.seed);
        let near = end.get() + 2 * self.wal.options.ring_bytes as u64;
        let mut budget = SEARCH_BYTES_MAX;
        for index in segments.indexes() {
            let begin = index * segments.size();
            if segments.end_of(index) <= end.get()
                || begin > near && !was_written(segments, seed, index)?
            {
                continue;
            }
            let begin = begin.max(end.get());
            let found = evidence_in((segments, &mut self.window), seed, (begin, end), &mut budget)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Goes on to the end.
    pub fn finish(mut self) -> Result<()> {
        while !self.wal.is_judged() {
            self.lend()?;
        }
        Ok(())
    }
}

/// Where the search begins.
pub(crate) fn start(control: &Control) -> Lsn {
    if control.checkpoint.is_none() { Lsn::FIRST } else { control.checkpoint }
}

/// Makes durable what is merely readable after a process was killed. What lies wholly before the end of
/// the last checkpoint is proven durable by the control file.
fn sync_unproven(segments: &Segments, control: &Control) -> Result<()> {
    for index in segments.indexes() {
        if segments.end_of(index) > control.checkpoint_end.get() {
            segments.sync(index)?;
        }
    }
    segments.sync_dir()
}

/// Every segment that undo may read must be there.
fn check_kept(segments: &Segments, first: Lsn, start: Lsn) -> Result<()> {
    let have = segments.indexes();
    // Both come from a checked control slot; a hole ends the walk, so its length is bounded by the disk.
    for index in segments.index(first)..=segments.index(start) {
        if have.binary_search(&index).is_err() {
            let lsn = Lsn::new((index * segments.size()).max(first.get()));
            return Err(segments.corrupt(lsn, "log segment is missing"));
        }
    }
    Ok(())
}

fn next_frame<'w>(
    segments: &Segments,
    window: &'w mut Window,
    seed: Seed,
    at: End,
) -> Result<Result<&'w [u8], &'static str>> {
    let frame = window.frame(Direction::Forward, segments, at.lsn.get(), u64::MAX)?;
    let frame = match frame {
        Ok(frame) => frame,
        Err(what) => return Ok(Err(what)),
    };
    Ok(frame::check(frame, seed, at.lsn).and_then(|header| {
        if at.prev_len == 0 || header.prev_len == at.prev_len {
            Ok(frame)
        } else {
            Err("record does not follow the one before it")
        }
    }))
}

/// As [`EndSearch::evidence_behind`], from `at` to the end of its segment.
fn evidence_in(
    (segments, window): (&Segments, &mut Window),
    seed: Seed,
    (mut at, end): (u64, Lsn),
    budget: &mut usize,
) -> Result<Option<(Lsn, Lsn)>> {
    let limit = segments.end_of(segments.index(Lsn::new(at)));
    while at < limit {
        let bytes = window.forward(segments, (at, SEARCH_BYTES), u64::MAX)?;
        let Some((skipped, len)) = candidate(bytes, (at, end), budget) else {
            // The last head's worth may have been cut; a file that ends early has no more.
            let looked = bytes.len().saturating_sub(HEAD_BYTES_MAX);
            at += (looked - looked % 8 + 8) as u64;
            if bytes.len() < SEARCH_BYTES {
                break;
            }
            continue;
        };
        at += skipped as u64;
        let frame = window.forward(segments, (at, len), u64::MAX)?;
        if let Some(durable) = durable_of(frame, seed, Lsn::new(at)).filter(|d| *d > end) {
            return Ok(Some((Lsn::new(at), durable)));
        }
        at += 8;
    }
    Ok(None)
}

/// The first place in `bytes`, which stand at `at`, where a frame may begin that carries evidence: a durable end
/// beyond `end`, which it can only have known if it lies below the frame itself. And the frame's length.
fn candidate(bytes: &[u8], (at, end): (u64, Lsn), budget: &mut usize) -> Option<(usize, usize)> {
    // Few words look like a kind, and fewer are followed by such an LSN: this runs over megabytes of zeros or
    // old records.
    if is_zero(bytes) {
        return None;
    }
    let (words, _) = bytes.as_chunks();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let mut first = words.next()?;
    for (nth, second) in words.enumerate() {
        if may_claim(std::mem::replace(&mut first, second), second)
            && let Some(len) = claim(&bytes[nth * 8..], (at + nth as u64 * 8, end), budget)
        {
            return Some((nth * 8, len));
        }
    }
    None
}

/// The length of the frame that `bytes`, which stand at `at`, may begin with.
fn claim(bytes: &[u8], (at, end): (u64, Lsn), budget: &mut usize) -> Option<usize> {
    let head = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let durable = durable_claimed(head)?;
    let known = end < durable && durable.get() <= at;
    let len = frame::plausible_len(head).ok().filter(|_| known)?;
    if len > SHORT_BYTES_MAX {
        *budget = budget.checked_sub(len)?;
    }
    Some(len)
}

fn durable_of(frame: &[u8], seed: Seed, lsn: Lsn) -> Option<Lsn> {
    frame::check(frame, seed, lsn).ok()?;
    Record::decode(frame)?.body.durable()
}
