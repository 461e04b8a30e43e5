//! Actions of HTTP clients: publish in every way that the rules allow, send requests that the rules refuse, and break
//! off.

use serde_json::{Value, json};

use crate::client::caller::{Caller, ErrorStyle, Owed, Told};
use crate::client::sign::signed_query;
use crate::reference::{Group, Model, Origin, Outcome, Publish};
use crate::world::World;

/// One request under construction.
pub(crate) struct Draft {
    method: &'static str,
    path: String,
    /// Its parameters, in their order.
    pub(crate) query: String,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
    pub(crate) owed: Owed,
}

impl World {
    /// A new HTTP client.
    pub(crate) fn connect_caller(&mut self) -> usize {
        let wire = self.connect();
        self.callers.push(Caller::new(wire));
        self.callers.len() - 1
    }

    /// HTTP clients that can send.
    pub(crate) fn talking_callers(&self) -> Vec<usize> {
        (0..self.callers.len()).filter(|number| self.callers[*number].can_talk()).collect()
    }

    /// One step of an HTTP client.
    pub(crate) fn step_caller(&mut self, number: usize) {
        match self.random.weighted(&[60, 8, 16, 3, 3, 3, 2, 2, 6, 4, 12]) {
            0 => {
                for _ in 0..self.random.between(1, 3) {
                    if self.callers[number].can_talk() {
                        self.publish(number, false);
                    }
                }
            }
            1 => self.publish_batch(number),
            2 => self.ask_in_vain(number),
            3 => self.break_off(number),
            4 if self.scenario.bad_input => self.break_http(number),
            5 if self.scenario.bad_input => self.dangle(number),
            6 => self.burst(number),
            8 => {
                let app = self.random.weighted(&[3, 1]);
                self.list_channels(number, app, false);
            }
            9 => self.end_user(number),
            10 => self.replay(number),
            _ => {
                let caller = &mut self.callers[number];
                caller.stalled = !caller.stalled;
                caller.may_vanish = true;
            }
        }
    }

    pub(crate) fn draft(&mut self, method: &'static str, path_end: &str, app: usize) -> Draft {
        let relay = self.random.one_in(3);
        let base = if relay { "/api/v1/apps" } else { "/apps" };
        Draft {
            method,
            path: format!("{base}/{}{path_end}", self.apps[app].id),
            query: String::new(),
            headers: String::new(),
            body: Vec::new(),
            owed: Owed {
                statuses: match (self.apps[app].deleted, self.apps[app].enabled) {
                    (true, _) => vec![404],
                    (false, false) => vec![403],
                    (false, true) => vec![200],
                },
                statuses_in_flux: vec![200, 401, 403, 404],
                groups: Vec::new(),
                started: self.tick,
                app,
                no_body: false,
                error_style: if relay { ErrorStyle::Json } else { ErrorStyle::Text },
                told: Told::Nothing,
                last: false,
                at_rest: false,
                ends: None,
                token: None,
            },
        }
    }

    /// Authenticates the request, in one of the three ways.
    pub(crate) fn authenticate(&mut self, draft: &mut Draft) {
        let app = draft.owed.app;
        let (key, secret) = self.random.pick(&self.apps[app].keys).clone();
        match self.random.below(3) {
            0 => {
                let request = (draft.method, draft.path.as_str(), draft.body.as_slice());
                draft.query = signed_query(request, &draft.query, (&key, &secret), self.system.now.unix_s());
            }
            1 => draft.headers.push_str(&format!("X-Relay-Key: {key}\r\nX-Relay-Secret: {secret}\r\n")),
            _ => {
                let tokens: Vec<usize> = (0..self.tokens.len())
                    .filter(|token| self.tokens[*token].app == app && !self.tokens[*token].expired)
                    .collect();
                let token = &self.tokens[*self.random.pick(&tokens)];
                draft.headers.push_str(&format!("Authorization: Bearer {}\r\n", token.text));
                draft.owed.token = Some(token.id.clone());
                if token.revoked && !self.apps[app].deleted {
                    draft.owed.statuses = if self.apps[app].enabled { vec![401] } else { vec![401, 403] };
                }
            }
        }
    }

