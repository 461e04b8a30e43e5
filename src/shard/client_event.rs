//! Client events (P-CEV rules): from one subscriber to all others, through the channel's owner.

use super::Shard;
use super::deliver::text_frame;
use super::mail::{Anywhere, Body, PublishItem};
use crate::app::App;
use crate::app::webhook::WebhookKind;
use crate::channel::name::ChannelKind;
use crate::limits;
use crate::protocol::server_event;
use crate::protocol::webhook::SentEvent;

/// A client event, as received.
pub(super) struct ClientEvent<'a> {
    pub(super) event: &'a str,
    pub(super) channel: Option<&'a str>,
    pub(super) data_literal: &'a str,
    pub(super) data_bytes: usize,
}

/// Ticks of a bucket's clock in a millisecond: fine enough that the highest rate is met within 1 %.
const TICKS_PER_MS: u32 = 100;

/// No bucket is ever further ahead than this, whatever the rate was: two seconds.
const AHEAD_MAX: u32 = 2_000 * TICKS_PER_MS;

const _: () = assert!(1_000 * TICKS_PER_MS / limits::CLIENT_EVENTS_PER_SECOND_SETTING_MAX >= 100);

impl Shard {
    /// Accepts or refuses a client event; a refusal is `pusher:error` without close, the event is dropped (P-CEV-4).
    pub(super) fn handle_client_event(&mut self, slot: u32, app: &App, message: &ClientEvent<'_>) {
        if let Err((code, reason)) = self.publish_client_event(slot, app, message) {
            self.note_client_event_refused(slot, message.channel, code);
            self.send_error(slot, code, &reason);
        }
    }

    fn publish_client_event(
        &mut self,
        slot: u32,
        app: &App,
        message: &ClientEvent<'_>,
    ) -> Result<(), (Option<u16>, String)> {
        if !app.settings.client_events {
            return Err((None, FLAG_OFF.to_owned()));
        }
        let name = message.channel.ok_or_else(|| (None, "A client event needs a channel".to_owned()))?;
        let index = self.find_channel_named(app.serial, name);
        let subscribed = index.filter(|&index| self.channels[index as usize].subscribers.contains(slot));
        let Some(index) = subscribed else {
            let quoted = crate::protocol::quote(name);
            return Err((None, format!("Client events need a subscription to the channel {quoted}")));
        };
        let kind = self.channels[index as usize].kind;
        match kind {
            ChannelKind::Private | ChannelKind::PrivateEncrypted | ChannelKind::Presence => {}
            ChannelKind::Public | ChannelKind::ServerToUser => {
                return Err((None, "Client events are for private and presence channels only".to_owned()));
            }
        }
        if message.event.len() > limits::EVENT_NAME_BYTES_MAX || message.event.chars().any(char::is_control) {
            let bytes_max = limits::EVENT_NAME_BYTES_MAX;
            let reason = format!("Event names have at most {bytes_max} bytes and no control characters");
            return Err((Some(4301), reason));
        }
        let data_bytes_max = app.settings.max_event_data_bytes;
        if message.data_bytes > data_bytes_max as usize {
            return Err((Some(4301), format!("Event data has at most {data_bytes_max} bytes (max_event_data_bytes)")));
        }
        let rate = app.settings.max_client_events_per_second;
        if rate > 0 && !self.take_client_event(slot, rate) {
            let reason =
                format!("A connection may send {rate} client events per second (max_client_events_per_second)");
            return Err((Some(4301), reason));
        }
        if !self.may_publish(app.serial, message.data_literal.len()) {
            return Err((None, OVERLOADED.to_owned()));
        }
        let user_id = if kind == ChannelKind::Presence { self.member_id(slot, index) } else { None };
        let frame = text_frame(&mut self.scratch, |out| {
            server_event::encode_channel_event(out, message.event, name, message.data_literal, user_id.as_deref());
        });
        let channel = &self.channels[index as usize];
        let (owner, key) = (channel.owner, channel.key.clone());
        let exclude = Some(Anywhere { shard: self.config.index, connection: self.key(slot) });
        let sent = app.wants(WebhookKind::ClientEvent).then(|| {
            Box::new(SentEvent {
                event: message.event.into(),
                data_literal: message.data_literal.into(),
                socket_id: self.socket_id(self.key(slot)).to_text().into(),
                user_id,
            })
        });
        let item = PublishItem { channel: key, frame, exclude, cache: None, number: 0, sent };
        self.send_paid(owner, app.serial.0, Body::Publish { request: None, counts: false, items: vec![item] })
            .map_err(|_| (None, OVERLOADED.to_owned()))
    }

    /// A connection begins with a full bucket.
    pub(super) fn fill_client_events(&mut self, slot: u32) {
        self.hot[slot as usize].client_event_due = self.ticks();
    }

    /// The bucket's clock. It wraps after 12 hours: a connection that was silent for just as long finds its bucket as it
    /// left it, for a second.
    fn ticks(&self) -> u32 {
        (self.now.monotonic_ms as u32).wrapping_mul(TICKS_PER_MS)
    }

    /// Takes one event from the connection's bucket: `rate` per second, as many at once (P-LIM-9).
    fn take_client_event(&mut self, slot: u32, rate: u32) -> bool {
        let interval = (1_000 * TICKS_PER_MS).div_ceil(rate);
        let burst = interval * rate;
        let now = self.ticks();
        let due = &mut self.hot[slot as usize].client_event_due;
        // The bucket is empty when the next event is due more than a burst less one interval from now. A due time in
        // the past, also one that the clock has wrapped around, is a full bucket.
        let ahead = due.wrapping_sub(now);
        let ahead = if ahead > AHEAD_MAX { 0 } else { ahead };
        if ahead > burst.saturating_sub(interval) {
            return false;
        }
        *due = now.wrapping_add(ahead).wrapping_add(interval);
        true
    }
}

const OVERLOADED: &str = "The server is overloaded, the event was not sent";
const FLAG_OFF: &str = "To send client events, you must enable this feature in the Settings page of your dashboard.";
