//! A full shard: which connections are closed to serve complete requests (P-CLOSE-2, threat T15).

use super::*;

const SLOTS: u32 = 100;
const KEPT_BACK: u32 = 20;

/// A shard at capacity as its driver sees it: slots are assigned while there are some.
struct Full {
    process: Process,
    live: Vec<ConnectionKey>,
    generation: u32,
}

impl Full {
    fn new() -> Self {
        let mut process = Process::new(1);
        let config = ShardConfig { slots: SLOTS, refusal_slots: KEPT_BACK, ..process.shards[0].context.config.clone() };
        process.shards[0] = Shard::new(config);
        Self { process, live: Vec::new(), generation: 0 }
    }

    /// Removes the connections that the shard closed.
    fn settle(&mut self) {
        for (_, slot, _) in std::mem::take(&mut self.process.closed) {
            self.live.retain(|connection| connection.slot != slot);
        }
    }

    /// Accepts a connection if a slot is free.
    fn accept(&mut self) -> Option<ConnectionKey> {
        self.settle();
        let slot = (0..SLOTS).find(|slot| self.live.iter().all(|connection| connection.slot != *slot))?;
        self.generation += 1;
        let connection = ConnectionKey { slot, generation: self.generation };
        self.live.push(connection);
        let refuse = self.live.len() as u32 > SLOTS - KEPT_BACK;
        let peer = "127.0.0.1:5000".parse().expect("an address");
        self.process.feed(0, Input::Accepted { connection, peer, listener: Listener::Public, refuse });
        self.settle();
        Some(connection)
    }

    /// Accepts a connection as soon as a slot is free, which must be before the time of the oldest silent one is over.
    fn accept_soon(&mut self) -> ConnectionKey {
        for _ in 0..=limits::SILENT_GRACE_MS {
            if let Some(connection) = self.accept() {
                return connection;
            }
            self.process.pass_time(1);
        }
        panic!("no slot became free");
    }

    fn fill_with_sockets(&mut self) -> Vec<ConnectionKey> {
        (0..SLOTS - KEPT_BACK)
            .map(|_| {
                let connection = self.accept().expect("a slot");
                self.process.receive(0, connection, UPGRADE.as_bytes());
                assert!(self.process.take(0, connection).contains("connection_established"));
                connection
            })
            .collect()
    }

    fn is_live(&mut self, connection: ConnectionKey) -> bool {
        self.settle();
        self.live.contains(&connection)
    }

    fn ask(&mut self, connection: ConnectionKey) -> String {
        self.process.take(0, connection);
        self.process.receive(0, connection, b"GET /up HTTP/1.1\r\nHost: h\r\n\r\n");
        self.process.take(0, connection)
    }
}

/// P-CLOSE-2, threat T15: with hundreds of silent connections a second at a full shard, each complete request finds a
/// slot within the time that the oldest silent ones have, and no WebSocket is closed for it.
#[test]
fn silent_connections_make_room() {
    let mut full = Full::new();
    let sockets = full.fill_with_sockets();
    for round in 0..200 {
        for _ in 0..50 {
            full.accept();
        }
        let caller = full.accept_soon();
        assert!(full.ask(caller).ends_with("OK\n"), "round {round}");
        full.process.pass_time(1);
        assert!(full.is_live(caller), "round {round}: whoever made a request goes after the silent ones");
    }
    for socket in sockets {
        assert!(full.is_live(socket));
    }
}

/// P-CLOSE-2: the oldest silent connection is closed first; those that have made a request are kept while there are
/// silent ones, and then the idle ones are closed.
#[test]
fn the_oldest_ends_first() {
    let mut full = Full::new();
    full.fill_with_sockets();
    let callers: Vec<ConnectionKey> = (0..5).map(|_| full.accept().expect("a slot")).collect();
    for caller in &callers {
        assert!(full.ask(*caller).ends_with("OK\n"));
    }
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(full.accept().expect("a slot"));
        full.process.pass_time(limits::SILENT_GRACE_MS + 1);
    }
    let newest = full.accept().expect("a slot");
    assert!(!full.is_live(silent[0]) && full.is_live(silent[1]) && full.is_live(newest));
    for connection in silent.into_iter().skip(1).chain([newest]) {
        full.ask(connection);
    }
    for _ in 0..20 {
        let caller = full.accept_soon();
        assert!(full.ask(caller).ends_with("OK\n"));
    }
    assert!(!full.is_live(callers[0]));
}

/// P-CLOSE-2: a WebSocket that is refused at capacity and does not answer the Close frees its slot at once, before idle
/// callers do.
#[test]
fn refused_sockets_make_room() {
    let mut full = Full::new();
    full.fill_with_sockets();
    let idle = full.accept().expect("a slot");
    full.ask(idle);
    for _ in 0..50 {
        let refused = full.accept().expect("a slot");
        full.process.receive(0, refused, UPGRADE.as_bytes());
        assert!(full.process.take(0, refused).contains("4100"));
    }
    let caller = full.accept().expect("a slot");
    assert!(full.ask(caller).ends_with("OK\n") && full.is_live(idle));
}

