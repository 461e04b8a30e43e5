//! The steps of a run: always a digest, so that repeated runs can be compared, and the text of every step on standard
//! error when `RELAY_SIM_TRACE` is set.

/// The record of one run.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    digest: u64,
    steps: u64,
    print: bool,
}

impl Trace {
    /// An empty record.
    pub(crate) fn new(print: bool) -> Self {
        Self { digest: 0xcbf2_9ce4_8422_2325, steps: 0, print }
    }

    /// Adds a number to the digest (FNV-1a over its bytes).
    pub(crate) fn mix(&mut self, figure: u64) {
        self.steps += 1;
        for byte in figure.to_le_bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Adds bytes to the digest.
    pub(crate) fn mix_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Prints a line if lines are wanted.
    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        if self.print {
            eprintln!("{:6} {}", self.steps, line());
        }
    }

    /// The digest so far.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}
