//! How HTTP clients check the answers: in order, one each, of the right status and shape.

use serde_json::Value;

use crate::client::caller::{ErrorStyle, Owed, Told};
use crate::client::responses::Response;
use crate::coverage::Happening;
use crate::network::End;
use crate::reference::Outcome;
use crate::world::World;

impl World {
    /// An HTTP client reads up to `bytes_max` bytes. False when there was nothing to read.
    pub(crate) fn read_caller(&mut self, number: usize, bytes_max: usize) -> bool {
        let caller = &mut self.callers[number];
        if caller.gone || caller.stalled {
            return false;
        }
        let wire = &mut self.wires[caller.wire];
        let end = wire.client_sees();
        let bytes = wire.client_read(bytes_max);
        if bytes.is_empty() {
            if end == End::Open {
                return false;
            }
            self.end_caller(number, end);
            return true;
        }
        self.system.trace.mix_bytes(&bytes);
        self.system.trace.note(|| format!("caller {number} reads {}", bytes.escape_ascii()));
        caller.responses.push(&bytes);
        loop {
            let caller = &mut self.callers[number];
            let no_body = caller.owed.front().is_some_and(|owed| owed.no_body);
            let Some(response) = caller.responses.next(no_body) else { return true };
            if response.status == 100 {
                continue;
            }
            let owed = caller
                .owed
                .pop_front()
                .unwrap_or_else(|| panic!("caller {number} got an answer to nothing: {response:?}"));
            self.handle_response(number, &owed, &response);
        }
    }

    fn end_caller(&mut self, number: usize, end: End) {
        let caller = &mut self.callers[number];
        let made_room = self.system.was_full(self.wires[caller.wire].shard);
        let excused = caller.may_vanish || caller.owed.is_empty() || made_room;
        assert!(excused, "caller {number} was cut off ({end:?}) with {} answers owed", caller.owed.len());
        let whole = caller.responses.pending() == 0;
        assert!(caller.may_vanish || whole || made_room, "caller {number} was cut off within an answer");
        self.wires[caller.wire].client_finish();
        self.forget_caller(number);
    }

    /// An HTTP client is gone: its unanswered requests may have taken effect or not.
    pub(crate) fn forget_caller(&mut self, number: usize) {
        let caller = &mut self.callers[number];
        caller.gone = true;
        for owed in std::mem::take(&mut caller.owed) {
            self.model.answer(&owed.groups, Outcome::Unknown);
        }
    }

    fn handle_response(&mut self, number: usize, owed: &Owed, response: &Response) {
        self.system.coverage.note(Happening::Answered(response.status));
        let stable = self.store_is_stable_since(owed.started);
        let right =
            owed.statuses.contains(&response.status) || (!stable && owed.statuses_in_flux.contains(&response.status));
        let overloaded = response.status == 503 && self.may_overload();
        assert!(
            right || overloaded,
            "caller {number} got {} {}, owed was {owed:?}, store stable: {stable}",
            response.status,
            response.body.escape_ascii()
        );
        if response.status == 200 {
            if let Told::Replayed(wanted) = &owed.told {
                self.handle_replayed(owed, wanted, &response.body);
            } else {
                self.model.answer(&owed.groups, Outcome::Accepted(self.tick));
            }
            self.check_told(owed, response);
            if let Some(user) = &owed.ends {
                self.note_end_of_user(owed.app, user, owed.started);
            }
            if let Some(token) = &owed.token {
                assert!(self.system.tokens_used.contains(token), "the use of {token} was not reported (R-TOKEN-4)");
            }
        } else {
            self.model.answer(&owed.groups, Outcome::Refused);
            check_error(owed, response);
        }
        if response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.abandon_rest(number);
        }
    }

    /// After an answer with `Connection: close` later requests on the connection have no effect (RFC 9112 section 9.6).
    fn abandon_rest(&mut self, number: usize) {
        let caller = &mut self.callers[number];
        caller.ended = true;
        for owed in std::mem::take(&mut caller.owed) {
            assert!(self.draining || owed.statuses.is_empty(), "caller {number} was told to stop, owed was {owed:?}");
            self.model.answer(&owed.groups, Outcome::Refused);
        }
    }

    /// The contents of a 200 (P-HTTP-1, P-HTTP-2).
    fn check_told(&self, owed: &Owed, response: &Response) {
        if owed.told == Told::Text || owed.no_body {
            return;
        }
        let body: Value = serde_json::from_slice(&response.body).expect("a 200 is JSON (P-SDK-15)");
        match &owed.told {
            Told::Nothing => assert_eq!(body, serde_json::json!({}), "P-HTTP-1"),
            Told::Counts(channels) => {
                let told = body["channels"].as_object().unwrap_or_else(|| panic!("channels is an object: {body}"));
                assert_eq!(told.len(), channels.len(), "one entry per channel (P-HTTP-1): {body}");
                for channel in channels {
                    self.check_counts(owed, channel, &told[channel.as_str()]);
                }
            }
            Told::Listed => {
                let told = body["channels"].as_object().unwrap_or_else(|| panic!("P-SDK-17: an object: {body}"));
                assert!(
                    told.values().all(|counts| counts["subscription_count"] != 0),
                    "occupied channels only (P-HTTP-3): {body}"
                );
                told.iter().for_each(|(channel, counts)| self.check_counts(owed, channel, counts));
                let missing = self.apps[owed.app].channels.iter().find(|channel| {
                    owed.at_rest && self.model.counts(owed.app, channel).0 > 0 && !told.contains_key(*channel)
                });
                assert_eq!(missing, None, "every occupied channel is listed (P-HTTP-3): {body}");
            }
            // The one is checked with its events, the other by readers.
            Told::Replayed(_) | Told::Text => {}
        }
    }

    fn check_counts(&self, owed: &Owed, channel: &str, told: &Value) {
        let presence = channel.starts_with("presence-");
        let subscriptions = told["subscription_count"].as_u64().expect("subscription_count is always told (P-HTTP-11)");
        let users = told.get("user_count").map(|users| users.as_u64().expect("a count"));
        assert_eq!(users.is_some(), presence, "user_count is told on presence channels only (P-HTTP-11)");
        assert!(users.is_none_or(|users| users <= subscriptions), "more users than subscriptions: {told}");
        if owed.at_rest {
            let (live, members) = self.model.counts(owed.app, channel);
            assert_eq!(subscriptions, live as u64, "subscription_count of {channel} at rest");
            assert!(
                users.is_none_or(|users| users == members as u64),
                "user_count of {channel} at rest is {users:?}, not {members}"
            );
        }
    }
}

/// The body of an error, and when to try again.
pub(crate) fn check_error(owed: &Owed, response: &Response) {
    if owed.no_body {
        return;
    }
    match owed.error_style {
        ErrorStyle::Text => {
            let text = std::str::from_utf8(&response.body).expect("an error is text (P-SDK-16)");
            assert!(text.len() > 1 && !text.ends_with('\n') && !text.starts_with('{'), "P-STAT-7: {response:?}");
        }
        ErrorStyle::Json => {
            let body: Value = serde_json::from_slice(&response.body).expect("an error is JSON (R-ERR-1)");
            assert!(body["error"].is_string() && body["message"].is_string(), "R-ERR-1: {body}");
        }
        ErrorStyle::Any => {}
    }
    if response.status == 503 || response.status == 429 {
        assert!(response.header("retry-after").is_some(), "Retry-After (P-STAT-6, P-STAT-8): {response:?}");
    }
}
