//! Faults that the driver makes on purpose, against its contract, so that the checks are seen to catch them.

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FaultKind {
    /// One mail between shards is lost.
    DropMail,
    /// Mails of one pair change places, from then on.
    SwapMail,
    /// The bytes of one send go out twice.
    DoubleSend,
    /// One received byte is lost.
    LoseBytes,
    /// One `Closed` is never told.
    ForgetClosed,
}

/// The one fault of a run, if it has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    kind: Option<FaultKind>,
    after: usize,
}

impl Fault {
    /// A driver that keeps to the contract.
    pub(crate) fn none() -> Self {
        Self { kind: None, after: 0 }
    }

    /// The fault strikes at the occasion with this number, counted from 0.
    pub(crate) fn new(kind: FaultKind, after: usize) -> Self {
        Self { kind: Some(kind), after }
    }

    /// Asked at each occasion; true once, and from then on for what one time seldom shows.
    pub(crate) fn strikes(&mut self, kind: FaultKind) -> bool {
        if self.kind != Some(kind) {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        if kind != FaultKind::SwapMail {
            self.kind = None;
        }
        true
    }
}
