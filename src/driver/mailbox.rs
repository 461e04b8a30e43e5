//! The mailbox of one shard: bounded, many senders, one receiver, and a wake that cannot be lost.
//!
//! # Sleep and wake
//! The receiver announces its sleep before it looks at the queue for the last time; a sender puts its mail into the
//! queue before it looks for that announcement. Both sides put a sequentially consistent fence between their write
//! and their read, so at least one of them sees the other's write:
//!
//! ```text
//! receiver: sleeping = true;  fence;  queue empty?  yes: sleep    no: sleeping = false, take it
//! sender:   push;             fence;  sleeping?     yes: sleeping = false, write the eventfd
//! ```
//!
//! If the receiver sees an empty queue, the push comes later in the order of the fences, so the sender sees `sleeping`
//! and writes the eventfd, on which the receiver waits. If there are several senders, one of them writes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::shard::ShardIndex;

/// A mailbox for mail of type `M` (the shards' own mail, numbers in tests).
///
/// Aligned so that neighbours do not share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Mailbox<M> {
    queue: ArrayQueue<(ShardIndex, M)>,
    sleeping: AtomicBool,
    wake: OwnedFd,
}

/// What the receiver may do after announcing its sleep.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sleep {
    /// Sleep until the eventfd is readable.
    Announced,
    /// Mail arrived in between: the announcement is withdrawn; take the mail.
    MailWaits,
}

