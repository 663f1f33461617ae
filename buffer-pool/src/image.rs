//! Mode `FullPageImage`: when a page's image must be logged.
//!
//! ```text
//!  read in ─ change (image) ─ change ─ copied for write-back ─ change (image) ─ change ─ …
//!                                      torn here? redo from recLSN = this record ──┘ has the image
//! ```
//!
//! The rule is once per *copy*: any write of the page may tear it, and redo then starts at its recLSN,
//! which is the first record after the copy. `PostgreSQL` logs images once per *checkpoint* instead, which
//! is right only because its redo always starts at a checkpoint that wrote everything older. With fuzzy
//! checkpoints it is wrong; the broken variant below exists so that a test can show it.

use std::collections::BTreeMap;

use argali_base::PageId;
use argali_base::sync::Mutex;

use crate::BufferPool;

/// The broken variant's memory: the checkpoint epoch in which a page's image was last logged.
#[derive(Debug, Default)]
pub(crate) struct Epochs {
    table: Mutex<(u64, BTreeMap<PageId, u64>)>,
}

impl BufferPool {
    /// Whether the log holds an image of the page that redo would meet.
    pub(crate) fn has_image(&self, frame: usize, id: PageId) -> bool {
        if self.options.mutations.image_per_checkpoint {
            let (now, imaged) = &*self.epochs.table.lock();
            return imaged.get(&id) == Some(now);
        }
        self.frames.is_imaged(frame)
    }

    /// A record that changed the page was logged, with an image if it needed one.
    pub(crate) fn image_logged(&self, frame: usize, id: PageId) {
        self.frames.set_imaged(frame);
        if self.options.mutations.image_per_checkpoint {
            let (now, imaged) = &mut *self.epochs.table.lock();
            imaged.insert(id, *now);
        }
    }

    /// A checkpoint begins: matters to the broken variant only.
    #[doc(hidden)]
    pub fn begin_image_epoch(&self) {
        self.epochs.table.lock().0 += 1;
    }
}
