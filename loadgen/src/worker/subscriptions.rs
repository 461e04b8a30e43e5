//! The subscriptions of the scenario `subscribe`: connections subscribe to private channels repeatedly, and each reply is
//! checked. Against a server that echoes, the same messages are sent and their echoes are expected.
//!
//! A connection may have as many unanswered subscriptions as its pipeline is deep; `room` has one entry per free place.

use std::collections::VecDeque;

use serde::Deserialize;

use crate::messages::{Measure, Replies, Stay, SubscribeOrder, SubscribePlan};
use crate::recorder::Recorder;
use crate::schedule::Schedule;
use crate::wire::event::{Meaning, read_event};
use crate::wire::target::Signer;

/// All subscribers of a worker.
#[derive(Default)]
pub(crate) struct Subscriptions {
    plan: Option<SubscribePlan>,
    schedule: Schedule,
    per_tick: u32,
    /// Scheduled moments that have passed, and how many subscriptions of each are still to be sent.
    due: VecDeque<(u64, u32)>,
    /// When a closed loop ends; `None` in an open loop.
    closed_until_ns: Option<u64>,
    subscribers: Vec<Subscriber>,
    /// Index into `subscribers` by slot of the connection.
    by_slot: Vec<Option<u32>>,
    /// Subscribers that may send: one entry for each free place in their pipelines.
    room: VecDeque<u32>,
    unanswered: u64,
    /// The reply for each channel, once one was parsed and correct.
    learnt: Vec<Option<Vec<u8>>>,
}

struct Subscriber {
    number: u32,
    slot: u32,
    socket_id: String,
    /// Subscriptions sent so far; determines the channel of the next one.
    begun: u32,
    unanswered: VecDeque<Unanswered>,
    /// Subscribed channels to unsubscribe from, the oldest first. Only once answered: a server need not reply to a
    /// subscription that was ended before.
    to_leave: VecDeque<u32>,
    is_gone: bool,
}

struct Unanswered {
    channel: u32,
    intended_ns: u64,
    /// Against a server that echoes: the messages that have not come back.
    echoes: VecDeque<String>,
}

/// A connection that is open and subscribed.
pub(crate) struct Connected<'a> {
    pub(crate) number: u32,
    pub(crate) slot: u32,
    pub(crate) socket_id: &'a str,
}

/// How a message was classified.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    /// The last reply to a subscription with this intended send time.
    Done(u64),
    /// One of several expected replies.
    Part,
    /// The server refused the oldest subscription.
    Refused(String),
    /// Not the expected reply.
    Wrong,
    /// Not about subscriptions.
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
    /// Sets the plan of connections that open from now on.
    pub(crate) fn prepare(&mut self, plan: SubscribePlan) {
        self.learnt = vec![None; plan.channels as usize];
        self.plan = Some(plan);
    }

    /// Whether a plan was set.
    pub(crate) fn is_prepared(&self) -> bool {
        self.plan.is_some()
    }

    /// Whether the server echoes what it is sent.
    pub(crate) fn expects_echoes(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.replies == Replies::Echoes)
    }

    /// Starts a schedule with these connections.
    pub(crate) fn begin<'a>(&mut self, order: &SubscribeOrder, connections: impl Iterator<Item = Connected<'a>>) {
        let is_closed = order.interval_ns <= 0.0;
        self.closed_until_ns = is_closed.then_some(order.end_ns);
        self.schedule = Schedule::new(order.start_ns, order.interval_ns, if is_closed { 1 } else { order.ticks });
        self.per_tick = if is_closed { u32::MAX } else { order.per_tick };
        let mut before = std::mem::take(&mut self.subscribers);
        self.by_slot.clear();
        self.room.clear();
        for Connected { number, slot, socket_id } in connections {
            let earlier = before.iter_mut().find(|subscriber| subscriber.number == number);
            let (begun, to_leave) =
                earlier.map_or_else(Default::default, |one| (one.begun, std::mem::take(&mut one.to_leave)));
            let index = u32::try_from(self.subscribers.len()).expect("fewer than descriptors");
            let at = slot as usize;
            self.by_slot.resize(self.by_slot.len().max(at + 1), None);
            self.by_slot[at] = Some(index);
            let socket_id = socket_id.to_owned();
            self.subscribers.push(Subscriber::new(number, slot, socket_id, begun, to_leave));
            self.room.extend((0..order.pipeline).map(|_| index));
        }
    }

    /// Sends no further subscription; pending ones may still be answered.
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

    /// Adds the moments that have passed to `due`. In an open loop, records how late the generator was.
    pub(crate) fn take_moments(&mut self, now: u64, recorder: &mut Recorder) {
        while let Some(intended) = self.schedule.next_ns().filter(|intended| *intended <= now) {
            self.schedule.advance();
            self.due.push_back((intended, self.per_tick));
            if self.closed_until_ns.is_none() {
                recorder.record(Measure::Lag, intended, now);
            }
        }
        if self.closed_until_ns.is_some_and(|end| now >= end) {
            self.due.clear();
        }
    }

    /// Everything that the next subscriber has to send now, as one batch: its number and slot, the messages, and how many
    /// of them are subscriptions.
    pub(crate) fn next_messages(&mut self, now: u64, signer: &Signer) -> Option<((u32, u32), Vec<String>, u64)> {
        while self.room.front().is_some_and(|index| self.is_at_end(*index)) {
            self.room.pop_front();
        }
        if self.due.is_empty() {
            return None;
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

    /// Whether a subscriber has nothing more to send: it is gone, or it stays and has subscribed to every channel.
    fn is_at_end(&self, index: u32) -> bool {
        let subscriber = &self.subscribers[index as usize];
        let has_all = |plan: &SubscribePlan| plan.stay == Stay::Stays && subscriber.begun >= plan.channels;
        subscriber.is_gone || self.plan.as_ref().is_some_and(has_all)
    }

    /// Takes one due subscription: its intended send time.
    fn take_due(&mut self, now: u64) -> Option<u64> {
        let (intended, count) = self.due.front_mut()?;
        let intended = if self.closed_until_ns.is_some() { now } else { *intended };
        *count -= 1;
        if *count == 0 {
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

    /// Ends the schedule when every subscriber is at its end: those that are have left the queue, since the caller took
    /// messages until there were none.
    pub(crate) fn end_without_room(&mut self) {
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

    /// Removes an answered subscription, which makes room for another one.
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

    /// Removes the connection in this slot. Returns how many of its subscriptions will get no answer.
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

/// Parses a reply whose bytes are not known yet and remembers them. Returns which pending subscription it answers.
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
    // The data of a private channel's reply is an empty object as a string; some servers send the object itself.
    let is_empty = reply.data == "{}" || reply.data == serde_json::json!({});
    if reply.event != "pusher_internal:subscription_succeeded" || !is_empty {
        return Err(Reply::Wrong);
    }
    let answers = |one: &Unanswered| plan.channel(one.channel) == reply.channel;
    let at = subscriber.unanswered.iter().position(answers).ok_or(Reply::Wrong)?;
    learnt[subscriber.unanswered[at].channel as usize] = Some(message.to_vec());
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::target::Target;

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

    /// Goal: two subscriptions that may be pending are sent together, signed, and after the unsubscriptions from the two
    /// before; replies are matched by channel, in any order, whether learnt or not; an unexpected reply is wrong.
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

    /// Goal: an echo must equal the message that was sent, each once and in order.
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

    /// Goal: subscribers that stay subscribe to each channel once and are then at their end.
    #[test]
    fn subscribers_that_stay_end() {
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
