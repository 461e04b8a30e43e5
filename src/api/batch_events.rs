//! `POST /batch_events` (P-HTTP-2).

use serde::Deserialize;
use serde_json::value::RawValue;

use super::events::{EventFields, Publish, PublishEvent, PublishForm, PublishRules, decode_channel, decode_event};
use super::literal::{decode_body, decode_object, for_each_element};
use super::refusal::Refusal;

/// Decodes and checks the complete body of `POST /batch_events` before any of it is published (P-HTTP-14).
///
/// # Errors
/// 400 or 413 that names the limit or the expected form, and the index of the offending event.
pub fn decode_batch_events<'a>(body: &'a [u8], rules: &PublishRules<'_>) -> Result<Publish<'a>, Refusal> {
    let fields: BatchFields<'a> = decode_object(decode_body(body)?)?;
    let batch = fields.batch.ok_or_else(|| Refusal::bad_request("The member batch is missing: an array of events."))?;
    let events_max = rules.settings.max_batch_events as usize;
    let mut events = Vec::new();
    for_each_element(batch, "batch", |element| {
        let index = events.len();
        if index == events_max {
            let message = format!("Batch too large: a batch has at most {events_max} events (max_batch_events).");
            return Err(Refusal::bad_request(message));
        }
        let event = decode_batch_event(element, rules).map_err(|refusal| refusal.within(&format!("batch[{index}]")))?;
        events.push(event);
        Ok(())
    })?;
    if events.is_empty() {
        return Err(Refusal::bad_request("The member batch is empty: give at least one event."));
    }
    Ok(Publish { events, form: PublishForm::Batch })
}

#[derive(Deserialize)]
struct BatchFields<'a> {
    #[serde(borrow)]
    batch: Option<&'a RawValue>,
}

fn decode_batch_event<'a>(element: &'a RawValue, rules: &PublishRules<'_>) -> Result<PublishEvent<'a>, Refusal> {
    let fields: EventFields<'a> = decode_object(element.get())?;
    if fields.channels.is_some() {
        return Err(Refusal::bad_request("An event of a batch must have the member channel instead of channels."));
    }
    let channel =
        fields.channel.ok_or_else(|| Refusal::bad_request("The member channel is missing: a channel name."))?;
    let channel = decode_channel(channel, "channel", rules)?;
    decode_event(&fields, vec![channel], rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::info::Info;
    use crate::app::AppSettings;
    use crate::channel::name::NameRules;
    use crate::protocol::socket_id::SocketId;

    fn decode(body: &str) -> Result<Publish<'_>, Refusal> {
        let settings = AppSettings::default();
        decode_batch_events(body.as_bytes(), &PublishRules { settings: &settings, names: NameRules::Default })
    }

    fn refused(body: &str, status: u16, message: &str) {
        let refusal = decode(body).expect_err(body);
        assert_eq!(refusal.status, status, "{body}");
        assert!(refusal.message.starts_with(message), "{body}: {}", refusal.message);
    }

    fn batch_of(events: &[&str]) -> String {
        format!(r#"{{"batch":[{}]}}"#, events.join(","))
    }

    const EVENT: &str = r#"{"name":"e","data":"d","channel":"a"}"#;

    /// P-HTTP-2, R-PUB-2: events in order, each with its own channel, exclusion and info.
    #[test]
    fn events_keep_their_order() {
        let body = batch_of(&[
            EVENT,
            r#" {"channel":"private-b","data":[1, 2],"name":"f","socket_id":"1.2","info":"subscription_count","x":{}} "#,
            EVENT,
        ]);
        let publish = decode(&body).expect("valid");
        assert_eq!(publish.form, PublishForm::Batch);
        let seen: Vec<_> =
            publish.events.iter().map(|event| (&*event.name, &*event.data_literal, &*event.channels[0])).collect();
        let plain = ("e", r#""d""#, "a");
        assert_eq!(seen, [plain, ("f", r#""[1, 2]""#, "private-b"), plain]);
        assert!(publish.events.iter().all(|event| event.channels.len() == 1));
        assert_eq!(publish.events[1].exclude, SocketId::parse("1.2"));
        assert_eq!(publish.events[1].info, Some(Info { user_count: false, subscription_count: true }));
        assert_eq!((publish.events[2].exclude, publish.events[2].info), (None, None));
    }

    /// P-LIM-5: 10 events are accepted, 11 and none are refused.
    #[test]
    fn batch_is_bounded() {
        assert_eq!(decode(&batch_of(&[EVENT; 10])).expect("ten").events.len(), 10);
        refused(&batch_of(&[EVENT; 11]), 400, "Batch too large: a batch has at most 10 events (max_batch_events).");
        refused(&batch_of(&["1"; 100]), 400, "batch[0]: Expected a JSON object.");
        refused(&batch_of(&[]), 400, "The member batch is empty");
    }

    /// P-HTTP-14: one invalid event causes the complete batch to be refused, and the answer names the event and the
    /// reason.
    #[test]
    fn the_broken_event_is_named() {
        let long = format!(r#"{{"name":"e","channel":"a","data":"{}"}}"#, "x".repeat(10_241));
        let rows = [
            ("1", 400, "Expected a JSON object."),
            (r#"["e","d","a"]"#, 400, "Expected a JSON object."),
            ("null", 400, "Expected a JSON object."),
            (r#"{"name":"e","data":"d"}"#, 400, "The member channel is missing"),
            (r#"{"name":"e","data":"d","channel":null}"#, 400, "The member channel is missing"),
            (r#"{"name":"e","data":"d","channels":["a"]}"#, 400, "An event of a batch must have the member channel"),
            (
                r#"{"name":"e","data":"d","channel":"a","channels":["a"]}"#,
                400,
                "An event of a batch must have the member channel",
            ),
            (r#"{"name":"e","data":"d","channel":"a b"}"#, 400, "The channel name \"a b\" is invalid"),
            (r#"{"name":"pusher:e","data":"d","channel":"a"}"#, 400, "Event names that start"),
            (r#"{"name":"e","data":5,"channel":"a"}"#, 400, "The member data must be"),
            (r#"{"name":"e","data":"d","channel":"a","channel":"b"}"#, 400, "Invalid JSON: duplicate field `channel`"),
            (&long, 413, "The data content of this event exceeds the allowed maximum (10240 bytes)."),
        ];
        for (event, status, message) in rows {
            refused(&batch_of(&[EVENT, EVENT, event, EVENT]), status, &format!("batch[2]: {message}"));
        }
    }

    /// Threat T10: bodies that are not a batch.
    #[test]
    fn malformed_bodies_are_refused() {
        for body in ["", "[]", "null", EVENT.trim_start_matches('{')] {
            refused(body, 400, "Expected a JSON object.");
        }
        for body in [r#"{"batch":{}}"#, r#"{"batch":"x"}"#, r#"{"batch":1}"#] {
            refused(body, 400, "The member batch must be an array.");
        }
        for body in ["{}", EVENT, r#"{"batch":null}"#] {
            refused(body, 400, "The member batch is missing");
        }
        refused(r#"{"batch":[],"batch":[]}"#, 400, "Invalid JSON: duplicate field `batch`");
        refused(r#"{"batch":[}"#, 400, "Invalid JSON");
        refused(&format!(r#"{{"batch":{}"#, "[".repeat(100_000)), 400, "Invalid JSON");
    }
}
