//! The answer to a publish (P-HTTP-1, P-HTTP-2, P-HTTP-7).
//!
//! The counts may have to be fetched from other shards, so the contents of the answer are kept separately from the
//! request body.

use super::events::{Publish, PublishForm};
use super::info::Info;
use crate::protocol::server_event::encode_json_string;

/// The contents of the answer to a publish; outlives the request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AnswerShape {
    /// `{}`: the request asked for no counts.
    Empty,
    /// `{}` with status 202: the deprecated endpoint (P-HTTP-7).
    Accepted,
    /// This body: the answer to a replay.
    Whole(Box<[u8]>),
    /// `{"channels":{...}}`: one entry per channel.
    Channels(Vec<AnswerEntry>),
    /// `{"batch":[...]}`: one entry per event, including events that requested no counts.
    Batch(Vec<AnswerEntry>),
}

/// One object of the answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AnswerEntry {
    /// The channel that is counted.
    pub channel: Box<str>,
    /// The counts that apply to it (P-HTTP-11).
    pub info: Info,
}

/// Counts of one channel, as far as they were fetched.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Distinct users, on presence channels.
    pub user_count: Option<u32>,
    /// Connections.
    pub subscription_count: Option<u32>,
}

impl AnswerShape {
    /// The answer shape for this publish.
    pub fn of(publish: &Publish<'_>) -> Self {
        if publish.form == PublishForm::Channel {
            return Self::Accepted;
        }
        if publish.events.iter().all(|event| event.info.is_none()) {
            return Self::Empty;
        }
        let entries = publish
            .events
            .iter()
            .flat_map(|event| {
                let info = event.info.unwrap_or_default();
                event.channels.iter().map(move |channel| AnswerEntry::new(channel, info))
            })
            .collect();
        match publish.form {
            PublishForm::Batch => Self::Batch(entries),
            PublishForm::Events | PublishForm::Channel => Self::Channels(entries),
        }
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Accepted => 202,
            Self::Empty | Self::Whole(_) | Self::Channels(_) | Self::Batch(_) => 200,
        }
    }

    /// The channels to count, in the order that [`AnswerShape::encode`] takes their counts. A batch may name a channel
    /// several times.
    pub fn entries(&self) -> &[AnswerEntry] {
        match self {
            Self::Empty | Self::Accepted | Self::Whole(_) => &[],
            Self::Channels(entries) | Self::Batch(entries) => entries,
        }
    }

    /// True when no channel must be counted, so that the answer needs no counts.
    pub fn needs_no_counts(&self) -> bool {
        self.entries().iter().all(|entry| entry.info.is_empty())
    }

    /// Appends the body. `counts` correspond to [`AnswerShape::entries`] by position; counts that were not requested,
    /// do not apply or are missing are left out.
    pub fn encode(&self, out: &mut Vec<u8>, counts: &[Counts]) {
        let (before, entries, after): (&[u8], _, &[u8]) = match self {
            Self::Empty | Self::Accepted => {
                out.extend_from_slice(b"{}");
                return;
            }
            Self::Whole(body) => {
                out.extend_from_slice(body);
                return;
            }
            Self::Channels(entries) => (b"{\"channels\":{", entries, b"}}"),
            Self::Batch(entries) => (b"{\"batch\":[", entries, b"]}"),
        };
        out.extend_from_slice(before);
        for (index, entry) in entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if matches!(self, Self::Channels(_)) {
                encode_json_string(out, &entry.channel);
                out.push(b':');
            }
            encode_counts(out, entry.info, counts.get(index).copied().unwrap_or_default());
        }
        out.extend_from_slice(after);
    }
}

impl AnswerEntry {
    fn new(channel: &str, info: Info) -> Self {
        Self { channel: channel.into(), info: info.applying_to(channel) }
    }
}

/// Appends an object with the counts that were requested and are known.
pub(super) fn encode_counts(out: &mut Vec<u8>, info: Info, counts: Counts) {
    out.push(b'{');
    append_counts(out, info, counts);
    out.push(b'}');
}

