//! One bit a row of a run; none is kept as long as all are clear.

#[derive(Debug, Default, Clone)]
pub struct RowBits {
    words: Vec<u64>,
    set: usize,
}

impl RowBits {
    pub fn contains(&self, row: usize) -> bool {
        self.words.get(row / 64).is_some_and(|word| word & (1 << (row % 64)) != 0)
    }

    /// Sets the bit of a row; false if it was set before.
    pub fn insert(&mut self, row: usize) -> bool {
        if row / 64 >= self.words.len() {
            self.words.resize(row / 64 + 1, 0);
        }
        let (word, bit) = (&mut self.words[row / 64], 1 << (row % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        self.set += usize::from(is_new);
        is_new
    }

    pub fn remove(&mut self, row: usize) {
        if self.contains(row) {
            self.words[row / 64] &= !(1 << (row % 64));
            self.set -= 1;
        }
    }

    /// How many bits are set.
    pub fn len(&self) -> usize {
        self.set
    }

    pub fn is_empty(&self) -> bool {
        self.set == 0
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn memory_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}
