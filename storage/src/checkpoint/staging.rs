//! Rows of state tables that go to files before their checkpoint does, since memory has no room for all of them.
//!
//! Full segments never grow, so a file with their rows is as good before the checkpoint as in it. The checkpoint refers to
//! such files as it does to those of earlier ones. If it fails, the next one refers to them; if the process ends, nobody does,
//! and they are garbage.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use super::commit::Checkpoints;
use super::manifest::{Piece, PieceId};
use super::segments;
use crate::StorageError;
use crate::collection::segment::Segment;

/// Bytes of full segments that memory holds of a state table; more go to a file.
const UNWRITTEN_BYTES_MAX: usize = if cfg!(test) { 4 << 10 } else { 16 << 20 };

/// What is known of the segments of a state table: from the last checkpoint, and from later files.
pub(super) fn known<'a>(stored: Option<&'a Piece>, staged: Option<&'a Piece>) -> Option<Cow<'a, Piece>> {
    match (stored, staged) {
        (Some(stored), Some(staged)) => {
            let mut all = stored.clone();
            all.extend(staged.iter().map(|(uid, segment)| (*uid, segment.clone())));
            Some(Cow::Owned(all))
        }
        (stored, staged) => stored.or(staged).map(Cow::Borrowed),
    }
}

impl Checkpoints {
    /// Writes the full segments of a state table to a file of their own, if memory holds many. If that fails, they stay
    /// in memory, and the checkpoint tries again.
    pub(super) async fn stage_if_much(&mut self, id: PieceId) {
        let Some(log) = self.logs.get(&id) else { return };
        if log.unwritten().map(Segment::memory_bytes).sum::<usize>() <= UNWRITTEN_BYTES_MAX {
            return;
        }
        if let Err(error) = self.stage(id).await {
            tracing::warn!(%error, "cannot write a part of a checkpoint");
        }
    }

    async fn stage(&mut self, id: PieceId) -> Result<(), StorageError> {
        let Some(log) = self.logs.get_mut(&id) else { return Ok(()) };
        let number = self.next_number.fetch_add(1, Ordering::SeqCst);
        // From here on there may be such a file.
        self.sizes.insert(number, 0);
        let mut writer = self.files.writer(number);
        let known = known(self.manifest.pieces.get(&id), self.staged.get(&id));
        let mut piece = Piece::new();
        for segment in log.unwritten() {
            let known = known.as_ref().and_then(|known| known.get(&segment.uid));
            piece.insert(segment.uid, segments::save(&mut writer, known, segment, segment.rows()).await?);
        }
        self.sizes.insert(number, writer.finish().await?);
        log.saved(&piece);
        self.staged.entry(id).or_default().extend(piece);
        Ok(())
    }
}