/// Appends the members of such an object, without its braces.
pub(super) fn append_counts(out: &mut Vec<u8>, info: Info, counts: Counts) {
    let members = [
        (&b"\"user_count\":"[..], counts.user_count.filter(|_| info.user_count)),
        (&b"\"subscription_count\":"[..], counts.subscription_count.filter(|_| info.subscription_count)),
    ];
    let asked = members.into_iter().filter_map(|(member, count)| Some((member, count?)));
    for (index, (member, count)) in asked.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(member);
        out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::batch_events::decode_batch_events;
    use crate::api::events::{PublishRules, decode_events};
    use crate::app::AppSettings;
    use crate::channel::name::NameRules;

    /// The answer to a body, with 7 users and 9 subscriptions on every channel.
    fn answer(body: &str) -> String {
        let settings = AppSettings::default();
        let rules = PublishRules { settings: &settings, names: NameRules::Permissive };
        let publish = if body.contains("\"batch\"") {
            decode_batch_events(body.as_bytes(), &rules)
        } else {
            decode_events(body.as_bytes(), &rules)
        };
        let shape = AnswerShape::of(&publish.expect("a valid publish"));
        let counts = Counts { user_count: Some(7), subscription_count: Some(9) };
        encoded(&shape, &vec![counts; shape.entries().len()])
    }

    fn encoded(shape: &AnswerShape, counts: &[Counts]) -> String {
        let mut out = Vec::new();
        shape.encode(&mut out, counts);
        let text = String::from_utf8(out).expect("UTF-8");
        let parsed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert!(parsed.is_object(), "P-SDK-15: {text}");
        text
    }

    /// P-HTTP-1, P-SDK-15: without info `{}`; with it one entry per unique channel, in the order of the request.
    #[test]
    fn answers_to_events() {
        let with = |rest: &str| answer(&format!(r#"{{"name":"e","data":"",{rest}}}"#));
        assert_eq!(with(r#""channels":["a","b"]"#), "{}");
        assert_eq!(
            with(r#""channels":["b","presence-a","b"],"info":"user_count,subscription_count""#),
            r#"{"channels":{"b":{"subscription_count":9},"presence-a":{"user_count":7,"subscription_count":9}}}"#
        );
        assert_eq!(
            with(r#""channel":"presence-a","info":"user_count""#),
            r#"{"channels":{"presence-a":{"user_count":7}}}"#
        );
    }

    /// P-HTTP-11: counts that do not apply or are unknown are left out; the entry remains.
    #[test]
    fn counts_that_do_not_apply_are_left_out() {
        let with = |rest: &str| answer(&format!(r#"{{"name":"e","data":"","channel":{rest}}}"#));
        assert_eq!(with(r#""private-a","info":"user_count""#), r#"{"channels":{"private-a":{}}}"#);
        assert_eq!(with(r#""a","info":"nonsense""#), r#"{"channels":{"a":{}}}"#);
        assert_eq!(with(r#""my-presence-a","info":"user_count""#), r#"{"channels":{"my-presence-a":{}}}"#);
    }

    /// P-CHAN-2: under permissive rules a name may need escaping in the answer.
    #[test]
    fn channel_names_are_escaped() {
        let text = answer(r#"{"name":"e","data":"","channel":"a\"\\b","info":""}"#);
        assert_eq!(text, r#"{"channels":{"a\"\\b":{}}}"#);
    }

    /// P-HTTP-2: without any info `{}`; with some one entry per event, `{}` where none was requested; repeated channels
    /// stay separate.
    #[test]
    fn answers_to_batches() {
        let event = |channel: &str, info: &str| format!(r#"{{"name":"e","data":"","channel":"{channel}"{info}}}"#);
        let batch = |events: &[String]| answer(&format!(r#"{{"batch":[{}]}}"#, events.join(",")));
        assert_eq!(batch(&[event("a", ""), event("b", "")]), "{}");
        let subscriptions = r#","info":"subscription_count""#;
        let users = r#","info":"user_count""#;
        assert_eq!(
            batch(&[event("a", ""), event("a", subscriptions), event("presence-a", users), event("b", users)]),
            r#"{"batch":[{},{"subscription_count":9},{"user_count":7},{}]}"#
        );
    }

    /// P-HTTP-1, P-HTTP-2: counts that never arrived are left out; entries stay aligned.
    #[test]
    fn missing_counts_leave_empty_entries() {
        let info = Info { user_count: true, subscription_count: true };
        let entries = vec![AnswerEntry::new("presence-a", info), AnswerEntry::new("b", info)];
        let counts = [Counts { user_count: None, subscription_count: Some(0) }];
        let shape = AnswerShape::Channels(entries.clone());
        assert_eq!(encoded(&shape, &counts), r#"{"channels":{"presence-a":{"subscription_count":0},"b":{}}}"#);
        assert_eq!(encoded(&AnswerShape::Batch(entries), &[]), r#"{"batch":[{},{}]}"#);
        assert!(!shape.needs_no_counts());
        assert!(AnswerShape::Empty.needs_no_counts() && AnswerShape::Empty.entries().is_empty());
        let none =
            AnswerShape::Channels(vec![AnswerEntry::new("a", Info { user_count: true, subscription_count: false })]);
        assert!(none.needs_no_counts(), "user_count does not apply");
    }
}
