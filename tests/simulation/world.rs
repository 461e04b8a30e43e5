//! One run: the system, the wires, the clients and the model, and what the clients make of what they read.

use std::sync::Arc;

use relay::channel::name::NameRules;
use relay::moment::Moment;
use relay::shard::ShardOptions;
use serde_json::Value;

use crate::apps::{self, AppFacts, TokenFacts};
use crate::client::caller::{Caller, ErrorStyle, Owed, Told};
use crate::client::frames::{CLOSE, PING, PONG, TEXT};
use crate::client::responses::Response;
use crate::client::socket::{Complaint, Operation, Phase, SocketClient, StepKind, decode_roster};
use crate::fault::Fault;
use crate::network::{End, Wire};
use crate::random::Random;
use crate::reference::{Model, Outcome, Received, Session, Tick};
use crate::system::{SendStyle, System, SystemOptions};
use crate::trace::Trace;

/// What kind of run a seed makes.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Events are large, so that slow readers overflow.
    pub(crate) large_events: bool,
    /// Slots are few, so that connections are refused.
    pub(crate) few_slots: bool,
    /// The run ends with a drain.
    pub(crate) drains: bool,
    /// The store changes.
    pub(crate) store_changes: bool,
    /// Clients misbehave.
    pub(crate) bad_input: bool,
    /// Phases of chaos, each followed by a rest.
    pub(crate) phases: usize,
    /// Steps of one phase.
    pub(crate) steps: usize,
    /// WebSocket clients at once.
    pub(crate) sockets_max: usize,
}

impl Scenario {
    fn draw(random: &mut Random) -> Self {
        Self {
            large_events: random.one_in(24),
            few_slots: random.one_in(12),
            drains: random.one_in(6),
            store_changes: random.one_in(4),
            bad_input: random.one_in(2),
            phases: random.between(2, 4),
            steps: random.between(60, 220),
            sockets_max: random.between(2, 9),
        }
    }
}

/// A run in progress.
pub(crate) struct World {
    /// Chance.
    pub(crate) random: Random,
    /// What kind of run.
    pub(crate) scenario: Scenario,
    /// Steps so far.
    pub(crate) tick: Tick,
    /// The shards.
    pub(crate) system: System,
    /// All connections.
    pub(crate) wires: Vec<Wire>,
    /// WebSocket clients.
    pub(crate) sockets: Vec<SocketClient>,
    /// HTTP clients.
    pub(crate) callers: Vec<Caller>,
    /// What must hold.
    pub(crate) model: Model,
    /// Apps.
    pub(crate) apps: Vec<AppFacts>,
    /// Tokens.
    pub(crate) tokens: Vec<TokenFacts>,
    /// Version of the store.
    pub(crate) version: u64,
    /// When the store last changed.
    pub(crate) changed_at: Tick,
    /// Since when every shard knows of it.
    pub(crate) stable_since: Tick,
    /// Drain was told.
    pub(crate) draining: bool,
    /// Time that passed in this phase, in ms.
    pub(crate) phase_ms: u64,
}

impl World {
    /// A run from its seed.
    pub(crate) fn new(seed: u64, fault: Fault, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::draw(&mut random);
        let data_bytes_max = if scenario.large_events { 300_000 } else { 10_240 };
        let apps = apps::apps(&mut random, data_bytes_max);
        let tokens = apps::tokens();
        let directory = apps::directory(1, &apps, &tokens);
        let options = SystemOptions {
            shards: *random.pick(&[1, 2, 3, 5]),
            slots: if scenario.few_slots { 6 } else { 48 },
            slots_kept_back: if scenario.few_slots { 2 } else { 0 },
            options: ShardOptions {
                path_prefix: String::new(),
                activity_timeout_s: 120,
                strict_protocol: false,
                channel_names: NameRules::Default,
                trusted_proxies: Vec::new(),
                drain_ms: *random.pick(&[0, 1_000, 10_000]),
            },
            send_style: *random.pick(&[SendStyle::Immediate, SendStyle::Deferred, SendStyle::Mixed]),
            read_bytes_max: *random.pick(&[64, 2_048, 16_384]),
        };
        let now = Moment {
            monotonic_ms: random.between(0, 100_000) as u64,
            unix_ms: 1_800_000_000_000 + random.below(1_000_000) as u64,
        };
        let mut boot_secret = [0; 16];
        boot_secret.copy_from_slice(&random.bytes(16));
        let system = System::new(options, &directory, boot_secret, now, fault, trace);
        Self {
            random,
            scenario,
            tick: 1,
            system,
            wires: Vec::new(),
            sockets: Vec::new(),
            callers: Vec::new(),
            model: Model::default(),
            apps,
            tokens,
            version: 1,
            changed_at: 0,
            stable_since: 0,
            draining: false,
            phase_ms: 0,
        }
    }

