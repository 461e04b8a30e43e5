//! Outgoing mail of one shard: in order per target, never lost, never blocking.
//!
//! Mail that does not fit into a target's mailbox stays here, in order, and is tried again next turn; the shard's own
//! bounds on mail in flight bound how much can wait. A target is woken at most once per turn, and only if it sleeps.

use std::collections::VecDeque;
use std::sync::Arc;

use super::mailbox::Mailbox;
use crate::shard::ShardIndex;

/// The sender's side of all mailboxes.
#[derive(Debug)]
pub struct OutgoingMail<M> {
    index: ShardIndex,
    mailboxes: Arc<[Mailbox<M>]>,
    targets: Vec<Target<M>>,
    waiting: usize,
}

#[derive(Debug)]
struct Target<M> {
    /// Mail whose mailbox was full, oldest first.
    waiting: VecDeque<M>,
    /// Whether it got mail since its last wake.
    touched: bool,
}

impl<M> OutgoingMail<M> {
    /// The outgoing mail of shard `index`.
    pub fn new(index: ShardIndex, mailboxes: Arc<[Mailbox<M>]>) -> Self {
        let targets = mailboxes.iter().map(|_| Target { waiting: VecDeque::new(), touched: false }).collect();
        Self { index, mailboxes, targets, waiting: 0 }
    }

    /// Sends the mail, or keeps it for [`OutgoingMail::deliver`] behind mail that already waits for the same target.
    pub fn send(&mut self, to: ShardIndex, mail: M) {
        debug_assert_ne!(to, self.index, "a shard does not write to itself");
        let target = &mut self.targets[usize::from(to)];
        if !target.waiting.is_empty() {
            target.waiting.push_back(mail);
            self.waiting += 1;
            return;
        }
        match self.mailboxes[usize::from(to)].push(self.index, mail) {
            Ok(()) => target.touched = true,
            Err(mail) => {
                target.waiting.push_back(mail);
                self.waiting += 1;
            }
        }
    }

    /// Ends a turn: tries the waiting mail once more and wakes every sleeping target that got mail.
    pub fn deliver(&mut self) {
        for (target, mailbox) in self.targets.iter_mut().zip(self.mailboxes.iter()) {
            while let Some(mail) = target.waiting.pop_front() {
                match mailbox.push(self.index, mail) {
                    Ok(()) => {
                        target.touched = true;
                        self.waiting -= 1;
                    }
                    Err(mail) => {
                        target.waiting.push_front(mail);
                        break;
                    }
                }
            }
            if std::mem::take(&mut target.touched) {
                mailbox.wake_if_sleeping();
            }
        }
    }

    /// Number of mails that wait for mailbox space. While there are any, the loop must not sleep longer than
    /// `limits::MAIL_RETRY_MS`.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The shard that sends this mail.
    pub fn index(&self) -> ShardIndex {
        self.index
    }

