//! Where the row of each id of a state table lies.
//!
//! Rows that were told one after the other lie one after the other, and so do most ids: such a stretch takes a few bytes, not
//! eight an id. A stretch does not change when some of its rows go; so a place may be that of a row which is
//! dead, or whose segment is gone, and whoever asks has to look.

use crate::collection::segment::Position;

/// Ids of a chunk.
const CHUNK_IDS: usize = if cfg!(test) { 16 } else { 1024 };
/// Stretches of a chunk; with more, each id has a place of its own.
const STRETCHES_MAX: usize = if cfg!(test) { 3 } else { 32 };
/// The place of an id without a row.
const NOWHERE: u64 = u64::MAX;

#[derive(Debug, Default)]
pub(super) struct Places {
    chunks: Vec<Chunk>,
}

#[derive(Debug)]
enum Chunk {
    /// Of several with the same id the last counts.
    Stretches(Vec<Stretch>),
    Each(Box<[u64; CHUNK_IDS]>),
}

/// `count` ids from the one at `start` on, at consecutive places.
#[derive(Debug)]
struct Stretch {
    first: u64,
    start: u16,
    count: u16,
}

impl Stretch {
    fn get(&self, offset: usize) -> Option<u64> {
        let place = offset.checked_sub(usize::from(self.start))?;
        (place < usize::from(self.count)).then(|| self.first + place as u64)
    }
}

impl Chunk {
    const EMPTY: Self = Self::Stretches(Vec::new());

    fn get(&self, offset: usize) -> u64 {
        match self {
            Self::Stretches(stretches) => {
                stretches.iter().rev().find_map(|stretch| stretch.get(offset)).unwrap_or(NOWHERE)
            }
            Self::Each(places) => places[offset],
        }
    }

    fn set(&mut self, offset: usize, place: u64) {
        match self {
            Self::Each(places) => places[offset] = place,
            Self::Stretches(stretches) => {
                if let Some(last) = stretches.last_mut()
                    && offset == usize::from(last.start + last.count)
                    && place == last.first + u64::from(last.count)
                {
                    last.count += 1;
                    return;
                }
                if stretches.len() < STRETCHES_MAX {
                    let start = u16::try_from(offset).expect("a chunk has few ids");
                    stretches.reserve_exact(1);
                    stretches.push(Stretch { first: place, start, count: 1 });
                    return;
                }
                let mut places = Box::new(std::array::from_fn(|offset| self.get(offset)));
                places[offset] = place;
                *self = Self::Each(places);
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Stretches(stretches) => stretches.capacity() * size_of::<Stretch>(),
            Self::Each(_) => size_of::<[u64; CHUNK_IDS]>(),
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
        self.chunks.capacity() * size_of::<Chunk>() + self.chunks.iter().map(Chunk::memory_bytes).sum::<usize>()
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
        assert!(places.memory_bytes() < 17 * (size_of::<Chunk>() + size_of::<Stretch>()), "stretches alone");
        (40..44).for_each(|id| put(&mut places, id, u64::from(id) + 7));
        put(&mut places, 41, 3);
        put(&mut places, 20, 7);
        put(&mut places, 2, 8);
        put(&mut places, 180, 9);
        put(&mut places, 190, 10);
        (20..30).rev().for_each(|id| put(&mut places, id, u64::from(id)));
    }
}