impl<M> Mailbox<M> {
    /// An empty mailbox with capacity for `slots` mails.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE` or `ENOMEM` when no eventfd can be created.
    pub fn new(slots: usize) -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { queue: ArrayQueue::new(slots), sleeping: AtomicBool::new(false), wake })
    }

    /// Adds a mail, from any thread; returns it when the mailbox is full. Does not wake the receiver: a sender calls
    /// [`Mailbox::wake_if_sleeping`] once after its last mail of the turn.
    ///
    /// # Errors
    /// The mail itself, when the mailbox is full.
    pub fn push(&self, from: ShardIndex, mail: M) -> Result<(), M> {
        self.queue.push((from, mail)).map_err(|(_, mail)| mail)
    }

    /// Takes the oldest mail; only the receiver may call it.
    pub fn pop(&self) -> Option<(ShardIndex, M)> {
        self.queue.pop()
    }

    /// Number of mails in the mailbox.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is no mail.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Announces that the receiver is about to wait on [`Mailbox::wake_descriptor`].
    pub fn prepare_sleep(&self) -> Sleep {
        self.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() {
            Sleep::Announced
        } else {
            self.sleeping.store(false, Ordering::SeqCst);
            Sleep::MailWaits
        }
    }

    /// The receiver is awake again, for whatever reason: no wake is needed until it announces its next sleep.
    pub fn end_sleep(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Wakes the receiver if it is asleep and no sender has woken it yet. Returns true when this call wrote the
    /// eventfd.
    pub fn wake_if_sleeping(&self) -> bool {
        fence(Ordering::SeqCst);
        let wakes = self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst);
        if wakes {
            self.wake();
        }
        wakes
    }

    /// Makes the receiver's current or next wait return at once: for signals that are not mail.
    pub fn wake(&self) {
        loop {
            match rustix::io::write(&self.wake, &1_u64.to_ne_bytes()) {
                Err(Errno::INTR) => {}
                // EAGAIN: the counter is at its maximum, so the eventfd is readable, and a wake needs nothing more.
                Ok(_) | Err(Errno::AGAIN) => return,
                Err(error) => panic!("writing to the shard's own eventfd failed: {error}"),
            }
        }
    }

    /// Readable after a wake. Edge-triggered receivers need not read it: every write is an edge.
    pub fn wake_descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Makes the eventfd unreadable again, for level-triggered receivers.
    pub fn take_wake(&self) {
        let mut count = [0_u8; 8];
        // EAGAIN only means that nothing was written since.
        let _ = rustix::io::read(&self.wake, &mut count);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// The bound holds, and a full mailbox returns the mail; order is kept.
    #[test]
    fn full_mailbox_returns_the_mail() {
        let mailbox = Mailbox::new(2).expect("eventfd");
        assert_eq!(mailbox.push(1, 'a'), Ok(()));
        assert_eq!(mailbox.push(2, 'b'), Ok(()));
        assert_eq!(mailbox.push(1, 'c'), Err('c'));
        assert_eq!(mailbox.pop(), Some((1, 'a')));
        assert_eq!(mailbox.push(1, 'c'), Ok(()));
        assert_eq!([mailbox.pop(), mailbox.pop(), mailbox.pop()], [Some((2, 'b')), Some((1, 'c')), None]);
    }

    /// A sleeping receiver is woken once, an awake receiver not at all, and mail that arrived first prevents the sleep.
    #[test]
    fn one_wake_per_sleep() {
        let mailbox = Mailbox::new(4).expect("eventfd");
        assert!(!mailbox.wake_if_sleeping());
        assert_eq!(mailbox.prepare_sleep(), Sleep::Announced);
        mailbox.push(0, ()).expect("room");
        assert!(mailbox.wake_if_sleeping());
        assert!(!mailbox.wake_if_sleeping());
        mailbox.end_sleep();
        assert_eq!(mailbox.prepare_sleep(), Sleep::MailWaits);
        assert!(!mailbox.wake_if_sleeping());
    }

    /// A wake is seen by a receiver that waits on the eventfd, until it is taken; `end_sleep` withdraws the
    /// announcement.
    #[test]
    fn wakes_reach_the_eventfd() {
        let readable = |mailbox: &Mailbox<()>| {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut [PollFd::new(mailbox, PollFlags::IN)], Some(&now)).expect("poll") == 1
        };
        let mailbox = Mailbox::new(4).expect("eventfd");
        assert!(!mailbox.wake_if_sleeping() && !readable(&mailbox));
        assert_eq!(mailbox.prepare_sleep(), Sleep::Announced);
        assert!(mailbox.wake_if_sleeping() && readable(&mailbox));
        mailbox.take_wake();
        assert!(!readable(&mailbox));
        assert_eq!(mailbox.prepare_sleep(), Sleep::Announced);
        mailbox.end_sleep();
        assert!(!mailbox.wake_if_sleeping() && !readable(&mailbox));
        mailbox.wake();
        assert!(readable(&mailbox), "a signal is no mail and needs no sleeper");
    }

    /// No wake is lost: real senders against a receiver that sleeps, without a timeout of its own, whenever it finds
    /// the queue empty. A lost wake leaves mail unreceived until the deadline of the wait, which fails the test.
    #[test]
    fn no_wake_is_lost() {
        const SENDERS: u16 = 3;
        const MAILS: usize = 20_000;
        const DEADLINE: Duration = Duration::from_secs(20);
        let mailbox = Mailbox::new(8).expect("eventfd");
        let sleeps = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for sender in 0..SENDERS {
                let mailbox = &mailbox;
                scope.spawn(move || {
                    let started = Instant::now();
                    for number in 0..MAILS {
                        while mailbox.push(sender, number).is_err() {
                            assert!(started.elapsed() < DEADLINE, "no room for mail {number} of sender {sender}");
                            mailbox.wake_if_sleeping();
                            std::thread::yield_now();
                        }
                        mailbox.wake_if_sleeping();
                    }
                });
            }
            let mut next = [0_usize; SENDERS as usize];
            let deadline = Timespec::try_from(DEADLINE).expect("small");
            while next.iter().sum::<usize>() < MAILS * usize::from(SENDERS) {
                while let Some((from, number)) = mailbox.pop() {
                    assert_eq!(number, next[usize::from(from)], "order per sender");
                    next[usize::from(from)] += 1;
                }
                if next.iter().sum::<usize>() == MAILS * usize::from(SENDERS) {
                    break;
                }
                if mailbox.prepare_sleep() == Sleep::Announced {
                    sleeps.fetch_add(1, Ordering::Relaxed);
                    let mut descriptors = [PollFd::new(&mailbox, PollFlags::IN)];
                    let started = Instant::now();
                    let ready = poll(&mut descriptors, Some(&deadline)).expect("poll");
                    assert_ne!(ready, 0, "asleep for {:?} at {next:?}", started.elapsed());
                    mailbox.take_wake();
                }
                mailbox.end_sleep();
            }
        });
        assert!(sleeps.into_inner() > 0, "the receiver slept, so there were wakes to lose");
    }

    impl<M> AsFd for Mailbox<M> {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.wake_descriptor()
        }
    }
}
