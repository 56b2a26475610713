//! Where the row of each id of a state table lies.
//!
//! Rows that were told one after the other lie one after the other, and so do most ids: such a stretch takes a few bytes, not
//! eight an id. A stretch does not change when some of its rows go; so a place may be that of a row which is
//! dead, or whose segment is gone, and whoever asks has to look.

use crate::collection::segment::Position;

/// Ids of a chunk.
const CHUNK_IDS: usize = if cfg!(test) { 16 } else { 1024 };
/// The place of an id without a row.
const NOWHERE: u64 = u64::MAX;

#[derive(Debug, Default)]
pub(super) struct Places {
    chunks: Vec<Chunk>,
}

#[derive(Debug)]
enum Chunk {
    /// `count` ids from the one at `start` on, at consecutive places.
    Stretch {
        first: u64,
        start: u16,
        count: u16,
    },
    Each(Box<[u64; CHUNK_IDS]>),
}

impl Chunk {
    const EMPTY: Self = Self::Stretch { first: 0, start: 0, count: 0 };

    fn get(&self, offset: usize) -> u64 {
        match self {
            Self::Stretch { first, start, count } => {
                let (start, count) = (usize::from(*start), usize::from(*count));
                if offset < start || offset >= start + count { NOWHERE } else { first + (offset - start) as u64 }
            }
            Self::Each(places) => places[offset],
        }
    }

    fn set(&mut self, offset: usize, place: u64) {
        let narrow = |offset: usize| u16::try_from(offset).expect("a chunk has few ids");
        match self {
            Self::Stretch { count: 0, .. } => *self = Self::Stretch { first: place, start: narrow(offset), count: 1 },
            Self::Stretch { first, start, count }
                if offset == usize::from(*start + *count) && place == *first + u64::from(*count) =>
            {
                *count += 1;
            }
            Self::Stretch { .. } => {
                let mut places = Box::new(std::array::from_fn(|offset| self.get(offset)));
                places[offset] = place;
                *self = Self::Each(places);
            }
            Self::Each(places) => places[offset] = place,
        }
    }
}

impl Places {
    /// Where the row of `id` was put last, if it may be there still.
    pub fn get(&self, id: u32) -> Option<Position> {
        let place = self.chunks.get(id as usize / CHUNK_IDS)?.get(id as usize % CHUNK_IDS);
        (place != NOWHERE).then(|| Position::from_bits(place))
    }

    pub fn set(&mut self, id: u32, place: Position) {
        let chunk = id as usize / CHUNK_IDS;
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, || Chunk::EMPTY);
        }
        self.chunks[chunk].set(id as usize % CHUNK_IDS, place.to_bits());
    }

    pub fn memory_bytes(&self) -> usize {
        let each = self.chunks.iter().filter(|chunk| matches!(chunk, Chunk::Each(_))).count();
        self.chunks.capacity() * size_of::<Chunk>() + each * size_of::<[u64; CHUNK_IDS]>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_and_others() {
        let mut places = Places::default();
        let mut expected = vec![NOWHERE; 200];
        let mut put = |places: &mut Places, id: u32, place: u64| {
            places.set(id, Position::from_bits(place));
            expected[id as usize] = place;
            for (id, place) in (0..).zip(&expected) {
                assert_eq!(places.get(id).map_or(NOWHERE, Position::to_bits), *place, "{id}");
            }
        };
        (5..150).for_each(|id| put(&mut places, id, u64::from(id) + 1000));
        assert!(places.memory_bytes() < 16 * size_of::<Chunk>() + 1, "stretches alone");
        put(&mut places, 20, 7);
        put(&mut places, 2, 8);
        put(&mut places, 180, 9);
        put(&mut places, 190, 10);
        (20..30).rev().for_each(|id| put(&mut places, id, u64::from(id)));
    }
}
