//! What a worker's connections do in the scenario `subscribe`: subscribe private channels, again and again, each reply
//! checked. Against a server that echoes, the same messages are sent and their echoes expected.
//!
//! A connection has room for as many unanswered subscriptions as its pipeline is deep; `room` holds each place once.

use std::collections::VecDeque;

use serde::Deserialize;

use crate::client::{Meaning, read_event};
use crate::clock::now_ns;
use crate::crowd::{Crowd, Spoke};
use crate::messages::{Measure, Replies, Stay, SubscribeOrder, SubscribePlan};
use crate::schedule::Schedule;
use crate::target::Signer;
use crate::worker::Shared;

/// All subscribers of a worker.
#[derive(Default)]
pub(crate) struct Subscriptions {
    plan: Option<SubscribePlan>,
    schedule: Schedule,
    per_tick: u32,
    /// Moments that have come, and how many subscriptions each still owes.
    due: VecDeque<(u64, u32)>,
    /// When a closed loop ends; `None` where the clock decides.
    closed_until_ns: Option<u64>,
    subscribers: Vec<Subscriber>,
    /// Index into `subscribers` by slot of the crowd.
    by_slot: Vec<Option<u32>>,
    /// Subscribers that may send: one entry for each place of their pipelines.
    room: VecDeque<u32>,
    unanswered: u64,
    /// The reply for each channel, once it was read as JSON and found right.
    learnt: Vec<Option<Vec<u8>>>,
}

struct Subscriber {
    number: u32,
    slot: u32,
    socket_id: String,
    /// Subscriptions so far: the next one's channel follows from it.
    begun: u32,
    unanswered: VecDeque<Unanswered>,
    /// Channels that are subscribed and will be left, the oldest first. Left only once answered: a server owes no reply
    /// to a subscription that is taken back before.
    to_leave: VecDeque<u32>,
    is_gone: bool,
}

struct Unanswered {
    channel: u32,
    intended_ns: u64,
    /// Against an echo: the messages that have not come back.
    echoes: VecDeque<String>,
}

/// What a message turned out to be.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    /// The last that was owed for a subscription with this intended send time.
    Done(u64),
    /// One of several that are owed.
    Part,
    /// The server refuses the oldest subscription.
    Refused(String),
    /// Not what was asked for.
    Wrong,
    /// Nothing to do with subscriptions.
    Other,
}

#[derive(Deserialize)]
struct Succeeded<'a> {
    event: &'a str,
    channel: &'a str,
    #[serde(default)]
    data: serde_json::Value,
}

impl Subscriber {
    fn new(number: u32, slot: u32, socket_id: String, begun: u32, to_leave: VecDeque<u32>) -> Self {
        Self { number, slot, socket_id, begun, unanswered: VecDeque::new(), to_leave, is_gone: false }
    }
}

impl Subscriptions {
    /// Says what connections that open from now on are for.
    pub(crate) fn prepare(&mut self, plan: SubscribePlan) {
        self.learnt = vec![None; plan.channels as usize];
        self.plan = Some(plan);
    }

    /// Whether this is a run of subscriptions at all.
    pub(crate) fn is_prepared(&self) -> bool {
        self.plan.is_some()
    }