    /// The mailbox of this shard.
    pub fn mailbox(&self) -> &Mailbox<M> {
        &self.mailboxes[usize::from(self.index)]
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::driver::mailbox::Sleep;
    use crate::limits::MAIL_RETRY_MS;

    /// How long threads of a test wait for each other: far longer than they need, but not a hang.
    const DEADLINE: Duration = Duration::from_secs(20);

    fn mailboxes(count: usize, slots: usize) -> Arc<[Mailbox<usize>]> {
        (0..count).map(|_| Mailbox::new(slots).expect("eventfd")).collect()
    }

    /// Mail that does not fit waits in order behind earlier mail for the same target only, and is sent as space becomes
    /// available.
    #[test]
    fn overflow_waits_in_order() {
        let mailboxes = mailboxes(3, 2);
        let mut post = OutgoingMail::new(0, Arc::clone(&mailboxes));
        for number in 0..5 {
            post.send(1, number);
        }
        post.send(2, 9);
        assert_eq!(post.waiting(), 3);
        assert_eq!(mailboxes[2].pop(), Some((0, 9)));
        let mut received = Vec::new();
        while received.len() < 5 {
            post.deliver();
            received.push(mailboxes[1].pop().expect("delivered").1);
        }
        assert_eq!(received, [0, 1, 2, 3, 4]);
        assert_eq!(post.waiting(), 0);
    }

    /// Waiting mail is not overtaken: space that appears between two sends goes to the waiting mail, not to the next
    /// send.
    #[test]
    fn later_mail_does_not_overtake_what_waits() {
        let mailboxes = mailboxes(2, 2);
        let mut post = OutgoingMail::new(0, Arc::clone(&mailboxes));
        let mut received = Vec::new();
        let mut sent = 0;
        // Every pattern of sends, receipts and ends of a turn that 8 steps can make, one after the other.
        for step in (0..3_usize.pow(8)).flat_map(|pattern| (0..8).map(move |at| pattern / 3_usize.pow(at) % 3)) {
            match step {
                0 => {
                    post.send(1, sent);
                    sent += 1;
                }
                1 => received.extend(mailboxes[1].pop().map(|(_, number)| number)),
                _ => post.deliver(),
            }
            assert_eq!(post.waiting() + mailboxes[1].len() + received.len(), sent, "all mail is somewhere");
        }
        // At least one per turn: the test must not wait forever for lost mail.
        for _ in 0..sent {
            post.deliver();
            received.extend(mailboxes[1].pop().map(|(_, number)| number));
        }
        assert_eq!((post.waiting(), received.len()), (0, sent), "mail was lost");
        assert!(received.iter().copied().eq(0..sent), "mail was overtaken: {:?}", first_break(&received));
    }

    /// The position where the order breaks, with the contents from there.
    fn first_break(received: &[usize]) -> Option<(usize, &[usize])> {
        let at = received.iter().enumerate().position(|(place, number)| place != *number)?;
        Some((at, &received[at..received.len().min(at + 4)]))
    }

    /// A full mailbox delays no other target: one target's mail waits, the others' is sent in the same turn.
    #[test]
    fn a_full_mailbox_delays_its_own_mail_alone() {
        let mailboxes = mailboxes(4, 1);
        let mut post = OutgoingMail::new(0, Arc::clone(&mailboxes));
        for to in [1, 2, 3] {
            for number in 0..3 {
                post.send(to, number);
            }
        }
        assert_eq!(post.waiting(), 6);
        assert_eq!(mailboxes[2].pop(), Some((0, 0)));
        assert_eq!(mailboxes[3].pop(), Some((0, 0)));
        post.deliver();
        assert_eq!(post.waiting(), 4, "1 is still full, 2 and 3 had room for one");
        assert_eq!(
            [mailboxes[2].pop(), mailboxes[3].pop(), mailboxes[1].pop()],
            [Some((0, 1)), Some((0, 1)), Some((0, 0))]
        );
        post.deliver();
        assert_eq!([1, 2, 3].map(|to| mailboxes[to].pop()), [Some((0, 1)), Some((0, 2)), Some((0, 2))]);
        post.deliver();
        assert_eq!((mailboxes[1].pop(), post.waiting()), (Some((0, 2)), 0));
    }

    /// Mail that waited wakes its target when it is delivered, even if nothing was sent in that turn; mail that still
    /// waits wakes no target.
    #[test]
    fn mail_that_waited_wakes_its_target() {
        let mailboxes = mailboxes(2, 1);
        let mut post = OutgoingMail::new(0, Arc::clone(&mailboxes));
        post.send(1, 0);
        post.send(1, 1);
        post.deliver();
        assert_eq!(mailboxes[1].pop(), Some((0, 0)));
        assert_eq!(mailboxes[1].prepare_sleep(), Sleep::Announced);
        post.deliver();
        assert!(!mailboxes[1].wake_if_sleeping(), "deliver woke it");
        assert!(is_readable(&mailboxes[1]), "the eventfd says so");
        mailboxes[1].take_wake();
        post.send(1, 2);
        assert_eq!((mailboxes[1].pop(), mailboxes[1].prepare_sleep()), (Some((0, 1)), Sleep::Announced));
        assert!(!is_readable(&mailboxes[1]));
        post.deliver();
        assert!(is_readable(&mailboxes[1]) && mailboxes[1].pop() == Some((0, 2)));
    }

    fn is_readable(mailbox: &Mailbox<usize>) -> bool {
        let wake = mailbox.wake_descriptor();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&now)).expect("poll") == 1
    }

    /// One wake per target and turn, and none for a target that got nothing.
    #[test]
    fn wakes_sleepers_that_got_mail() {
        let mailboxes = mailboxes(3, 8);
        let mut post = OutgoingMail::new(0, Arc::clone(&mailboxes));
        assert_eq!(mailboxes[1].prepare_sleep(), Sleep::Announced);
        assert_eq!(mailboxes[2].prepare_sleep(), Sleep::Announced);
        post.send(1, 0);
        post.send(1, 1);
        post.deliver();
        assert!(!mailboxes[1].wake_if_sleeping(), "was woken by deliver");
        assert!(mailboxes[2].wake_if_sleeping(), "was left asleep");
        // One turn later, without any sends, it stays asleep.
        while mailboxes[1].pop().is_some() {}
        assert_eq!(mailboxes[1].prepare_sleep(), Sleep::Announced);
        post.deliver();
        assert!(mailboxes[1].wake_if_sleeping(), "was left asleep");
    }

    /// Three shards send each other 3,000 mails each through mailboxes of 4 slots, on real threads, each going to sleep
    /// when it has nothing to do: every mail arrives once, in the order of its sender. A shard that fails ends the
    /// others through their deadlines, so that a mistake produces a message instead of a hang.
    #[test]
    fn small_mailboxes_lose_nothing() {
        const MAILS: usize = 3_000;
        let mailboxes = mailboxes(3, 4);
        std::thread::scope(|scope| {
            for index in 0..3_u16 {
                let mailboxes = Arc::clone(&mailboxes);
                scope.spawn(move || exchange(index, mailboxes, MAILS));
            }
        });
        assert!(mailboxes.iter().all(Mailbox::is_empty));
    }

    fn exchange(index: ShardIndex, mailboxes: Arc<[Mailbox<usize>]>, mails: usize) {
        let mut post = OutgoingMail::new(index, mailboxes);
        let mut next = [0_usize; 3];
        let mut sent = 0;
        let started = Instant::now();
        while sent < mails || post.waiting() > 0 || next.iter().sum::<usize>() < 2 * mails {
            assert!(
                started.elapsed() < DEADLINE,
                "shard {index} has sent {sent} mails, of which {} wait for room, and received {next:?}",
                post.waiting()
            );
            post.mailbox().end_sleep();
            while let Some((from, number)) = post.mailbox().pop() {
                assert_eq!(number, next[usize::from(from)], "order per sender");
                next[usize::from(from)] += 1;
            }
            for _ in 0..7.min(mails - sent) {
                for to in (0..3).filter(|&to| to != index) {
                    post.send(to, sent);
                }
                sent += 1;
            }
            post.deliver();
            let retries = post.waiting() > 0;
            let awaits = retries || next.iter().sum::<usize>() < 2 * mails;
            if sent == mails && awaits && post.mailbox().prepare_sleep() == Sleep::Announced {
                let wait = if retries { Duration::from_millis(MAIL_RETRY_MS) } else { DEADLINE };
                let wait = Timespec::try_from(wait).expect("small");
                let wake = post.mailbox().wake_descriptor();
                let ready = poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&wait));
                assert!(retries || ready != Ok(0), "a lost wake: {next:?}");
                post.mailbox().take_wake();
            }
        }
    }
}
