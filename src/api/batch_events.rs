//! `POST /batch_events` (P-HTTP-2).

use serde::Deserialize;
use serde_json::value::RawValue;

use super::events::{EventFields, Publish, PublishEvent, PublishRules, decode_channel, decode_event};
use super::literal::{decode_body, decode_object, for_each_element};
use super::refusal::Refusal;
use crate::limits::BATCH_EVENTS_MAX;

/// Decodes and checks the body of `POST /batch_events`, whole before anything of it is published (P-HTTP-14).
///
/// # Errors
/// 400 or 413 with the limit or the expectation, and the index of the event that breaks it.
pub fn decode_batch_events<'a>(body: &'a [u8], rules: &PublishRules<'_>) -> Result<Publish<'a>, Refusal> {
    let fields: BatchFields<'a> = decode_object(decode_body(body)?)?;
    let batch = fields.batch.ok_or_else(|| Refusal::bad_request("The member batch is missing: an array of events."))?;
    let mut events = Vec::new();
    for_each_element(batch, "batch", |element| {
        let index = events.len();
        if index == BATCH_EVENTS_MAX {
            return Err(Refusal::bad_request(format!("A batch has at most {BATCH_EVENTS_MAX} events.")));
        }
        let event = decode_batch_event(element, rules).map_err(|refusal| refusal.within(&format!("batch[{index}]")))?;
        events.push(event);
        Ok(())
    })?;
    if events.is_empty() {
        return Err(Refusal::bad_request("The member batch is empty: give at least one event."));
    }
    Ok(Publish { events, batch: true })
}

#[derive(Deserialize)]
struct BatchFields<'a> {
    #[serde(borrow)]
    batch: Option<&'a RawValue>,
}

fn decode_batch_event<'a>(element: &'a RawValue, rules: &PublishRules<'_>) -> Result<PublishEvent<'a>, Refusal> {
    let fields: EventFields<'a> = decode_object(element.get())?;
    if fields.channels.is_some() {
        return Err(Refusal::bad_request("An event of a batch takes the member channel, not channels."));
    }
    let channel =
        fields.channel.ok_or_else(|| Refusal::bad_request("The member channel is missing: a channel name."))?;
    let channel = decode_channel(channel, "channel", rules)?;
    decode_event(&fields, vec![channel], rules)
}
