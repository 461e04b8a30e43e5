//! The state that connections, publishers and client events of one worker share: the plan, the epoll set, counters and
//! the checks of what arrives.

use super::poll::Poll;
use super::readers::Readers;
use super::subscriptions::{Reply, Subscriptions};
use super::verifier::{Arrived, Verifier};
use crate::messages::{Counters, Measure, Plan};
use crate::recorder::Recorder;
use crate::wire::stamp::Stamp;
use crate::wire::target::Signer;

/// State that the parts of a worker share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) poll: Poll,
    pub(crate) counters: Counters,
    pub(crate) recorder: Recorder,
    pub(crate) verifier: Verifier,
    pub(crate) signer: Signer,
    pub(crate) subscriptions: Subscriptions,
    /// Set if connections continue after their last event.
    pub(crate) readers: Option<Readers>,
    /// The upgrade request of every WebSocket.
    pub(crate) upgrade: Vec<u8>,
    /// When the schedule of member changes begins.
    pub(crate) churn_from_ns: Option<u64>,
    /// Time before this does not count against the server: the worker was stopped or had no core, and read nothing.
    pub(crate) judged_from_ns: u64,
    /// Buffer for one request body.
    pub(crate) body: Vec<u8>,
}

impl Shared {
    pub(crate) fn new(plan: Plan, poll: Poll) -> Self {
        let channels = plan.channels.len();
        let counters = Counters {
            accepted_by_channel: vec![0; channels],
            published_by_channel: vec![0; channels],
            ..Counters::default()
        };
        Self {
            counters,
            recorder: Recorder::new(),
            verifier: Verifier::new(plan.run, plan.publishers, plan.payload_bytes, &plan.channels),
            signer: Signer::new(&plan.target),
            subscriptions: Subscriptions::default(),
            readers: plan.resume.map(|resume| Readers::new(&plan, resume)),
            upgrade: plan.target.upgrade_request(plan.resume.is_some()),
            churn_from_ns: None,
            judged_from_ns: 0,
            body: Vec::new(),
            plan,
            poll,
        }
    }

    /// Counts a reason for a failure. At most [`REASONS_MAX`] different ones are kept.
    #[cold]
    pub(crate) fn reason(&mut self, reason: &str) {
        let reasons = &mut self.counters.reasons;
        let name = if reasons.len() < REASONS_MAX || reasons.contains_key(reason) { reason } else { "other" };
        *reasons.entry(name.to_owned()).or_default() += 1;
    }

    /// Counts a connection that ended before it was subscribed.
    pub(crate) fn count_failed(&mut self, number: u32, now: u64) {
        let continues = self.readers.as_ref().is_some_and(|readers| readers.continues(number));
        *(if continues { &mut self.counters.resume.failed } else { &mut self.counters.failed }) += 1;
        if let Some(readers) = &mut self.readers {
            readers.end(number, now);
        }
    }

    /// Counts an event by its result.
    pub(crate) fn count(&mut self, arrived: Arrived, now: u64) {
        match arrived {
            Arrived::InOrder(stamp) => self.delivered(stamp, now),
            Arrived::Late(stamp) => {
                self.counters.disordered += 1;
                self.delivered(stamp, now);
            }
            Arrived::Duplicate => self.counters.duplicates += 1,
            Arrived::WrongChannel => self.counters.wrong_channel += 1,
            Arrived::Damaged => self.counters.damaged += 1,
            Arrived::Foreign => self.counters.foreign += 1,
            Arrived::Other => {}
        }
    }

    /// Whether a subscription due at this moment is a change of a member and not its first one.
    pub(crate) fn is_change(&self, due_ns: u64) -> bool {
        self.churn_from_ns.is_some_and(|from_ns| due_ns >= from_ns)
    }

    fn delivered(&mut self, stamp: Stamp, now: u64) {
        self.counters.delivered += 1;
        self.recorder.record(Measure::Delivery, stamp.intended_ns, now);
    }

    /// Index of the channel of the connection with this number.
    pub(crate) fn channel_of(&self, number: u32) -> usize {
        number as usize % self.plan.channels.len()
    }

    /// Whether the connection will subscribe again.
    pub(crate) fn keeps_socket_id(&self, number: u32) -> bool {
        self.subscriptions.is_prepared() || self.plan.channels[self.channel_of(number)].starts_with("presence-")
    }

    /// The message by which a connection subscribes to its channel, signed if the channel's name requires it. The id of a
    /// presence member is a stamp, from which the others compute how long its announcement took.
    pub(crate) fn subscribe_message(&self, number: u32, sequence: u32, socket_id: &str, intended_ns: u64) -> String {
        let index = self.channel_of(number);
        let channel = &self.plan.channels[index];
        if channel.starts_with("presence-") {
            let channel_index = u32::try_from(index).expect("below 2^24");
            let stamp = Stamp { run: self.plan.run, publisher: number, sequence, intended_ns, channel: channel_index };
            let mut user = Vec::new();
            stamp.write(0, &mut user);
            let data = format!("{{\"user_id\":\"{}\"}}", String::from_utf8_lossy(&user));
            let auth = self.signer.subscription(socket_id, channel, Some(&data));
            let data = data.replace('"', "\\\"");
            return format!(
                "{{\"event\":\"pusher:subscribe\",\"data\":{{\"channel\":\"{channel}\",\"auth\":\"{auth}\",\
                 \"channel_data\":\"{data}\"}}}}"
            );
        }
        let auth = if channel.starts_with("private-") {
            self.signer.subscription(socket_id, channel, None)
        } else {
            String::new()
        };
        format!("{{\"event\":\"pusher:subscribe\",\"data\":{{\"auth\":\"{auth}\",\"channel\":\"{channel}\"}}}}")
    }
}

impl Shared {
    /// Counts subscriptions that get no answer because their connection is gone.
    pub(crate) fn lose_subscriptions(&mut self, slot: u32) {
        self.counters.refused += self.subscriptions.lose(slot);
    }

    /// Takes a message that may be a reply to a subscription; false if it is something else.
    pub(crate) fn take_subscription_reply(&mut self, slot: u32, message: &[u8], now: u64) -> bool {
        match self.subscriptions.take_reply(slot, message) {
            Reply::Done(intended_ns) => {
                self.counters.accepted += 1;
                self.recorder.record(Measure::Answer, intended_ns, now);
            }
            Reply::Part => {}
            Reply::Refused(text) => {
                self.counters.refused += 1;
                self.reason(&text);
            }
            Reply::Wrong => {
                self.counters.damaged += 1;
                self.reason("a reply that does not match the subscription");
            }
            Reply::Other => return false,
        }
        true
    }
}

/// Distinct reasons that a worker counts; further ones are counted as "other".
const REASONS_MAX: usize = 24;