    /// Whether the server echoes what it is sent.
    pub(crate) fn expects_echoes(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.replies == Replies::Echoes)
    }

    /// Takes up a schedule, with all connections that are open.
    pub(crate) fn begin(&mut self, order: &SubscribeOrder, crowd: &Crowd) {
        let is_closed = order.interval_ns <= 0.0;
        self.closed_until_ns = is_closed.then_some(order.end_ns);
        self.schedule = Schedule::new(order.start_ns, order.interval_ns, if is_closed { 1 } else { order.ticks });
        self.per_tick = if is_closed { u32::MAX } else { order.per_tick };
        let mut before = std::mem::take(&mut self.subscribers);
        self.by_slot.clear();
        self.room.clear();
        for (number, slot) in crowd.slots() {
            let earlier = before.iter_mut().find(|subscriber| subscriber.number == number);
            let (begun, to_leave) =
                earlier.map_or_else(Default::default, |one| (one.begun, std::mem::take(&mut one.to_leave)));
            let Some(socket_id) = crowd.socket_id(slot) else { continue };
            let index = u32::try_from(self.subscribers.len()).expect("fewer than descriptors");
            let at = slot as usize;
            self.by_slot.resize(self.by_slot.len().max(at + 1), None);
            self.by_slot[at] = Some(index);
            let socket_id = socket_id.to_owned();
            self.subscribers.push(Subscriber::new(number, slot, socket_id, begun, to_leave));
            self.room.extend((0..order.pipeline).map(|_| index));
        }
    }

    /// Begins nothing new; what is unanswered may still be answered.
    pub(crate) fn halt(&mut self) {
        self.schedule.end();
        self.due.clear();
    }

    /// Whether something is still to be sent or answered.
    pub(crate) fn is_running(&self) -> bool {
        self.schedule.next_ns().is_some() || !self.due.is_empty() || self.unanswered > 0
    }

    /// When there is something to do without an event.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.schedule.next_ns()
    }

    /// Sends what is due, as far as there is room.
    pub(crate) fn run_schedule(crowd: &mut Crowd, shared: &mut Shared) {
        let now = now_ns();
        let this = &mut shared.subscriptions;
        while let Some(intended) = this.schedule.next_ns().filter(|intended| *intended <= now) {
            this.schedule.advance();
            this.due.push_back((intended, this.per_tick));
            if this.closed_until_ns.is_none() {
                shared.recorder.record(Measure::Lag, intended, now);
            }
        }
        if shared.subscriptions.closed_until_ns.is_some_and(|end| now >= end) {
            shared.subscriptions.due.clear();
        }
        while !shared.subscriptions.due.is_empty() {
            let Some((key, texts, begun)) = shared.subscriptions.next_messages(now, &shared.signer) else { break };
            shared.counters.sent += begun;
            if crowd.speak_together(key, &texts, shared) == Spoke::Gone {
                shared.lose_subscriptions(key.1);
            }
        }
        shared.subscriptions.end_without_room();
    }

    /// All that one subscriber may and should send now, as one batch, and how many subscriptions that is.
    fn next_messages(&mut self, now: u64, signer: &Signer) -> Option<((u32, u32), Vec<String>, u64)> {
        while self.room.front().is_some_and(|index| self.is_at_end(*index)) {
            self.room.pop_front();
        }
        let first = *self.room.front()?;
        let mut texts = Vec::new();
        let mut begun = 0;
        while self.room.front() == Some(&first) && !self.is_at_end(first) {
            let Some(intended_ns) = self.take_due(now) else { break };
            self.room.pop_front();
            self.subscribe(first, intended_ns, signer, &mut texts);
            begun += 1;
        }
        let subscriber = &self.subscribers[first as usize];
        Some(((subscriber.number, subscriber.slot), texts, begun))
    }

    /// Whether a subscriber will send nothing more: it is gone, or it stays and has had every channel.
    fn is_at_end(&self, index: u32) -> bool {
        let subscriber = &self.subscribers[index as usize];
        let has_all = |plan: &SubscribePlan| plan.stay == Stay::Stays && subscriber.begun >= plan.channels;
        subscriber.is_gone || self.plan.as_ref().is_some_and(has_all)
    }

    /// One subscription that is due, by its intended time.
    fn take_due(&mut self, now: u64) -> Option<u64> {
        let (intended, owed) = self.due.front_mut()?;
        let intended = if self.closed_until_ns.is_some() { now } else { *intended };
        *owed -= 1;
        if *owed == 0 {
            self.due.pop_front();
        }
        Some(intended)
    }

    fn subscribe(&mut self, index: u32, intended_ns: u64, signer: &Signer, texts: &mut Vec<String>) {
        let Some(plan) = &self.plan else { return };
        let subscriber = &mut self.subscribers[index as usize];
        let channel = subscriber.number.wrapping_add(subscriber.begun) % plan.channels;
        subscriber.begun += 1;
        let name = plan.channel(channel);
        let auth = signer.subscription(&subscriber.socket_id, &name, None);
        let from = texts.len();
        if let Some(left) = subscriber.to_leave.pop_front() {
            let left = plan.channel(left);
            texts.push(format!("{{\"event\":\"pusher:unsubscribe\",\"data\":{{\"channel\":\"{left}\"}}}}"));
        }
        texts.push(format!(
            "{{\"event\":\"pusher:subscribe\",\"data\":{{\"auth\":\"{auth}\",\"channel\":\"{name}\"}}}}"
        ));
        let echoes = match plan.replies {
            Replies::Echoes => texts[from..].iter().cloned().collect(),
            Replies::Pusher => VecDeque::new(),
        };
        subscriber.unanswered.push_back(Unanswered { channel, intended_ns, echoes });
        self.unanswered += 1;
    }

    /// Where those that stay have had every channel, or everybody is gone, nothing more will be sent.
    fn end_without_room(&mut self) {
        while self.room.front().is_some_and(|index| self.is_at_end(*index)) {
            self.room.pop_front();
        }
        if self.room.is_empty() && self.unanswered == 0 {
            self.halt();
        }
    }

    /// Takes a message of the connection in this slot.
    pub(crate) fn take_reply(&mut self, slot: u32, message: &[u8]) -> Reply {
        let Some(Some(index)) = self.by_slot.get(slot as usize).copied() else { return Reply::Other };
        let Some(plan) = &self.plan else { return Reply::Other };
        let subscriber = &mut self.subscribers[index as usize];
        let at = match plan.replies {
            Replies::Echoes => {
                let Some(oldest) = subscriber.unanswered.front_mut() else { return Reply::Wrong };
                if oldest.echoes.pop_front().is_none_or(|echo| echo.as_bytes() != message) {
                    return Reply::Wrong;
                }
                if !oldest.echoes.is_empty() {
                    return Reply::Part;
                }
                0
            }
            Replies::Pusher => {
                let is_reply = |one: &Unanswered| self.learnt[one.channel as usize].as_deref() == Some(message);
                match subscriber.unanswered.iter().position(is_reply) {
                    Some(at) => at,
                    None => match read_reply(message, plan, subscriber, &mut self.learnt) {
                        Ok(at) => at,
                        Err(Reply::Refused(text)) if !subscriber.unanswered.is_empty() => {
                            self.finish(index, 0);
                            return Reply::Refused(text);
                        }
                        Err(reply) => return reply,
                    },
                }
            }
        };
        Reply::Done(self.finish(index, at))
    }

    /// A subscription was answered: there is room for another one.
    fn finish(&mut self, index: u32, at: usize) -> u64 {
        let subscriber = &mut self.subscribers[index as usize];
        let answered = subscriber.unanswered.remove(at).expect("it was found there");
        self.unanswered -= 1;
        if self.plan.as_ref().is_some_and(|plan| plan.stay == Stay::Leaves) {
            subscriber.to_leave.push_back(answered.channel);
        }
        self.room.push_back(index);
        answered.intended_ns
    }

    /// The connection in this slot is gone; says how many subscriptions will have no answer.
    pub(crate) fn lose(&mut self, slot: u32) -> u64 {
        let Some(index) = self.by_slot.get_mut(slot as usize).and_then(Option::take) else { return 0 };
        let subscriber = &mut self.subscribers[index as usize];
        subscriber.is_gone = true;
        let lost = subscriber.unanswered.len() as u64;
        subscriber.unanswered.clear();
        self.unanswered -= lost;
        self.room.retain(|other| *other != index);
        lost
    }
}

