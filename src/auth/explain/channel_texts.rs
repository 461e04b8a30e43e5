//! The texts that code signs by mistake for a channel or a user (P-AUTH-1 to P-AUTH-4).

use std::ops::ControlFlow;

use ring::hmac;

use super::cause::Cause;
use super::encoding::percent_encoded;
use super::json::{self, Forms};
use super::search::{Search, Step};
use crate::auth::subscription::SIGNIN;
use crate::wire::json::is_json_object;

/// What is signed for a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelText<'a> {
    pub(super) socket_id: &'a str,
    pub(super) channel: &'a str,
    pub(super) channel_data: Option<&'a str>,
}

/// What is signed for a user.
#[derive(Clone, Copy, Debug)]
pub(super) struct UserText<'a> {
    pub(super) socket_id: &'a str,
    pub(super) user_data: &'a str,
    /// The channel whose authorization may have been sent instead.
    pub(super) channel: Option<&'a str>,
}

impl<'a> ChannelText<'a> {
    /// The data that is signed: on presence channels all that is sent; elsewhere none is expected.
    fn signed_data(&self) -> Option<&'a str> {
        self.channel_data.filter(|_| self.is_presence())
    }

    pub(super) fn is_presence(&self) -> bool {
        self.channel.starts_with("presence-")
    }

    pub(super) fn is_of_user(&self) -> bool {
        self.channel.starts_with(SERVER_TO_USER)
    }

    /// The text that Relay expects to be signed.
    pub(super) fn expected(&self) -> String {
        let mut parts = vec![self.socket_id, self.channel];
        parts.extend(self.signed_data());
        parts.join(":")
    }

    /// Attempts with each text under one secret.
    pub(super) fn attempt_all(&self, search: &mut Search, key: &hmac::Key) -> Step {
        search.attempt(Cause::Ok, "", key, self.expected().as_bytes())?;
        self.attempt_parts(search, key)?;
        self.attempt_names(search, key)?;
        self.attempt_data(search, key)
    }

    /// Other parts, another order, other separators.
    fn attempt_parts(&self, search: &mut Search, key: &hmac::Key) -> Step {
        let Self { socket_id, channel, channel_data } = *self;
        let expected = self.expected();
        let mut attempt = |cause, parts: &[&str]| search.attempt(cause, "", key, parts.join(":").as_bytes());
        attempt(Cause::ReversedOrder, &[channel, socket_id])?;
        if let Some(data) = channel_data {
            if self.is_presence() {
                attempt(Cause::MissingChannelData, &[socket_id, channel])?;
            } else if is_json_object(data) {
                attempt(Cause::Ok, &[socket_id, channel, data])?;
            } else {
                attempt(Cause::OtherData, &[socket_id, channel, data])?;
            }
            for parts in [
                [channel, socket_id, data],
                [socket_id, data, channel],
                [data, socket_id, channel],
                [channel, data, socket_id],
                [data, channel, socket_id],
            ] {
                attempt(Cause::ReversedOrder, &parts)?;
            }
            attempt(Cause::UserAuthForChannel, &[socket_id, SIGNIN, data])?;
            attempt(Cause::UserAuthForChannel, &[socket_id, "user", data])?;
        }
        attempt(Cause::MissingPart, &[channel])?;
        attempt(Cause::MissingPart, &[socket_id])?;
        attempt_ends(search, key, &expected)?;
        let mut parts = vec![socket_id, channel];
        parts.extend(self.signed_data());
        attempt_separators(search, key, &parts)
    }

    /// Other names of the channel.
    fn attempt_names(&self, search: &mut Search, key: &hmac::Key) -> Step {
        let channel = self.channel;
        let bare = PREFIXES.iter().find_map(|prefix| channel.strip_prefix(prefix)).unwrap_or(channel);
        let mut names = vec![bare.to_owned(), channel.to_lowercase(), channel.to_uppercase(), bare.to_lowercase()];
        names.extend(PREFIXES.iter().flat_map(|prefix| [format!("{prefix}{bare}"), format!("{prefix}{channel}")]));
        names.extend([format!("\"{channel}\""), channel.replace('.', "-"), channel.replace('-', ".")]);
        for name in &names {
            self.attempt_name(search, Cause::OtherChannelName, key, name)?;
        }
        for name in percent_encoded(channel) {
            self.attempt_name(search, Cause::PercentEncoding, key, &name)?;
        }
        ControlFlow::Continue(())
    }

    fn attempt_name(&self, search: &mut Search, cause: Cause, key: &hmac::Key, name: &str) -> Step {
        if name == self.channel {
            return ControlFlow::Continue(());
        }
        let mut parts = vec![self.socket_id, name];
        parts.extend(self.signed_data());
        search.attempt(cause, "", key, parts.join(":").as_bytes())?;
        if self.signed_data().is_some() {
            search.attempt(cause, "", key, [self.socket_id, name].join(":").as_bytes())?;
        }
        ControlFlow::Continue(())
    }

    /// Other forms of the data.
    fn attempt_data(&self, search: &mut Search, key: &hmac::Key) -> Step {
        let before = format!("{}:{}:", self.socket_id, self.channel);
        attempt_data(search, key, &before, self.channel_data)
    }
}