    /// Time passes, on both clocks alike.
    pub(crate) fn pass_time(&mut self, ms: u64) {
        self.system.now.monotonic_ms += ms;
        self.system.now.unix_ms += ms;
        self.phase_ms += ms;
    }

    /// The store changed.
    pub(crate) fn change_store(&mut self) {
        self.version += 1;
        self.changed_at = self.tick;
        self.stable_since = Tick::MAX;
        let directory = apps::directory(self.version, &self.apps, &self.tokens);
        self.system.publish_directory(&Arc::clone(&directory));
    }

    /// True when the store has not changed, anywhere, since this tick.
    fn store_is_stable_since(&self, started: Tick) -> bool {
        self.changed_at < started && self.stable_since <= started && !self.system.directory_is_spreading()
    }

    // WebSocket clients.

    /// A WebSocket client reads up to `bytes_max` bytes. False when there was nothing to see.
    pub(crate) fn read_socket(&mut self, number: usize, bytes_max: usize) -> bool {
        let client = &mut self.sockets[number];
        if client.phase == Phase::Gone || client.stalled || client.vanished {
            return false;
        }
        let wire = &mut self.wires[client.wire];
        let end = wire.client_sees();
        let bytes = wire.client_read(bytes_max);
        if bytes.is_empty() {
            if end == End::Open {
                return false;
            }
            self.end_socket(number, end);
            return true;
        }
        self.system.trace.mix_bytes(&bytes);
        self.system.trace.note(|| format!("client {number} reads {}", bytes.escape_ascii()));
        if client.phase == Phase::Upgrading {
            client.responses.push(&bytes);
            let Some(response) = client.responses.next(false) else { return true };
            self.finish_upgrade(number, &response);
        } else {
            client.frames.push(&bytes);
        }
        while self.sockets[number].phase != Phase::Gone {
            let Some(frame) = self.sockets[number].frames.next() else { break };
            self.handle_frame(number, frame.opcode, &frame.payload);
        }
        true
    }

    /// The answer to the upgrade: refusals too complete it (P-CONN-8).
    fn finish_upgrade(&mut self, number: usize, response: &Response) {
        let client = &mut self.sockets[number];
        assert_eq!(response.status, 101, "the upgrade of client {number}: {response:?}");
        let accept = tungstenite::handshake::derive_accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(response.header("sec-websocket-accept"), Some(accept.as_str()), "RFC 6455 section 4.2.2");
        client.phase = Phase::Greeting;
        let rest = client.responses.take_rest();
        client.frames.push(&rest);
    }

    fn handle_frame(&mut self, number: usize, opcode: u8, payload: &[u8]) {
        let client = &mut self.sockets[number];
        assert!(client.close_read.is_none(), "a frame after Close (RFC 6455 section 5.5.1) for client {number}");
        match opcode {
            TEXT => {
                let text = std::str::from_utf8(payload).expect("text frames are UTF-8");
                self.handle_text(number, text);
            }
            PING => {
                let pong = client.frame(PONG, payload);
                self.wires[self.sockets[number].wire].client_write(&pong);
            }
            PONG => {}
            CLOSE => self.handle_close(number, payload),
            other => unreachable!("the reader lets no opcode {other} pass"),
        }
    }