/// P-CLOSE-2: a caller that does not read its answers is closed when no other connection can be.
#[test]
fn unread_answers_make_room_last() {
    let mut full = Full::new();
    full.fill_with_sockets();
    let unread: Vec<ConnectionKey> = (0..KEPT_BACK).map(|_| full.accept().expect("a slot")).collect();
    let now = full.process.now;
    for connection in &unread {
        // Nothing is flushed: their pending answers stay with the shard.
        let mut requests = b"GET /up HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
        full.process.shards[0].handle_input(now, Input::Received { connection: *connection, bytes: &mut requests });
    }
    let (mut ended, mut now) = (Vec::new(), now);
    for step in 1..=12 {
        now.monotonic_ms += 100;
        for input in [Input::CaughtUp, Input::CaughtUp, Input::Timeout] {
            full.process.shards[0].handle_input(now, input);
        }
        while let Some(output) = full.process.shards[0].poll_output() {
            if let Output::Close { connection, .. } = output {
                assert!(step * 100 >= limits::SILENT_AT_CAPACITY_MS, "after {step} steps");
                ended.push(connection.slot);
            }
        }
    }
    let oldest: Vec<u32> = unread.iter().map(|connection| connection.slot).take(ended.len()).collect();
    assert_eq!((ended.len() as u32, ended), (KEPT_BACK / 2, oldest));
}

/// P-CLOSE-2: at capacity a connection has a second for a complete request, whichever slot it has; below capacity it
/// has the time of threat T14.
#[test]
fn silence_is_short_at_capacity() {
    let mut full = Full::new();
    let silent: Vec<ConnectionKey> = (0..SLOTS - KEPT_BACK).map(|_| full.accept().expect("a slot")).collect();
    full.process.receive(0, silent[0], b"GET /up HT");
    full.process.pass_time(limits::SILENT_AT_CAPACITY_MS + 1);
    assert!(full.is_live(silent[0]), "nobody wants its slot");
    let late = full.accept().expect("a slot");
    assert!(silent.iter().all(|connection| !full.is_live(*connection)) && full.is_live(late));
    full.process.pass_time(limits::SILENT_AT_CAPACITY_MS);
    assert!(!full.is_live(late));
    let socket = full.accept().expect("a slot");
    full.process.receive(0, socket, UPGRADE.as_bytes());
    assert!(full.process.take(0, socket).contains("connection_established"), "an ordinary slot is free again");
}

/// A full table's worth of slots for two apps, `app-key` and `key-b`.
fn two_apps() -> Full {
    let mut full = Full::new();
    let other = App {
        serial: AppSerial(2),
        id: "2".into(),
        keys: vec![AppKey::new("key-b", "secret-b")],
        ..app_with(AppSettings::default())
    };
    let apps = vec![app_with(AppSettings::default()), other];
    full.process.feed(0, Input::Directory(Arc::new(Directory::new(2, apps, Vec::new()))));
    full
}

/// The answer to a WebSocket of the app with this key.
fn open(full: &mut Full, key: &str) -> (ConnectionKey, String) {
    let connection = full.accept().expect("a slot");
    full.process.receive(0, connection, UPGRADE.replace("app-key", key).as_bytes());
    (connection, full.process.take(0, connection))
}

/// Opens WebSockets of the app until one is refused; returns the open ones.
fn open_all(full: &mut Full, key: &str) -> Vec<ConnectionKey> {
    let mut sockets = Vec::new();
    loop {
        let (connection, answer) = open(full, key);
        if !answer.contains("connection_established") {
            assert!(answer.contains(r#""code":4100"#) && answer.contains("share"), "{answer}");
            full.process.feed(0, Input::Closed { connection });
            full.live.retain(|live| *live != connection);
            return sockets;
        }
        sockets.push(connection);
    }
}

/// P-CLOSE-2: on a server with several apps one leaves a tenth of the slots to the others, which get equal parts as it
/// frees slots; an app alone on its server has all of them.
#[test]
fn one_app_leaves_slots_to_others() {
    let ordinary = (SLOTS - KEPT_BACK) as usize;
    let mut full = two_apps();
    let mut first = open_all(&mut full, "app-key");
    assert_eq!(first.len(), ordinary * 9 / 10);
    let mut second = open_all(&mut full, "key-b");
    assert!(second.len() >= ordinary / 12, "{}", second.len());
    while first.len() > second.len() + 1 {
        for connection in first.split_off(first.len() - 2) {
            full.process.feed(0, Input::Closed { connection });
            full.live.retain(|live| *live != connection);
        }
        second.extend(open_all(&mut full, "key-b"));
        first.extend(open_all(&mut full, "app-key"));
    }
    assert!(second.len() >= ordinary * 2 / 5, "{} and {}", first.len(), second.len());

    let mut alone = Full::new();
    assert_eq!(alone.fill_with_sockets().len(), ordinary);
}

/// P-CLOSE-2, threat T15: callers that keep their connections idle leave slots to WebSockets: beyond their share
/// answers announce that the connection is closed, and silent connections are closed after a second. No request is
/// refused.
#[test]
fn idle_callers_leave_slots_to_sockets() {
    let mut full = Full::new();
    let mut kept = 0;
    for _ in 0..SLOTS - KEPT_BACK {
        let caller = full.accept().expect("a slot");
        let answer = full.ask(caller);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("OK\n"), "{answer}");
        if answer.contains("Connection: close") {
            full.process.feed(0, Input::Closed { connection: caller });
            full.live.retain(|live| *live != caller);
        } else {
            kept += 1;
        }
    }
    assert_eq!(kept, (SLOTS - KEPT_BACK) * 9 / 10);
    let silent = full.accept().expect("a slot");
    full.process.pass_time(limits::SILENT_AT_CAPACITY_MS + 1);
    let mut sockets = 0;
    loop {
        let (connection, answer) = open(&mut full, "app-key");
        if !answer.contains("connection_established") {
            break;
        }
        sockets += 1;
        assert!(full.is_live(connection) && !full.is_live(silent));
    }
    assert_eq!(sockets, (SLOTS - KEPT_BACK) / 10);
}
