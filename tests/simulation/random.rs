//! The only source of randomness of a run: splitmix64, so that a seed repeats exactly on every machine, or choices made
//! in advance, so that a fuzzer steers a run.

/// A generator of repeatable random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
    /// Choices made in advance, used before the generator's own.
    choices: std::vec::IntoIter<u8>,
    /// There were such choices.
    is_steered: bool,
}

impl Random {
    /// Starts from a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
        Self { state, choices: Vec::new().into_iter(), is_steered: false }
    }

    /// Uses one of these bytes for each choice between few things; after their end, and for long numbers, it continues
    /// from a seed.
    pub(crate) fn of_choices(choices: &[u8]) -> Self {
        Self { choices: Vec::from(choices).into_iter(), is_steered: true, ..Self::new(choices.len() as u64) }
    }

    /// Whether choices were made in advance.
    pub(crate) fn is_steered(&self) -> bool {
        self.is_steered
    }

    /// Whether choices were made in advance and none of them is left.
    pub(crate) fn has_run_out(&self) -> bool {
        self.is_steered && self.choices.len() == 0
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound <= 256
            && let Some(choice) = self.choices.next()
        {
            return usize::from(choice) % bound;
        }
        (self.next() % bound as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True once in `of` times.
    pub(crate) fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// One of the choices.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// An index, chosen by these weights.
    pub(crate) fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if left < *weight {
                return index;
            }
            left -= weight;
        }
        unreachable!("the draw is below the sum")
    }

    /// Random bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
