//! `POST /events` (P-HTTP-1, P-HTTP-12 to 14).

use std::borrow::Cow;

use super::refusal::Refusal;
use crate::app::AppSettings;
use crate::channel::name::{ChannelName, NameRules};
use crate::protocol::socket_id::SocketId;

/// Which counts the answer shall tell (`info`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Info {
    /// `user_count`, on presence channels only (P-HTTP-11).
    pub user_count: bool,
    /// `subscription_count`.
    pub subscription_count: bool,
}

impl Info {
    /// True when nothing was asked for.
    pub fn is_empty(self) -> bool {
        !self.user_count && !self.subscription_count
    }
}

/// One event for one or several channels, checked whole.
#[derive(Debug)]
pub struct PublishEvent<'a> {
    /// Event name.
    pub name: Cow<'a, str>,
    /// `data` as a JSON string literal, quotes included, ready to stand in a frame.
    pub data_literal: Cow<'a, str>,
    /// The channels, each once, in the order of the request.
    pub channels: Vec<Cow<'a, str>>,
    /// The connection that does not get it.
    pub exclude: Option<SocketId>,
    /// Counts asked for; `None` when the request has no `info` member.
    pub info: Option<Info>,
}

/// A whole request to publish.
#[derive(Debug)]
pub struct Publish<'a> {
    /// The events in order; exactly one for `/events`.
    pub events: Vec<PublishEvent<'a>>,
    /// Whether the answer has the shape of `/batch_events`.
    pub batch: bool,
}

/// Rules that a body is checked against.
#[derive(Clone, Copy, Debug)]
pub struct PublishRules<'a> {
    /// The app's settings.
    pub settings: &'a AppSettings,
    /// Which channel names are allowed.
    pub names: NameRules,
}

/// Decodes and checks the body of `POST /events`.
pub fn decode_events<'a>(
    _body: &'a [u8],
    _rules: &PublishRules<'_>,
) -> Result<Publish<'a>, Refusal> {
    let _ = ChannelName::parse;
    todo!()
}
