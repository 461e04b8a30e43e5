//! Outgoing mail of one shard: in order per target, none lost, never waiting.
//!
//! What does not fit into a target's mailbox stays here, in order, and is tried again next turn; the shard's own
//! bounds on mail in flight bound what can wait. A target is woken at most once per turn, and only if it sleeps.

use std::collections::VecDeque;
use std::sync::Arc;

use super::mailbox::Mailbox;
use crate::shard::ShardIndex;

/// The sender's side of all mailboxes.
#[derive(Debug)]
pub struct Post<M> {
    index: ShardIndex,
    mailboxes: Arc<[Mailbox<M>]>,
    targets: Vec<Target<M>>,
    waiting: usize,
}

#[derive(Debug)]
struct Target<M> {
    /// Mail that found its mailbox full, oldest first.
    waiting: VecDeque<M>,
    /// It got mail since its last wake.
    touched: bool,
}

impl<M> Post<M> {
    /// The post of shard `index`.
    pub fn new(index: ShardIndex, mailboxes: Arc<[Mailbox<M>]>) -> Self {
        let targets = mailboxes.iter().map(|_| Target { waiting: VecDeque::new(), touched: false }).collect();
        Self { index, mailboxes, targets, waiting: 0 }
    }

    /// Sends, or keeps the mail for [`Post::deliver`] behind what already waits for the same target.
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

    /// Ends a turn: tries what waits once more and wakes every target that got mail and sleeps.
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

    /// Mails that wait for room. While there are any, the loop must not sleep longer than `limits::MAIL_RETRY_MS`.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The shard whose post this is.
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
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::driver::mailbox::Sleep;
    use crate::limits::MAIL_RETRY_MS;

    fn mailboxes(count: usize, slots: usize) -> Arc<[Mailbox<usize>]> {
        (0..count).map(|_| Mailbox::new(slots).expect("eventfd")).collect()
    }

    /// What does not fit waits in order behind earlier mail for the same target only, and goes out as room appears.
    #[test]
    fn overflow_waits_in_order() {
        let mailboxes = mailboxes(3, 2);
        let mut post = Post::new(0, Arc::clone(&mailboxes));
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

    /// One wake per target and turn, and none for a target that got nothing.
    #[test]
    fn wakes_sleepers_that_got_mail() {
        let mailboxes = mailboxes(3, 8);
        let mut post = Post::new(0, Arc::clone(&mailboxes));
        assert_eq!(mailboxes[1].prepare_sleep(), Sleep::Announced);
        assert_eq!(mailboxes[2].prepare_sleep(), Sleep::Announced);
        post.send(1, 0);
        post.send(1, 1);
        post.deliver();
        assert!(!mailboxes[1].wake_if_sleeping(), "was woken by deliver");
        assert!(mailboxes[2].wake_if_sleeping(), "was left asleep");
    }

    /// Three shards send each other 3,000 mails each through mailboxes of 4 slots, on real threads, each going to sleep when it
    /// has nothing to do: every mail arrives once, in the order of its sender.
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
        let mut post = Post::new(index, mailboxes);
        let mut next = [0_usize; 3];
        let mut sent = 0;
        while sent < mails || post.waiting() > 0 || next.iter().sum::<usize>() < 2 * mails {
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
                let wait_ms = if retries { MAIL_RETRY_MS } else { 20_000 };
                let wait = Timespec::try_from(Duration::from_millis(wait_ms)).expect("small");
                let wake = post.mailbox().wake_descriptor();
                let ready = poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&wait));
                assert!(retries || ready != Ok(0), "a lost wake: {next:?}");
                post.mailbox().take_wake();
            }
        }
    }
}