/// Reads a reply whose bytes are not known yet, and learns them: which of the subscriber's subscriptions it answers.
#[cold]
fn read_reply(
    message: &[u8],
    plan: &SubscribePlan,
    subscriber: &Subscriber,
    learnt: &mut [Option<Vec<u8>>],
) -> Result<usize, Reply> {
    match read_event(message) {
        Meaning::Subscribed => {}
        Meaning::Error(text) => return Err(Reply::Refused(text)),
        Meaning::Established { .. }
        | Meaning::MemberAdded(_)
        | Meaning::MemberRemoved(_)
        | Meaning::Ping
        | Meaning::Pong
        | Meaning::Other => return Err(Reply::Other),
    }
    let Ok(reply) = serde_json::from_slice::<Succeeded<'_>>(message) else { return Err(Reply::Wrong) };
    // A private channel's reply carries nothing: text that holds an empty object; some servers send the object itself.
    let is_empty = reply.data == "{}" || reply.data == serde_json::json!({});
    if reply.event != "pusher_internal:subscription_succeeded" || !is_empty {
        return Err(Reply::Wrong);
    }
    let answers = |one: &Unanswered| plan.channel(one.channel) == reply.channel;
    let at = subscriber.unanswered.iter().position(answers).ok_or(Reply::Wrong)?;
    learnt[subscriber.unanswered[at].channel as usize] = Some(message.to_vec());
    Ok(at)
}

impl Shared {
    /// Counts what has no answer because its connection is gone.
    pub(crate) fn lose_subscriptions(&mut self, slot: u32) {
        self.counters.refused += self.subscriptions.lose(slot);
    }

