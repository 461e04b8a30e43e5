//! Notices that a server which owes something gives nothing any more: it is stopped, hangs, or is gone without a reset.

use std::time::{Duration, Instant};

use crate::cut::{self, Cut};
use crate::messages::{Counters, Group};

/// How long a server has given nothing although it owed something.
pub(crate) struct Silence {
    bound: Duration,
    progress: u64,
    since: Option<Instant>,
}

impl Silence {
    /// Begins to watch; silence longer than `bound` is too long.
    pub(crate) fn new(bound: Duration) -> Self {
        Self { bound, progress: u64::MAX, since: None }
    }

    /// Takes what has come so far and whether more is owed. Silence that lasts too long cuts the run short.
    pub(crate) fn watch(&mut self, progress: u64, owed: Owed) {
        if self.lasts(progress, owed, Instant::now()) {
            let seconds = self.bound.as_secs();
            cut::set(Cut::Server(format!("the server has given no answer for {seconds} s")));
        }
    }

    fn lasts(&mut self, progress: u64, owed: Owed, now: Instant) -> bool {
        if progress != self.progress || owed == Owed::Nothing {
            self.progress = progress;
            self.since = None;
        }
        match (owed, self.since) {
            (Owed::Nothing, _) => false,
            (Owed::Something, None) => {
                self.since = Some(now);
                false
            }
            (Owed::Something, Some(since)) => now.saturating_duration_since(since) > self.bound,
        }
    }
}

/// Notices that a server which is being connected to is gone or silent.
pub(crate) struct JoinSilence {
    silence: Silence,
    joined: u64,
    /// Connections begun when the last one was subscribed.
    attempted: u64,
}

impl JoinSilence {
    /// Begins to watch; `bound` is longer than a connection may take.
    pub(crate) fn new(bound: Duration) -> Self {
        Self { silence: Silence::new(bound), joined: 0, attempted: 0 }
    }

    /// Takes what is counted now and what was before.
    pub(crate) fn watch(&mut self, now: &Counters, then: &Counters) {
        if now.joined != self.joined {
            (self.joined, self.attempted) = (now.joined, now.attempted);
        }
        let is_owed = now.attempted > self.attempted || now.attempted > now.joined + now.failed;
        self.silence.watch(now.joined, is_owed.into());
        let crowd = Group::Crowd as usize;
        if now.open[crowd] == 0 && now.lost[crowd] > then.lost[crowd] {
            cut::set(Cut::Server("the server ended every connection".into()));
        }
    }
}

/// Whether the server has something to give.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Owed {
    Nothing,
    Something,
}

impl From<bool> for Owed {
    fn from(is_owed: bool) -> Self {
        if is_owed { Self::Something } else { Self::Nothing }
    }
}

/// Silence of a server that is too long while events or answers are due.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only a server that owes something and gives nothing is silent, counted from when it first owed it.
    #[test]
    fn silence_is_counted_while_something_is_owed() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut silence = Silence::new(Duration::from_secs(10));
        assert!(!silence.lasts(0, Owed::Nothing, at(0)));
        assert!(!silence.lasts(0, Owed::Something, at(60)), "it owes something only now");
        assert!(!silence.lasts(0, Owed::Something, at(70)));
        assert!(!silence.lasts(1, Owed::Something, at(75)), "something came");
        assert!(!silence.lasts(1, Owed::Something, at(85)));
        assert!(silence.lasts(1, Owed::Something, at(86)));
    }
}
