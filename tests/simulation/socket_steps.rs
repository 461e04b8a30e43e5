//! Actions of WebSocket clients: connect, subscribe and leave, send client events, behave well or badly.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use relay::shard::Listener;
use serde_json::{Value, json};

use crate::apps::{REPLAYS, WITH_IDS};
use crate::client::frames::{BINARY, CONTINUATION, PING, TEXT, encode_raw};
use crate::client::sign::hmac_hex;
use crate::client::socket::{ChannelStep, Complaint, Operation, Phase, SocketClient, StepKind};
use crate::network::Wire;
use crate::reference::{Model, Origin, Outcome, Publish};
use crate::world::World;

impl World {
    /// A new wire to the listener of some shard.
    pub(crate) fn connect(&mut self) -> usize {
        let shard = self.random.below(self.system.shards());
        self.connect_to(shard)
    }

    /// A new wire to the listener of this shard.
    pub(crate) fn connect_to(&mut self, shard: usize) -> usize {
        let number = self.wires.len();
        let [_, _, high, low] = (number as u32).to_be_bytes();
        let proxied = self.random.one_in(8);
        let network = if proxied { 2 } else { 1 };
        let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, network, high, low)), 40_000);
        let smallest = if self.scenario.large_events || self.scenario.long_answers { 16_384 } else { 300 };
        let send_buffer_bytes = smallest.max(*self.random.pick(&[300, 4_096, 65_536, 1 << 20]));
        let mut wire = Wire::new(peer, shard, send_buffer_bytes);
        if proxied && self.random.one_in(2) {
            wire.client_write(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
            wire.client_write(&[10, 0, high, low, 10, 0, 0, 1, 0x9c, 0x40, 0x17, 0x71]);
        }
        self.wires.push(wire);
        self.system.connect(shard, number, Listener::Public);
        number
    }

    /// A WebSocket client connects, to a valid address or an invalid one.
    pub(crate) fn connect_socket(&mut self) {
        let app = self.random.weighted(&[2, 1]);
        let pair = self.random.below(self.apps[app].keys.len());
        let mut path = format!("/app/{}?protocol=7&client=js&version=8.6.0&flash=false", self.apps[app].keys[pair].0);
        let mut must_close = None;
        if self.scenario.bad_input && self.random.one_in(12) {
            let (bad, code) = *self.random.pick(&[
                ("/app/nobody?protocol=7", 4001),
                ("/elsewhere?protocol=7", 4005),
                ("/app/key-0-0?protocol=seven", 4006),
                ("/app/key-0-0?protocol=3", 4007),
            ]);
            path = bad.to_owned();
            must_close = Some(code);
        }
        let wants_ids = self.random.one_in(2);
        if wants_ids {
            path.push_str("&event_ids=true");
        }
        self.connect_socket_of(app, &path);
        self.sockets.last_mut().expect("it was just made").wants_ids = wants_ids;
        let client = self.sockets.last_mut().expect("it was just made");
        client.must_close = must_close;
        client.may_close.extend(must_close);
    }

    /// A WebSocket client connects to this path.
    pub(crate) fn connect_socket_of(&mut self, app: usize, path: &str) {
        let wire = self.connect();
        let mut client = SocketClient::new(wire, app, self.random.next() as u32);
        client.authorization.connected = self.stamp();
        if self.scenario.few_slots || self.scenario.large_events {
            client.may_close.insert(4100);
            client.may_vanish |= self.scenario.large_events;
        }
        if self.scenario.quota && app == 0 {
            client.may_close.insert(if self.apps[0].soft_quota { 4100 } else { 4004 });
        }
        if self.scenario.flood {
            client.may_close.insert(4200);
        }
        if self.draining {
            client.may_close.insert(4200);
        }
        if self.scenario.store_changes {
            client.may_close.extend([4001, 4003]);
        }
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        self.wires[wire].client_write(request.as_bytes());
        self.sockets.push(client);
    }

    /// One step of a client that is connected.
    pub(crate) fn step_socket(&mut self, number: usize) {
        match self.random.weighted(&[34, 14, 24, 6, 6, 4, 4, 4, 10]) {
            0 => self.subscribe(number),
            1 => self.unsubscribe(number),
            2 => {
                let burst = if self.random.one_in(12) { 14 } else { 1 };
                let channel = self.channel_for_event(number);
                for _ in 0..burst {
                    self.send_client_event(number, channel.clone());
                }
            }
            3 => self.send_plain(number),
            4 => self.subscribe_badly(number),
            5 => self.leave(number),
            6 => {
                let client = &mut self.sockets[number];
                client.stalled = !client.stalled;
                client.may_close.insert(4100);
                client.may_vanish = true;
            }
            8 => self.sign_in(number),
            _ if self.scenario.bad_input => self.misbehave(number),
            _ => {}
        }
    }

    /// Text as one frame, or in fragments with a ping between them.
    fn frames_of(&mut self, number: usize, text: &str) -> Vec<u8> {
        let client = &mut self.sockets[number];
        let bytes = text.as_bytes();
        if bytes.len() < 4 || !self.random.one_in(8) {
            return client.frame(TEXT, bytes);
        }
        let cut = self.random.between(1, bytes.len() - 1);
        let mut frames = encode_raw(TEXT, &bytes[..cut], client.next_mask());
        if self.random.one_in(2) {
            frames.extend(client.ping(b"between"));
        }
        frames.extend(client.frame(CONTINUATION, &bytes[cut..]));
        frames
    }

    pub(crate) fn send_message(&mut self, number: usize, message: &Value, operation: Operation) -> u64 {
        let frames = self.frames_of(number, &message.to_string());
        self.send_frames(number, &frames, operation)
    }

    fn send_frames(&mut self, number: usize, frames: &[u8], operation: Operation) -> u64 {
        let client = &mut self.sockets[number];
        self.system
            .trace
            .note(|| format!("client {number} sends operation {} {operation:?}", client.operations.len() + 1));
        client.sent_ms.push(self.system.served_ms());
        client.send(&mut self.wires[client.wire], frames, operation)
    }

    fn channel_of(&mut self, app: usize) -> String {
        let channel = self.random.pick(&self.apps[app].channels).clone();
        // Mostly one of those that every client uses.
        let is_special = channel.starts_with(WITH_IDS) || channel.starts_with(REPLAYS);
        if is_special && !self.random.one_in(3) { self.random.pick(&self.apps[app].channels).clone() } else { channel }
    }

    /// `channel_data` of some user, its id as the roster shows it, and its `user_info`.
    fn channel_data(&mut self, number: usize) -> (String, String, Value) {
        let user = self.random.below(4);
        let info = match self.random.below(3) {
            0 => Value::Null,
            _ => json!({"name": format!("client {number}"), "quote": "\"\\ü"}),
        };
        let id = if user == 0 { json!(7) } else { json!(format!("user-{user}")) };
        let mut data = json!({ "user_id": id });
        if !info.is_null() {
            data["user_info"] = info.clone();
        }
        let shown = if user == 0 { "7".to_owned() } else { format!("user-{user}") };
        (data.to_string(), shown, info)
    }

    fn subscribe(&mut self, number: usize) {
        let channel = self.channel_of(self.sockets[number].app);
        if self.sockets[number].wants_ids || !channel.starts_with(WITH_IDS) {
            self.subscribe_to(number, channel);
        }
    }

    /// A subscribe to this channel.
    pub(crate) fn subscribe_to(&mut self, number: usize, channel: String) {
        let app = self.sockets[number].app;
        let socket_id = self.sockets[number].socket_id.clone().expect("an open client has one");
        let (key, secret) = self.random.pick(&self.apps[app].keys).clone();
        let mut data = json!({ "channel": channel });
        let mut user = None;
        if channel.starts_with("presence-") && self.sockets[number].user.id.is_some() && self.random.one_in(2) {
            // P-USER-5: as the user that is signed in.
            let known = &self.sockets[number].user;
            let (id, info) = (known.id.clone().expect("it is signed in"), known.info.clone());
            data["auth"] = json!(format!("{key}:{}", hmac_hex(&secret, &format!("{socket_id}:{channel}"))));
            self.model.offers.entry((app, channel.clone(), id.clone())).or_default().push(info);
            user = Some(id);
        } else if channel.starts_with("presence-") {
            let (channel_data, shown, info) = self.channel_data(number);
            data["auth"] =
                json!(format!("{key}:{}", hmac_hex(&secret, &format!("{socket_id}:{channel}:{channel_data}"))));
            data["channel_data"] = json!(channel_data);
            self.model.offers.entry((app, channel.clone(), shown.clone())).or_default().push(info);
            user = Some(shown);
        } else if channel.starts_with("private-") {
            data["auth"] = json!(format!("{key}:{}", hmac_hex(&secret, &format!("{socket_id}:{channel}"))));
        }
        let resumed = Box::new(self.resume_members(number, &channel, &mut data));
        let message = json!({"event": "pusher:subscribe", "data": data});
        if let Some(refused) = self.refusal_of_user_channel(number, &channel) {
            self.send_message(number, &message, refused);
            return;
        }
        let client = &self.sockets[number];
        if client.wants(&channel) {
            // Whether the client is still subscribed to a channel with few members is not known while the answer is
            // pending.
            if self.apps[app].members_max < 100 && !client.is_subscribed(&channel) {
                return;
            }
            let expected = Complaint::Error(None, format!("Existing subscription to channel {channel}"));
            self.send_message(number, &message, Operation::Refused(vec![expected]));
            return;
        }
        let operation = self.send_message(number, &message, Operation::Subscribe);
        let steps = self.sockets[number].channels.entry(channel).or_default();
        steps.push(ChannelStep { operation, kind: StepKind::Joining { user, resumed } });
    }

    fn unsubscribe(&mut self, number: usize) {
        let channel = self.channel_of(self.sockets[number].app);
        let message = json!({"event": "pusher:unsubscribe", "data": {"channel": channel}});
        let wanted = self.sockets[number].wants(&channel);
        let operation = self.send_message(number, &message, Operation::Unsubscribe);
        if !wanted {
            return;
        }
        let client = &mut self.sockets[number];
        let steps = client.channels.get_mut(&channel).expect("a wanted channel has steps");
        if let Some(ChannelStep { kind: StepKind::Joined(session), .. }) = steps.last() {
            self.model.end_session(*session, self.system.served_ms());
            self.model.sessions[*session].left_with = Some(operation);
        }
        steps.push(ChannelStep { operation, kind: StepKind::Left });
    }

    /// Some channel, mostly one that allows client events.
    fn channel_for_event(&mut self, number: usize) -> String {
        let client = &self.sockets[number];
        let protected = |channel: &&String| channel.starts_with("private-") || channel.starts_with("presence-");
        let good: Vec<String> =
            client.channels.keys().filter(protected).filter(|channel| client.is_subscribed(channel)).cloned().collect();
        if good.is_empty() || self.random.one_in(6) {
            return self.channel_of(self.sockets[number].app);
        }
        self.random.pick(&good).clone()
    }

    fn send_client_event(&mut self, number: usize, channel: String) {
        let app = self.sockets[number].app;
        let group = self.model.next_group();
        let data = Model::data_of(group, self.random.below(64));
        let name = "client-moved".to_owned();
        let message = json!({"event": name, "channel": channel, "data": data});
        let subscribed = self.sockets[number].is_subscribed(&channel);
        let protected = channel.starts_with("private-") || channel.starts_with("presence-");
        if !self.apps[app].client_events {
            let expected = Complaint::Error(None, "To send client events, you must enable".to_owned());
            self.send_message(number, &message, Operation::Refused(vec![expected]));
            return;
        }
        if !protected || !self.sockets[number].channels.contains_key(&channel) {
            self.send_message(number, &message, Operation::Refused(vec![Complaint::Error(None, String::new())]));
            return;
        }
        if !subscribed {
            return;
        }
        let user_id = match self.sockets[number].last_step(&channel) {
            Some(StepKind::Joined(session)) => self.model.sessions[*session].user.clone(),
            Some(StepKind::Joining { .. } | StepKind::Refused | StepKind::Left) | None => None,
        };
        let now = self.system.now.monotonic_ms;
        let client = &mut self.sockets[number];
        let recent = client.event_times.iter().filter(|(_, answered, _)| answered + 1_100 > now).count();
        let must_pass = recent + client.event_sent.len() < 10;
        client.event_sent.push((group as u64, now));
        self.model.publishes.push(Publish {
            app,
            channels: vec![channel],
            name,
            data,
            user_id,
            excluded: Some(number),
            origin: Origin::Client(number),
            started: self.tick,
            started_ms: self.system.now.monotonic_ms,
            outcome: Outcome::Open,
        });
        self.send_message(number, &message, Operation::ClientEvent { group, must_pass });
    }

    /// A ping, a burst of them, or a message of unusual but valid form.
    fn send_plain(&mut self, number: usize) {
        for _ in 0..self.random.between(1, 4) {
            self.send_message(number, &json!({"event": "pusher:pong", "data": {}}), Operation::Ping);
        }
        // A client that does not read its answers stops its own reading, nothing more.
        let pings = if self.scenario.long_answers { 3_000 } else { 1 };
        let client = &mut self.sockets[number];
        let frames: Vec<u8> = (0..pings).flat_map(|ping| client.ping(format!("{ping:0>110}").as_bytes())).collect();
        self.send_frames(number, &frames, Operation::Ping);
    }

    /// A subscribe that is refused (P-FAIL).
    fn subscribe_badly(&mut self, number: usize) {
        let app = self.sockets[number].app;
        let key = self.apps[app].keys[0].0.clone();
        let name = format!("private-closed-{}", self.random.below(10));
        let auth_error = Complaint::SubscriptionError(name.clone(), "AuthError".to_owned(), 401);
        let (data, expected) = match self.random.below(5) {
            0 => {
                let signature = hmac_hex("another secret", &name);
                let error =
                    Complaint::Error(Some(4009), "Invalid signature: Expected HMAC SHA256 hex digest of ".to_owned());
                (json!({"channel": name, "auth": format!("{key}:{signature}")}), vec![error, auth_error])
            }
            1 => {
                let error = Complaint::Error(Some(4009), "Invalid key in subscription auth data: 'nobody:".to_owned());
                (json!({"channel": name, "auth": format!("nobody:{}", "0".repeat(64))}), vec![error, auth_error])
            }
            2 => {
                let error = Complaint::Error(Some(4009), format!("Auth info required to subscribe to {name}"));
                (json!({"channel": name, "auth": ""}), vec![Complaint::AuthRequired(name), error, auth_error])
            }
            3 => {
                let refused = Complaint::SubscriptionError("not a name".to_owned(), "InvalidChannel".to_owned(), 400);
                (json!({"channel": "not a name"}), vec![Complaint::Error(None, String::new()), refused])
            }
            _ => (json!({"channel": 7}), vec![Complaint::Error(None, String::new())]),
        };
        self.send_message(number, &json!({"event": "pusher:subscribe", "data": data}), Operation::Refused(expected));
    }

    /// A client leaves: in order, half closed, or with a reset.
    pub(crate) fn leave(&mut self, number: usize) {
        let client = &mut self.sockets[number];
        let wire = &mut self.wires[client.wire];
        self.system.trace.note(|| format!("client {number} leaves"));
        match self.random.below(3) {
            0 if client.can_talk() => {
                client.send_close(wire, 1000);
                self.leave_sessions(number);
            }
            1 => {
                wire.client_finish();
                client.may_vanish = true;
                client.broken = true;
                self.leave_sessions(number);
            }
            _ => {
                wire.client_reset(self.random.one_in(2));
                self.forget_socket(number);
            }
        }
    }

    /// A message that the rules answer with an error or a close.
    fn misbehave(&mut self, number: usize) {
        let mask = self.sockets[number].next_mask();
        let (bytes, code) = match self.random.below(12) {
            0 => return self.send_invalid(number, "{\"event\":", "Invalid JSON"),
            1 => return self.send_invalid(number, &"[".repeat(9_000), "Invalid JSON"),
            2 => return self.send_invalid(number, "{\"event\":\"no such thing\"}", ""),
            3 => return self.send_invalid(number, "{\"data\":{}}", "Invalid JSON"),
            4 => (encode_raw(0x80 | BINARY, b"bytes", mask), 1003),
            5 => (encode_raw(0xc0 | TEXT, b"{}", mask), 1002),
            6 => (encode_raw(0x83, b"{}", mask), 1002),
            7 => (vec![0x81, 0x02, b'{', b'}'], 1002),
            8 => (encode_raw(0x80 | TEXT, &[0xff, 0xfe], mask), 1007),
            9 => (encode_raw(0x80 | CONTINUATION, b"{}", mask), 1002),
            10 => (vec![0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4], 1009),
            _ => (encode_raw(PING, b"a ping in fragments", mask), 1002),
        };
        let client = &mut self.sockets[number];
        self.system.trace.note(|| format!("client {number} breaks the rules, {code} is due"));
        client.may_close.insert(code);
        client.must_close = Some(code);
        client.broken = true;
        self.wires[client.wire].client_write(&bytes);
        self.leave_sessions(number);
    }

    fn send_invalid(&mut self, number: usize, text: &str, reason: &str) {
        let frames = self.frames_of(number, text);
        self.send_frames(number, &frames, Operation::Refused(vec![Complaint::Error(None, reason.to_owned())]));
    }

    /// Clients that can take a step.
    pub(crate) fn talking_sockets(&self) -> Vec<usize> {
        (0..self.sockets.len()).filter(|number| self.sockets[*number].can_talk()).collect()
    }

    /// Clients that are not gone.
    pub(crate) fn present_sockets(&self) -> Vec<usize> {
        (0..self.sockets.len()).filter(|number| self.sockets[*number].phase != Phase::Gone).collect()
    }
}
