//! The history of a shard cut into segments, as checkpoints keep it, and put together again.
//!
//! Within a segment an offset names a row for ever (I-11), so what each epoch did to a segment is a list to which later epochs
//! only add: from which row to which it inserted, and which it deleted. A segment that compaction makes has a list
//! of its own, of what has yet to be forgotten of its rows. The lists of all segments of a shard, and its rows, are all
//! there is to know: the epochs are those in the lists, the counts of live rows follow.

use std::collections::BTreeMap;

use arrow::error::ArrowError;
use freshet_types::Epoch;

use super::history::{Deleted, History, Version};
use super::identity::Identity;
use super::rows::RowLog;
use super::segment::Position;
use super::shard::Shard;

/// What one epoch did to a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentVersion {
    pub epoch: Epoch,
    /// It inserted the rows from one offset up to another.
    pub start: usize,
    pub end: usize,
    /// It deleted the rows at these offsets.
    pub deleted: Vec<usize>,
    /// The first so many of them because they had expired.
    pub expired: usize,
}

/// By the id of a segment, what epochs did to it, in their order.
pub(crate) type SegmentVersions = BTreeMap<u64, Vec<SegmentVersion>>;

/// What a shard remembers up to an epoch, taken under its lock.
pub(crate) struct PastVersions {
    pub since: Epoch,
    rows: RowLog,
    base_end: Position,
    versions: Vec<Version>,
}

impl PastVersions {
    /// The versions of `shard` after `after`, or all that it remembers, up to and with `through`.
    pub(super) fn new(shard: &Shard, after: Epoch, through: Epoch) -> Self {
        let since = shard.history.since;
        let (base, later) = shard.history.at(after.max(since));
        let versions = later.take_while(|version| version.epoch <= through).cloned().collect();
        Self { since, rows: shard.rows.clone(), base_end: base.end, versions }
    }

    /// The same by segment.
    pub fn by_segment(&self) -> SegmentVersions {
        let mut segments = SegmentVersions::new();
        let mut start = self.base_end;
        for version in &self.versions {
            for (segment, from, until) in self.rows.segments_between(start, version.end) {
                let of_segment = of_epoch(&mut segments, segment.id, version.epoch);
                (of_segment.start, of_segment.end) = (from, until);
            }
            for (index, position) in version.deleted().iter().enumerate() {
                let of_segment = of_epoch(&mut segments, position.segment(), version.epoch);
                of_segment.deleted.push(position.offset());
                of_segment.expired += usize::from(index < version.expired());
            }
            start = version.end;
        }
        segments
    }
}

fn of_epoch(segments: &mut SegmentVersions, id: u64, epoch: Epoch) -> &mut SegmentVersion {
    let versions = segments.entry(id).or_default();
    if versions.last().is_none_or(|last| last.epoch < epoch) {
        versions.push(SegmentVersion { epoch, start: 0, end: 0, deleted: Vec::new(), expired: 0 });
    }
    versions.last_mut().expect("one was pushed if there was none")
}

/// A shard as a checkpoint has it.
pub(crate) struct StoredShard {
    pub rows: RowLog,
    /// The versions are complete after this epoch.
    pub since: Epoch,
    pub versions: SegmentVersions,
}

/// That versions do not fit the rows that they are about.
#[derive(Debug, thiserror::Error)]
#[error("what is kept of the past does not fit the rows")]
pub(crate) struct Misfit;

impl StoredShard {
    /// Puts the history together. In the rows, those that are dead and may still be asked for are then known as such.
    pub(super) fn into_parts(self, identity: &Identity) -> Result<(RowLog, History), RestoreError> {
        let Self { mut rows, since, versions } = self;
        let (base_end, versions) = by_epoch(&mut rows, since, &versions)?;
        let mut live = rows.live();
        for (_, version) in versions.iter().rev() {
            live = (live + version.deleted_rows()).checked_sub(version.inserted).ok_or(Misfit)?;
        }
        let mut history = History::starting_at(since, base_end, live);
        let mut end = base_end;
        for (epoch, EpochVersion { end: new_end, inserted, expired, mut deleted }) in versions {
            end = new_end.unwrap_or(end);
            let expired_rows = expired.len();
            deleted.splice(..0, expired);
            live = (live + inserted).checked_sub(deleted.len()).ok_or(Misfit)?;
            let hashes = match identity.key() {
                Some(_) => hashes(&rows, &deleted, identity)?,
                None => Vec::new(),
            };
            let deleted = Deleted { positions: deleted, hashes, expired: expired_rows };
            history.push(Version::new(epoch, end, live, deleted));
        }
        Ok((rows, history))
    }
}

/// The hashes of the keys of rows. Those in files are not looked up by hash, so any number does, and nothing is read.
pub(super) fn hashes(rows: &RowLog, positions: &[Position], identity: &Identity) -> Result<Vec<u64>, ArrowError> {
    let in_memory: Vec<Position> = positions.iter().copied().filter(|place| !rows.is_stored(*place)).collect();
    let mut hashes = identity.keys(&rows.gather(&in_memory, None)?)?.hashes().into_iter();
    let hash = |place: &Position| if rows.is_stored(*place) { None } else { hashes.next() };
    Ok(positions.iter().map(hash).map(|hash| hash.unwrap_or(0)).collect())
}

/// Why a shard does not come back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// What one epoch did to a shard.
#[derive(Default)]
struct EpochVersion {
    end: Option<Position>,
    inserted: usize,
    expired: Vec<Position>,
    /// Those that had not expired.
    deleted: Vec<Position>,
}

impl EpochVersion {
    fn deleted_rows(&self) -> usize {
        self.expired.len() + self.deleted.len()
    }
}

/// The versions after `since` by epoch, and where the rows before them end.
fn by_epoch(
    rows: &mut RowLog,
    since: Epoch,
    segments: &SegmentVersions,
) -> Result<(Position, BTreeMap<Epoch, EpochVersion>), Misfit> {
    let mut base_end = rows.end();
    let mut epochs = BTreeMap::<Epoch, EpochVersion>::new();
    for (id, versions) in segments {
        let index = rows.segments().binary_search_by_key(id, |segment| segment.id).map_err(|_| Misfit)?;
        let segment = &mut rows.segments_mut()[index];
        for SegmentVersion { epoch, start, end, deleted, expired } in
            versions.iter().filter(|version| version.epoch > since)
        {
            let version = epochs.entry(*epoch).or_default();
            if start < end {
                if *end > segment.rows() {
                    return Err(Misfit);
                }
                version.end = version.end.max(Some(Position::new(*id, *end)));
                version.inserted += end - start;
                base_end = base_end.min(Position::new(*id, *start));
            }
            if deleted.iter().any(|offset| *offset >= segment.rows() || segment.is_live(*offset)) {
                return Err(Misfit);
            }
            segment.dead_for_good = segment.dead_for_good.checked_sub(deleted.len()).ok_or(Misfit)?;
            let (expired, deleted) = deleted.split_at_checked(*expired).ok_or(Misfit)?;
            version.expired.extend(expired.iter().map(|offset| Position::new(*id, *offset)));
            version.deleted.extend(deleted.iter().map(|offset| Position::new(*id, *offset)));
        }
    }
    Ok((base_end, epochs))
}