    /// The bytes of a request, its body in one piece or in chunks.
    pub(crate) fn encode(&mut self, draft: &Draft) -> Vec<u8> {
        let query = if draft.query.is_empty() { String::new() } else { format!("?{}", draft.query) };
        let mut bytes =
            format!("{} {}{query} HTTP/1.1\r\nHost: relay\r\n{}", draft.method, draft.path, draft.headers).into_bytes();
        if draft.owed.last {
            bytes.extend_from_slice(b"Connection: close\r\n");
        }
        if draft.body.is_empty() {
            bytes.extend_from_slice(b"\r\n");
        } else if self.random.one_in(4) {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            let (first, second) = draft.body.split_at(self.random.between(1, draft.body.len()));
            for chunk in [first, second] {
                if !chunk.is_empty() {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", draft.body.len()).as_bytes());
            bytes.extend_from_slice(&draft.body);
        }
        bytes
    }

    pub(crate) fn send_request(&mut self, number: usize, mut draft: Draft) {
        draft.owed.last = !draft.owed.at_rest && !self.scenario.flood && self.random.one_in(24);
        let bytes = self.encode(&draft);
        self.system.trace.note(|| format!("caller {number} asks {}, owed {:?}", draft.path, draft.owed));
        let caller = &mut self.callers[number];
        self.wires[caller.wire].client_write(&bytes);
        caller.ended |= draft.owed.last;
        caller.owed.push_back(draft.owed);
    }

    /// Some socket to exclude, present or gone: its number and id.
    fn excluded(&mut self, app: usize) -> Option<(usize, String)> {
        if !self.random.one_in(4) {
            return None;
        }
        let known: Vec<usize> = (0..self.sockets.len())
            .filter(|number| self.sockets[*number].app == app && self.sockets[*number].socket_id.is_some())
            .collect();
        if known.is_empty() {
            return None;
        }
        let number = *self.random.pick(&known);
        self.sockets[number].socket_id.clone().map(|id| (number, id))
    }

    fn new_publish(
        &mut self,
        number: usize,
        app: usize,
        channels: Vec<String>,
        excluded: Option<usize>,
    ) -> (Group, Value) {
        let padding = match (self.scenario.large_events, self.random.below(8)) {
            (true, 0..4) if !self.scenario.flood => self.random.between(50_000, 250_000),
            (false, 0) => self.random.between(200, 9_000),
            (true | false, _) => 0,
        };
        self.new_padded(number, app, channels, excluded, padding)
    }

    fn new_padded(
        &mut self,
        number: usize,
        app: usize,
        channels: Vec<String>,
        excluded: Option<usize>,
        padding: usize,
    ) -> (Group, Value) {
        let group = self.model.next_group();
        let data = Model::data_of(group, padding);
        let name = format!("event \"{}\" é", group % 7);
        let mut event = json!({"name": name, "data": data});
        if let Some((_, id)) = excluded.map(|number| (number, self.sockets[number].socket_id.clone())) {
            event["socket_id"] = json!(id);
        }
        self.model.publishes.push(Publish {
            app,
            channels,
            name,
            data,
            user_id: None,
            excluded,
            origin: Origin::Caller(number),
            started: self.tick,
            started_ms: self.system.now.monotonic_ms,
            outcome: Outcome::Open,
        });
        (group, event)
    }

    /// `POST /events` with one or several channels.
    pub(crate) fn publish(&mut self, number: usize, at_rest: bool) {
        let app = self.random.weighted(&[3, 1]);
        let mut channels: Vec<String> =
            (0..self.random.between(1, 3)).map(|_| self.random.pick(&self.apps[app].channels).clone()).collect();
        channels.sort();
        channels.dedup();
        self.publish_to(number, app, channels, at_rest);
    }

    /// `POST /events` to these channels; at rest it requests counts, which are then known.
    pub(crate) fn publish_to(&mut self, number: usize, app: usize, channels: Vec<String>, at_rest: bool) {
        let excluded = self.excluded(app).map(|(number, _)| number);
        let (group, mut event) = self.new_publish(number, app, channels.clone(), excluded);
        let mut draft = self.draft("POST", "/events", app);
        if channels.len() == 1 && self.random.one_in(2) {
            event["channel"] = json!(channels[0]);
        } else {
            event["channels"] = json!(channels);
        }
        if at_rest || self.random.one_in(4) {
            event["info"] = json!("subscription_count,user_count,no_such");
            draft.owed.told = Told::Counts(channels);
        }
        draft.owed.at_rest = at_rest;
        draft.owed.groups.push(group);
        draft.body = event.to_string().into_bytes();
        self.authenticate(&mut draft);
        self.send_request(number, draft);
    }

    /// `POST /batch_events` with this many events of at least this many bytes of data.
    pub(crate) fn publish_padded(&mut self, number: usize, app: usize, channel: &str, events: usize, bytes: usize) {
        let draft = self.draft("POST", "/batch_events", app);
        let mut batch = Vec::new();
        for _ in 0..events {
            let (group, mut event) = self.new_padded(number, app, vec![channel.to_owned()], None, bytes);
            event["channel"] = json!(channel);
            batch.push((group, event));
        }
        self.send_batch(number, draft, batch);
    }

    fn send_batch(&mut self, number: usize, mut draft: Draft, events: Vec<(Group, Value)>) {
        let (groups, batch): (Vec<Group>, Vec<Value>) = events.into_iter().unzip();
        draft.owed.groups = groups;
        draft.body = json!({ "batch": batch }).to_string().into_bytes();
        self.authenticate(&mut draft);
        self.send_request(number, draft);
    }

    /// `GET /channels` with counts, which are known at rest.
    pub(crate) fn list_channels(&mut self, number: usize, app: usize, at_rest: bool) {
        let mut draft = self.draft("GET", "/channels", app);
        let (key, secret) = self.random.pick(&self.apps[app].keys).clone();
        draft.headers = format!("X-Relay-Key: {key}\r\nX-Relay-Secret: {secret}\r\n");
        draft.query = "info=subscription_count,user_count".to_owned();
        draft.owed.told = Told::Listed;
        draft.owed.at_rest = at_rest;
        self.send_request(number, draft);
    }

    /// `POST /users/{id}/terminate_connections`, with an empty body or `{}` (P-HTTP-6).
    fn end_user(&mut self, number: usize) {
        let app = self.random.weighted(&[3, 1]);
        let user = self.draw_user();
        let mut draft = self.draft("POST", &format!("/users/{user}/terminate_connections"), app);
        draft.body = if self.random.one_in(2) { b"{}".to_vec() } else { Vec::new() };
        self.authenticate(&mut draft);
        self.expect_end_of_user(app, &user);
        draft.owed.ends = Some(user);
        self.send_request(number, draft);
    }

    /// `POST /batch_events`.
    fn publish_batch(&mut self, number: usize) {
        let app = self.random.weighted(&[3, 1]);
        let draft = self.draft("POST", "/batch_events", app);
        let mut batch = Vec::new();
        let events = if self.scenario.large_events { 1 } else { self.random.between(1, 5) };
        for _ in 0..events {
            let channel = self.random.pick(&self.apps[app].channels).clone();
            let (group, mut event) = self.new_publish(number, app, vec![channel.clone()], None);
            event["channel"] = json!(channel);
            batch.push((group, event));
        }
        self.send_batch(number, draft, batch);
    }

    /// A request that is refused, or that publishes nothing.
    fn ask_in_vain(&mut self, number: usize) {
        let app = self.random.weighted(&[3, 1]);
        let mut draft = self.draft("POST", "/events", app);
        let enabled = self.apps[app].enabled;
        draft.body = json!({"name": "never", "channel": "room", "data": "never"}).to_string().into_bytes();
        // Whether a disabled app or a bad proof is reported first is not defined.
        let unproven = match (self.apps[app].deleted, enabled) {
            (true, _) => vec![404],
            (false, true) => vec![401],
            (false, false) => vec![401, 403],
        };
        match self.random.below(9) {
            0 => {
                self.authenticate(&mut draft);
                draft.body = draft.body.to_ascii_uppercase();
                draft.headers.clear();
                draft.owed.statuses = unproven;
            }
            1 => {
                draft.path = "/apps/999/events".to_owned();
                draft.owed.statuses = vec![404];
                draft.owed.error_style = ErrorStyle::Text;
            }
            2 => {
                draft.headers = format!("Authorization: Bearer rly_{}\r\n", "z".repeat(40));
                draft.owed.statuses = unproven;
            }
            3 => {
                let token = self
                    .tokens
                    .iter()
                    .find(|token| token.expired || token.app != app)
                    .expect("there is one")
                    .text
                    .clone();
                draft.headers = format!("Authorization: Bearer {token}\r\n");
                draft.owed.statuses = unproven;
            }
            4 => {
                draft.method = if self.random.one_in(3) { "HEAD" } else { "GET" };
                draft.owed.no_body = draft.method == "HEAD";
                draft.path = "/up".to_owned();
                draft.body.clear();
                draft.owed.statuses = vec![200];
                draft.owed.told = Told::Text;
            }
            _ => self.ask_wrongly(&mut draft),
        }
        draft.owed.statuses_in_flux = match draft.owed.told {
            Told::Text => Vec::new(),
            Told::Nothing | Told::Counts(_) | Told::Listed | Told::Replayed(_) => vec![400, 401, 403, 404, 413],
        };
        draft.owed.token = None;
        self.send_request(number, draft);
    }

    /// The body of an authenticated request that violates the rules.
    fn ask_wrongly(&mut self, draft: &mut Draft) {
        let too_long = "x".repeat(self.apps[draft.owed.app].data_bytes_max as usize + 1);
        let (body, status) = match self.random.below(4) {
            0 => ("{\"name\":".to_owned(), 400),
            1 => (json!({"name": "never", "channel": "room", "data": too_long}).to_string(), 413),
            2 => (json!({"name": "pusher:never", "channel": "room", "data": "x"}).to_string(), 400),
            _ => (json!({"name": "never", "channels": ["room", "not a name"], "data": "x"}).to_string(), 400),
        };
        draft.body = body.into_bytes();
        self.authenticate(draft);
        for allowed in &mut draft.owed.statuses {
            if *allowed == 200 {
                *allowed = status;
            }
        }
    }

    /// More concurrent requests than may be pending; long answers where the scenario has them.
    fn burst(&mut self, number: usize) {
        for _ in 0..self.random.between(64, 100) {
            if !self.callers[number].can_talk() {
                return;
            }
            if !self.scenario.long_answers {
                self.publish(number, false);
                continue;
            }
            let mut channels: Vec<String> = (0..90).map(|channel| format!("{}{channel:0>190}", "n")).collect();
            channels.push(self.random.pick(&self.apps[0].channels).clone());
            self.publish_to(number, 0, channels, false);
        }
    }

    /// A request that stays incomplete: its connection is closed in time (threat T14).
    fn dangle(&mut self, number: usize) {
        let caller = &mut self.callers[number];
        self.wires[caller.wire]
            .client_write(b"POST /apps/1/events HTTP/1.1\r\nHost: relay\r\nContent-Length: 10\r\n\r\nabc");
        caller.ended = true;
        caller.may_vanish = true;
        caller.dangling_since_ms = Some(self.system.served_ms());
        let mut draft = self.draft("POST", "/events", 0);
        draft.owed.statuses = vec![408];
        draft.owed.statuses_in_flux = Vec::new();
        draft.owed.error_style = ErrorStyle::Any;
        draft.owed.last = true;
        self.callers[number].owed.push_back(draft.owed);
    }

    /// A request that is never completed.
    fn break_off(&mut self, number: usize) {
        let app = 0;
        let channel = self.random.pick(&self.apps[app].channels).clone();
        let (group, mut event) = self.new_publish(number, app, vec![channel.clone()], None);
        self.model.answer(&[group], Outcome::Refused);
        event["channel"] = json!(channel);
        let mut draft = self.draft("POST", "/events", app);
        draft.body = event.to_string().into_bytes();
        self.authenticate(&mut draft);
        let bytes = self.encode(&draft);
        let cut = self.random.between(1, bytes.len() - 1);
        let caller = &mut self.callers[number];
        let wire = &mut self.wires[caller.wire];
        wire.client_write(&bytes[..cut]);
        caller.ended = true;
        caller.may_vanish = true;
        if self.random.one_in(2) {
            wire.client_finish();
        } else {
            wire.client_reset(self.random.one_in(2));
            self.forget_caller(number);
        }
    }

    /// A request that is refused for its form: answered, then closed (P-HTTP-16, threat T25).
    fn break_http(&mut self, number: usize) {
        let requests: [&[u8]; 6] = [
            b"POST /apps/1/events HTTP/1.1\r\nHost: relay\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST /apps/1/events HTTP/1.1\r\nHost: relay\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
            b"GET /up HTTP/1.1\r\nHost: relay\r\nX-Folded: a\r\n b\r\n\r\n",
            b"GET /up HTTP/1.1\nHost: relay\n\n",
            b"GET /up HTTP/1.1\r\nHost : relay\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ];
        let bytes = *self.random.pick(&requests);
        let mut draft = self.draft("POST", "/events", 0);
        draft.owed.statuses = vec![400];
        draft.owed.statuses_in_flux = Vec::new();
        draft.owed.error_style = ErrorStyle::Any;
        draft.owed.last = true;
        let caller = &mut self.callers[number];
        self.wires[caller.wire].client_write(bytes);
        caller.ended = true;
        caller.owed.push_back(draft.owed);
    }
}