    /// Takes a message that may be the reply to a subscription; false if it is something else.
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
                self.reason("a reply that is not what was asked for");
            }
            Reply::Other => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;

    fn subscriptions(replies: Replies, stay: Stay) -> (Subscriptions, Signer) {
        let target = Target::new("ws://127.0.0.1:1", "1", "key", "secret").expect("an address");
        let mut subscriptions = Subscriptions::default();
        subscriptions.prepare(SubscribePlan { channel: "private-a".into(), channels: 3, replies, stay });
        subscriptions.subscribers.push(Subscriber::new(0, 5, "1.2".into(), 0, VecDeque::new()));
        subscriptions.by_slot = vec![None, None, None, None, None, Some(0)];
        subscriptions.room = [0, 0].into();
        subscriptions.due = [(7, 100)].into();
        (subscriptions, Signer::new(&target))
    }

    fn succeeded(channel: &str) -> Vec<u8> {
        let event = "pusher_internal:subscription_succeeded";
        serde_json::to_vec(&serde_json::json!({"event": event, "channel": channel, "data": "{}"})).expect("an object")
    }

    /// Goal: two that may be unanswered go out together, signed, and behind the ends of the two before; replies are matched by channel, in any order, learnt or
    /// not; a reply that nobody waits for is wrong.
    #[test]
    fn replies_are_matched() {
        let (mut subscriptions, signer) = subscriptions(Replies::Pusher, Stay::Leaves);
        let (key, texts, begun) = subscriptions.next_messages(9, &signer).expect("two are due");
        assert_eq!((key, texts.len(), begun), ((0, 5), 2, 2));
        let auth = signer.subscription("1.2", "private-a-0", None);
        let first = serde_json::json!({"event": "pusher:subscribe", "data": {"auth": auth, "channel": "private-a-0"}});
        assert_eq!(serde_json::from_str::<serde_json::Value>(&texts[0]).expect("JSON"), first);
        assert!(subscriptions.next_messages(9, &signer).is_none(), "no room");
        for _ in 0..2 {
            assert_eq!(subscriptions.take_reply(5, &succeeded("private-a-1")), Reply::Done(7));
            assert_eq!(subscriptions.take_reply(5, &succeeded("private-a-1")), Reply::Wrong);
            assert_eq!(subscriptions.take_reply(5, &succeeded("private-a-0")), Reply::Done(7));
            assert_eq!(subscriptions.take_reply(4, &succeeded("private-a-0")), Reply::Other);
            subscriptions.subscribers[0].begun = 0;
            let (_, texts, begun) = subscriptions.next_messages(9, &signer).expect("two are due");
            assert_eq!((texts.len(), begun), (4, 2));
            let left = serde_json::json!({"event": "pusher:unsubscribe", "data": {"channel": "private-a-1"}});
            assert_eq!(serde_json::from_str::<serde_json::Value>(&texts[0]).expect("JSON"), left);
        }
        let error = br#"{"event":"pusher:error","data":{"code":4009,"message":"no"}}"#;
        assert_eq!(subscriptions.take_reply(5, error), Reply::Refused("pusher error 4009: no".into()));
        assert_eq!((subscriptions.unanswered, subscriptions.lose(5)), (1, 1));
        assert_eq!((subscriptions.unanswered, subscriptions.room.len()), (0, 0));
    }

    /// Goal: an echo must be what was sent, each message once and in order.
    #[test]
    fn echoes_are_compared() {
        let (mut subscriptions, signer) = subscriptions(Replies::Echoes, Stay::Leaves);
        let (_, texts, _) = subscriptions.next_messages(9, &signer).expect("two are due");
        for text in texts {
            assert_eq!(subscriptions.take_reply(5, text.as_bytes()), Reply::Done(7));
        }
        let (_, texts, _) = subscriptions.next_messages(9, &signer).expect("two are due");
        assert_eq!(subscriptions.take_reply(5, texts[0].as_bytes()), Reply::Part);
        assert_eq!(subscriptions.take_reply(5, texts[1].as_bytes()), Reply::Done(7));
        assert_eq!(subscriptions.take_reply(5, texts[3].as_bytes()), Reply::Wrong);
    }

    /// Goal: those that stay subscribe each channel once and then are at their end.
    #[test]
    fn those_that_stay_come_to_an_end() {
        let (mut subscriptions, signer) = subscriptions(Replies::Pusher, Stay::Stays);
        for (channels, texts) in [(&["private-a-0", "private-a-1"][..], 2), (&["private-a-2"], 1)] {
            let sent = subscriptions.next_messages(9, &signer).map(|(_, texts, _)| texts.len());
            assert_eq!(sent, Some(texts));
            for channel in channels {
                assert_eq!(subscriptions.take_reply(5, &succeeded(channel)), Reply::Done(7));
            }
        }
        assert!(subscriptions.next_messages(9, &signer).is_none() && subscriptions.is_running());
        subscriptions.end_without_room();
        assert!(!subscriptions.is_running() && subscriptions.due.is_empty());
    }
}