    fn handle_close(&mut self, number: usize, payload: &[u8]) {
        let client = &mut self.sockets[number];
        let code = match payload {
            [] => 1005,
            [high, low, reason @ ..] => {
                assert!(std::str::from_utf8(reason).is_ok(), "a close reason is UTF-8");
                u16::from_be_bytes([*high, *low])
            }
            [_] => panic!("half a close code for client {number}"),
        };
        assert!(
            client.may_close.contains(&code),
            "client {number} was closed with {code}, only {:?} was due",
            client.may_close
        );
        if (4_000..4_300).contains(&code) {
            assert_eq!(
                client.last_error,
                Some(u64::from(code)),
                "Close {code} without its pusher:error before (P-SDK-13)"
            );
        }
        assert!(code < 4_300, "close code {code} (P-SDK-14)");
        client.close_read = Some(code);
        if client.close_sent.is_none() && !client.broken {
            client.send_close(&mut self.wires[client.wire], code);
        }
        self.leave_sessions(number);
    }

    /// The stream of a WebSocket client ended.
    fn end_socket(&mut self, number: usize, end: End) {
        let client = &mut self.sockets[number];
        let excused =
            client.may_vanish || client.close_read.is_some() || (end == End::Reset && client.close_sent.is_some());
        assert!(excused, "client {number} was cut off ({end:?}) without a Close frame");
        assert!(client.may_vanish || client.frames.pending() == 0, "client {number} was cut off within a frame");
        self.system.trace.note(|| format!("client {number} sees {end:?}"));
        self.wires[self.sockets[number].wire].client_finish();
        self.forget_socket(number);
    }

    /// A WebSocket client is gone: what it was owed is owed no more.
    pub(crate) fn forget_socket(&mut self, number: usize) {
        self.leave_sessions(number);
        let client = &mut self.sockets[number];
        client.phase = Phase::Gone;
        let unanswered: Vec<usize> = client.operations[client.pongs as usize..]
            .iter()
            .filter_map(|operation| match operation {
                Operation::ClientEvent { group, .. } => Some(*group),
                Operation::Ping | Operation::Subscribe | Operation::Unsubscribe | Operation::Refused(_) => None,
            })
            .collect();
        for group in unanswered {
            if self.model.publishes[group].outcome == Outcome::Open {
                self.model.answer(&[group], Outcome::Unknown);
            }
        }
    }

    /// The subscriptions of a client end.
    pub(crate) fn leave_sessions(&mut self, number: usize) {
        for session in self.sockets[number].sessions() {
            self.model.sessions[session].live = false;
        }
    }

