//! Faults that the driver makes on purpose, against its contract, to show that the checks detect them.

/// The kind of fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FaultKind {
    /// One mail between shards is lost.
    DropMail,
    /// Mails of one pair are swapped, from then on.
    SwapMail,
    /// The bytes of one send are sent twice.
    DoubleSend,
    /// One received byte is lost.
    LoseBytes,
    /// One `Closed` is never reported.
    ForgetClosed,
}

/// The one fault of a run, if it has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    kind: Option<FaultKind>,
    after: usize,
}

impl Fault {
    /// A driver that keeps its contract.
    pub(crate) fn none() -> Self {
        Self { kind: None, after: 0 }
    }

    /// The fault occurs at the occasion with this number, counted from 0.
    pub(crate) fn new(kind: FaultKind, after: usize) -> Self {
        Self { kind: Some(kind), after }
    }

    /// Called at each occasion; true once, and from then on for faults whose single occurrence is seldom visible.
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