impl UserText<'_> {
    /// The text that Relay expects to be signed.
    pub(super) fn expected(&self) -> String {
        [self.socket_id, SIGNIN, self.user_data].join(":")
    }

    /// Attempts with each text under one secret.
    pub(super) fn attempt_all(&self, search: &mut Search, key: &hmac::Key) -> Step {
        let Self { socket_id, user_data, channel } = *self;
        let expected = self.expected();
        let mut attempt = |cause, parts: &[&str]| search.attempt(cause, "", key, parts.join(":").as_bytes());
        attempt(Cause::Ok, &[socket_id, SIGNIN, user_data])?;
        let id = json::member(user_data, "id").unwrap_or_default();
        let mut channels: Vec<String> = channel.map(str::to_owned).into_iter().collect();
        channels.extend(CHANNELS_OF_USERS.iter().map(|prefix| format!("{prefix}{id}")));
        for channel in &channels {
            attempt(Cause::ChannelAuthForUser, &[socket_id, channel])?;
            attempt(Cause::ChannelAuthForUser, &[socket_id, channel, user_data])?;
        }
        attempt(Cause::ReversedOrder, &[user_data, SIGNIN, socket_id])?;
        attempt(Cause::ReversedOrder, &[SIGNIN, socket_id, user_data])?;
        attempt(Cause::ReversedOrder, &[socket_id, user_data, SIGNIN])?;
        for middle in ["user", ":user", "user:", "users", "::user:"] {
            attempt(Cause::WrongSeparator, &[socket_id, middle, user_data])?;
        }
        attempt(Cause::MissingPart, &[socket_id, user_data])?;
        attempt(Cause::MissingPart, &[socket_id, SIGNIN])?;
        attempt(Cause::MissingPart, &[user_data])?;
        attempt(Cause::OtherData, &[socket_id, SIGNIN, &id])?;
        attempt_ends(search, key, &expected)?;
        let before = format!("{socket_id}:{SIGNIN}:");
        attempt_data(search, key, &before, Some(user_data))
    }
}

/// White space after the text.
pub(super) fn attempt_ends(search: &mut Search, key: &hmac::Key, text: &str) -> Step {
    for end in ["\n", "\r\n", " ", "\\n", "\0"] {
        search.attempt(Cause::TrailingNewline, "", key, [text, end].concat().as_bytes())?;
    }
    search.attempt(Cause::TrailingNewline, "", key, [" ", text].concat().as_bytes())
}

fn attempt_separators(search: &mut Search, key: &hmac::Key, parts: &[&str]) -> Step {
    for separator in ["", " ", "\n", "\\n", ",", ".", "-", "_", "|", "::", ": ", " : ", "/", "&", ";"] {
        search.attempt(Cause::WrongSeparator, "", key, parts.join(separator).as_bytes())?;
    }
    ControlFlow::Continue(())
}

/// Data that a client or library put in the place of this one, after the text before it.
fn attempt_data(search: &mut Search, key: &hmac::Key, before: &str, data: Option<&str>) -> Step {
    let with = |data: &[u8]| [before.as_bytes(), data].concat();
    for other in ["", "null", "undefined", "None", "{}", "[]", "\"\"", "false", "[object Object]", "Array"] {
        search.attempt(Cause::OtherData, "", key, &with(other.as_bytes()))?;
    }
    let Some(data) = data else { return ControlFlow::Continue(()) };
    search.attempt(Cause::DataEncodedTwice, "", key, &with(&json::quoted(data)))?;
    if let Some(inner) = json::unquoted(data) {
        search.attempt(Cause::DataEncodedTwice, "", key, &with(inner.as_bytes()))?;
    }
    for name in ["user_id", "id"] {
        if let Some(id) = json::member(data, name) {
            search.attempt(Cause::OtherData, "", key, &with(id.as_bytes()))?;
        }
    }
    for encoded in percent_encoded(data) {
        search.attempt(Cause::PercentEncoding, "", key, &with(encoded.as_bytes()))?;
    }
    for changed in [data.trim(), data.trim_end(), &data.replace('\\', ""), &data.replace('"', "'")] {
        if changed != data {
            search.attempt(Cause::ReserializedData, "", key, &with(changed.as_bytes()))?;
        }
    }
    let mut forms = Forms::of(search, data);
    while let Some(form) = forms.next(search) {
        search.attempt(Cause::ReserializedData, form.about, key, &with(&form.text))?;
    }
    ControlFlow::Continue(())
}

/// The prefix of the channel of a signed-in user (P-SDK-25).
const SERVER_TO_USER: &str = "#server-to-user-";
/// What comes before the name proper, the longest first.
const PREFIXES: [&str; 6] =
    ["private-encrypted-cache-", "private-encrypted-", "private-cache-", "presence-cache-", "private-", "presence-"];
/// Channels that frameworks name after a user.
const CHANNELS_OF_USERS: [&str; 7] = [
    SERVER_TO_USER,
    "private-App.Models.User.",
    "private-App.User.",
    "private-user-",
    "private-user.",
    "private-users.",
    "private-users-",
];