    fn handle_text(&mut self, number: usize, text: &str) {
        let frame: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("client {number} got {text:?}: {error}"));
        let event = frame["event"].as_str().unwrap_or_else(|| panic!("a frame without event: {text}"));
        let client = &mut self.sockets[number];
        client.last_error = None;
        if client.phase == Phase::Greeting {
            return self.handle_greeting(number, event, &frame);
        }
        match event {
            "pusher:pong" => self.handle_pong(number),
            "pusher:error" => {
                let data = &frame["data"];
                assert!(
                    data.is_object() && data.get("code").is_some(),
                    "an error has code and message (P-SDK-4): {text}"
                );
                client.last_error = data["code"].as_u64();
                let message = data["message"].as_str().expect("an error has a message").to_owned();
                client.complaints.push(Complaint::Error(data["code"].as_u64(), message));
                self.drop_closing_complaint(number);
            }
            "pusher:subscription_error" => self.handle_subscription_error(number, &frame),
            "auth_required" => {
                let channel = frame["channel"].as_str().expect("auth_required names its channel").to_owned();
                client.complaints.push(Complaint::AuthRequired(channel));
            }
            "pusher_internal:subscription_succeeded" => self.handle_succeeded(number, &frame),
            _ => self.handle_channel_event(number, event, &frame),
        }
    }

    /// An error that goes before a Close that may come (P-SDK-13) is no refusal of a message.
    fn drop_closing_complaint(&mut self, number: usize) {
        let client = &mut self.sockets[number];
        if let Some(Complaint::Error(Some(code), _)) = client.complaints.last()
            && client.may_close.contains(&(*code as u16))
            && *code != 4009
        {
            client.complaints.pop();
        }
    }

    /// P-SDK-1: established or an error comes first.
    fn handle_greeting(&mut self, number: usize, event: &str, frame: &Value) {
        let client = &mut self.sockets[number];
        match event {
            "pusher:connection_established" => {
                let data = frame["data"].as_str().expect("data is a string (P-SDK-3)");
                let data: Value = serde_json::from_str(data).expect("data holds JSON");
                assert_eq!(data["activity_timeout"].as_u64(), Some(120), "P-SDK-2");
                let socket_id = data["socket_id"].as_str().expect("a socket id").to_owned();
                client.socket_id = Some(socket_id.clone());
                client.phase = Phase::Open;
                let (high, low) = socket_id.split_once('.').expect("two numbers (P-SDK-23)");
                assert!(
                    high.parse::<u64>().is_ok_and(|high| high >= 1) && low.parse::<u64>().is_ok(),
                    "P-CONN-10: {socket_id}"
                );
                let twins = self.sockets.iter().filter(|other| other.socket_id.as_ref() == Some(&socket_id)).count();
                assert_eq!(twins, 1, "socket id {socket_id} was given twice (P-CONN-10)");
            }
            "pusher:error" => {
                let code = frame["data"]["code"].as_u64().expect("a numeric code before established (P-SDK-5)");
                client.last_error = Some(code);
            }
            other => panic!("the first message of client {number} is {other} (P-SDK-1)"),
        }
    }

    fn handle_pong(&mut self, number: usize) {
        let now = self.system.now.monotonic_ms;
        let client = &mut self.sockets[number];
        let passed = client.settle_operation();
        let operation = client.operations[client.pongs as usize].clone();
        client.pongs += 1;
        if let Operation::ClientEvent { group, .. } = operation {
            let (_, sent) = client.event_sent.remove(0);
            client.event_times.push((sent, now, passed));
            let outcome = if passed { Outcome::Accepted(self.tick) } else { Outcome::Refused };
            check_rate(&client.event_times);
            self.model.answer(&[group], outcome);
        }
    }

    fn handle_subscription_error(&mut self, number: usize, frame: &Value) {
        let app = &self.apps[self.sockets[number].app];
        let client = &mut self.sockets[number];
        let channel = frame["channel"].as_str().expect("it names its channel (P-FAIL-2)").to_owned();
        let data = &frame["data"];
        let kind = data["type"].as_str().expect("it has a type (P-FAIL-2)").to_owned();
        let status = data["status"].as_u64().expect("it has a status (P-FAIL-2)");
        if (kind.as_str(), status) == ("LimitReached", 4_100) && channel.starts_with("presence-") {
            assert!(app.members_max < 100, "{channel} cannot be full");
            let error = client.complaints.pop();
            assert!(
                matches!(error, Some(Complaint::Error(None, _))),
                "pusher:error goes before (P-FAIL-4), not {error:?}"
            );
            let step =
                client.joining_step(&channel).unwrap_or_else(|| panic!("client {number} did not ask for {channel}"));
            step.kind = StepKind::Refused;
            return;
        }
        client.complaints.push(Complaint::SubscriptionError(channel, kind, status));
    }

    fn handle_succeeded(&mut self, number: usize, frame: &Value) {
        let client = &mut self.sockets[number];
        let channel = frame["channel"].as_str().expect("succeeded names its channel (P-OUT-1)").to_owned();
        let data = frame["data"].as_str().expect("data is a string (P-SDK-6)");
        let session = self.model.sessions.len();
        let step = client.joining_step(&channel).unwrap_or_else(|| panic!("client {number} did not ask for {channel}"));
        let StepKind::Joining { user } = std::mem::replace(&mut step.kind, StepKind::Joined(session)) else {
            unreachable!("only a joining step is found");
        };
        let roster = if user.is_some() {
            decode_roster(data)
        } else {
            assert_eq!(data, "{}", "P-SDK-6");
            std::collections::BTreeMap::new()
        };
        if let Some(user) = &user {
            assert!(roster.contains_key(user), "the joiner {user} is in its own roster (P-OUT-2)");
        }
        let live = client.is_subscribed(&channel) && client.close_read.is_none();
        let app = client.app;
        self.model.sessions.push(Session {
            client: number,
            app,
            channel,
            from: self.tick,
            live,
            received: Vec::new(),
            user,
            roster: roster.clone(),
            changed: std::collections::BTreeSet::new(),
        });
        for (user, info) in &roster {
            self.model.check_offer(session, user, info);
        }
    }

    fn handle_channel_event(&mut self, number: usize, event: &str, frame: &Value) {
        let channel = frame["channel"].as_str().unwrap_or_else(|| panic!("client {number} got {frame}"));
        let session = self.sockets[number]
            .session_of(channel)
            .unwrap_or_else(|| panic!("client {number} is not subscribed to {channel} and got {frame}"));
        let data = frame["data"].as_str().unwrap_or_else(|| panic!("data is a string (P-SDK-8): {frame}"));
        match event {
            "pusher_internal:member_added" => {
                let member: Value = serde_json::from_str(data).expect("a member is JSON");
                let user = member["user_id"].as_str().expect("user_id is a string (P-SDK-9)");
                self.model.member_added(session, user, &member["user_info"]);
            }
            "pusher_internal:member_removed" => {
                let member: Value = serde_json::from_str(data).expect("a member is JSON");
                let user = member["user_id"].as_str().expect("user_id is a string (P-SDK-9)");
                self.model.member_removed(session, user);
            }
            name => {
                assert!(!name.starts_with("pusher"), "client {number} got {frame}");
                self.model.receive(session, &Received { name, data, user_id: frame["user_id"].as_str() });
            }
        }
    }

    // HTTP clients.

    /// An HTTP client reads up to `bytes_max` bytes. False when there was nothing to see.
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
        let excused = caller.may_vanish || caller.owed.is_empty();
        assert!(excused, "caller {number} was cut off ({end:?}) with {} answers owed", caller.owed.len());
        assert!(caller.may_vanish || caller.responses.pending() == 0, "caller {number} was cut off within an answer");
        self.wires[caller.wire].client_finish();
        self.forget_caller(number);
    }

    /// An HTTP client is gone: what it had no answer for may have happened or not.
    pub(crate) fn forget_caller(&mut self, number: usize) {
        let caller = &mut self.callers[number];
        caller.gone = true;
        for owed in std::mem::take(&mut caller.owed) {
            self.model.answer(&owed.groups, Outcome::Unknown);
        }
    }

    fn handle_response(&mut self, number: usize, owed: &Owed, response: &Response) {
        let stable = self.store_is_stable_since(owed.started);
        let right =
            owed.statuses.contains(&response.status) || (!stable && owed.statuses_in_flux.contains(&response.status));
        let overloaded = response.status == 503 && (self.scenario.few_slots || self.scenario.large_events);
        assert!(
            right || overloaded,
            "caller {number} got {} {}, owed was {owed:?}, store stable: {stable}",
            response.status,
            response.body.escape_ascii()
        );
        if response.status == 200 {
            self.model.answer(&owed.groups, Outcome::Accepted(self.tick));
            self.check_told(owed, response);
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

    /// After an answer with `Connection: close` nothing that was asked behind it is done (RFC 9112 section 9.6).
    fn abandon_rest(&mut self, number: usize) {
        let caller = &mut self.callers[number];
        caller.ended = true;
        for owed in std::mem::take(&mut caller.owed) {
            assert!(self.draining || owed.statuses.is_empty(), "caller {number} was told to stop, owed was {owed:?}");
            self.model.answer(&owed.groups, Outcome::Refused);
        }
    }

    /// What a 200 tells (P-HTTP-1, P-HTTP-2).
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
            Told::Text => {}
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

/// P-LIM-9: in no span of time more events passed than ten and ten per second.
fn check_rate(times: &[(u64, u64, bool)]) {
    let Some((_, end, _)) = times.last() else { return };
    let mut passed = 0;
    for (sent, _, accepted) in times.iter().rev() {
        passed += u64::from(*accepted);
        let span_ms = end - sent;
        assert!(passed <= 10 + span_ms / 100 + 1, "{passed} client events passed within {span_ms} ms (P-LIM-9)");
    }
}

fn check_error(owed: &Owed, response: &Response) {
    if owed.no_body {
        return;
    }
    match owed.error_style {
        ErrorStyle::Text => {
            let text = std::str::from_utf8(&response.body).expect("an error is text (P-SDK-16)");
            assert!(text.len() > 1 && text.ends_with('\n') && !text.starts_with('{'), "P-STAT-7: {response:?}");
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
