//! A filter that says which hashes are certainly not in a run.
//!
//! Blocked: all bits of a hash lie in one word of 64, so a look-up touches one cache line. With eight bits a row and four
//! bits a hash, about one in twenty hashes that are not there pass (Putze, Sanders, Singler, "Cache-, Hash- and
//! Space-Efficient Bloom Filters", 2007).

const ROWS_PER_WORD: usize = 8;

#[derive(Debug)]
pub struct Bloom {
    words: Vec<u64>,
}

impl Bloom {
    /// For about `rows` hashes.
    pub fn with_capacity(rows: usize) -> Self {
        Self { words: vec![0; rows.div_ceil(ROWS_PER_WORD).max(1)] }
    }

    pub fn insert(&mut self, hash: u64) {
        let word = self.word(hash);
        self.words[word] |= bits(hash);
    }

    pub fn may_contain(&self, hash: u64) -> bool {
        let bits = bits(hash);
        self.words[self.word(hash)] & bits == bits
    }

    /// By the lower half, multiplied rather than divided. The upper bits of all hashes on a worker are few.
    fn word(&self, hash: u64) -> usize {
        let word = (u128::from(hash << 32) * self.words.len() as u128) >> 64;
        usize::try_from(word).expect("less than the number of words")
    }

    pub fn memory_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}

fn bits(hash: u64) -> u64 {
    (0..4).fold(0, |bits, part| bits | 1 << ((hash >> (32 + 6 * part)) & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        freshet_types::keys::hash_int(i64::try_from(number).unwrap())
    }

    #[test]
    fn what_is_there_passes_and_most_else_does_not() {
        let mut bloom = Bloom::with_capacity(10_000);
        (0..10_000).for_each(|number| bloom.insert(hash(number)));
        assert!((0..10_000).all(|number| bloom.may_contain(hash(number))));
        let passing = (10_000..110_000).filter(|number| bloom.may_contain(hash(*number))).count();
        assert!(passing < 8_000, "{passing} of 100000 pass");
    }
}
