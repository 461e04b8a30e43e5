//! Signals from the server to all shards at once (a new directory, drain, stop), and which shards have drained.
//!
//! Writers change a value and then wake every shard; a shard compares counters once per turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::mailbox::Mailbox;
use super::watchdog::Beat;
use crate::app::Directory;
use crate::shard::Mail;

/// Shared by the server and all shards of a process.
pub struct Control {
    mailboxes: Arc<[Mailbox<Mail>]>,
    directory: ArcSwapOption<Directory>,
    directory_changes: AtomicU64,
    phase: AtomicU8,
    drained: AtomicU32,
    on_started: Box<dyn Fn() + Send + Sync>,
    beats: Arc<[Beat]>,
}

/// The phase of the process; it only moves forward.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// Serving.
    Running,
    /// Shards drain (P-CLOSE-1) and still serve each other.
    Draining,
    /// Loops return.
    Stopped,
}

impl Control {
    /// A control with nothing to signal yet.
    pub fn new(mailboxes: Arc<[Mailbox<Mail>]>) -> Self {
        Self::with_started(mailboxes, Box::new(|| {}))
    }

    /// Like [`Control::new`]; each shard calls `on_started` once, on its thread, when its loop runs.
    pub fn with_started(mailboxes: Arc<[Mailbox<Mail>]>, on_started: Box<dyn Fn() + Send + Sync>) -> Self {
        let beats = mailboxes.iter().map(|_| Beat::default()).collect();
        Self {
            mailboxes,
            beats,
            directory: ArcSwapOption::empty(),
            directory_changes: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Running as u8),
            drained: AtomicU32::new(0),
            on_started,
        }
    }

    /// Publishes a new directory to all shards.
    pub fn publish_directory(&self, directory: Arc<Directory>) {
        self.directory.store(Some(directory));
        self.directory_changes.fetch_add(1, Ordering::Release);
        self.wake_all();
    }

    /// Starts the drain.
    pub fn drain(&self) {
        self.phase.fetch_max(Phase::Draining as u8, Ordering::AcqRel);
        self.wake_all();
    }

    /// Makes all loops return at the end of their turn.
    pub fn stop(&self) {
        self.phase.fetch_max(Phase::Stopped as u8, Ordering::AcqRel);
        self.wake_all();
    }

    /// The turns of all shards, by index.
    pub fn beats(&self) -> &Arc<[Beat]> {
        &self.beats
    }

    /// The phase of the process.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }

    /// Reports that a shard's loop runs; each shard calls it once.
    pub fn report_started(&self) {
        (self.on_started)();
    }

    /// Reports that a shard has drained; each shard calls it once. Loops continue until the last one has drained, since
    /// shards need each other's answers to end in order.
    pub fn report_drained(&self) {
        let drained = self.drained.fetch_add(1, Ordering::AcqRel) + 1;
        if usize::try_from(drained).is_ok_and(|drained| drained >= self.mailboxes.len()) {
            self.stop();
        }
    }

    /// The newest directory if it changed since `seen` changes; also brings `seen` up to date.
    pub fn take_directory(&self, seen: &mut u64) -> Option<Arc<Directory>> {
        let changes = self.directory_changes.load(Ordering::Acquire);
        if changes == *seen {
            return None;
        }
        *seen = changes;
        self.directory.load_full()
    }

    fn wake_all(&self) {
        for mailbox in self.mailboxes.iter() {
            mailbox.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// How many of the shards would wake from their sleep; resets their eventfds.
    fn woken(mailboxes: &[Mailbox<Mail>]) -> usize {
        let is_awake = |mailbox: &&Mailbox<Mail>| {
            let wake = mailbox.wake_descriptor();
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&now)).expect("poll") == 1
        };
        let count = mailboxes.iter().filter(is_awake).count();
        mailboxes.iter().for_each(Mailbox::take_wake);
        count
    }

    /// Every signal to the shards wakes all of them, whether they announced their sleep or not; the last one to drain
    /// stops and wakes the others.
    #[test]
    fn every_signal_wakes_every_shard() {
        let mailboxes: Arc<[Mailbox<Mail>]> = (0..3).map(|_| Mailbox::new(1).expect("an eventfd")).collect();
        mailboxes[1].prepare_sleep();
        let control = Control::new(Arc::clone(&mailboxes));
        assert_eq!(woken(&mailboxes), 0);
        let mut seen = 0;
        assert!(control.take_directory(&mut seen).is_none());
        control.publish_directory(Arc::new(Directory::new(1, Vec::new(), Vec::new())));
        assert_eq!(woken(&mailboxes), 3);
        assert!(control.take_directory(&mut seen).is_some() && control.take_directory(&mut seen).is_none());
        control.drain();
        assert_eq!((woken(&mailboxes), control.phase()), (3, Phase::Draining));
        control.report_drained();
        control.report_drained();
        assert_eq!((woken(&mailboxes), control.phase()), (0, Phase::Draining));
        control.report_drained();
        assert_eq!((woken(&mailboxes), control.phase()), (3, Phase::Stopped));
        control.drain();
        assert_eq!(control.phase(), Phase::Stopped, "it only moves forward");
    }
}
