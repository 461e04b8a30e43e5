//! Authorized connections (P-AUTHZ-1): which must be closed and when, which are kept, and which count towards the
//! quota, whatever happens to the app's flag meanwhile.

use crate::client::reader::Reader;
use crate::client::socket::Phase;
use crate::coverage::Happening;
use crate::reference::Tick;
use crate::world::{JUDGED_WITHIN_MS, World};

/// The error before the Close of a connection that did not authorize itself in time.
pub(crate) const NOT_AUTHORIZED: &str = "Connection not authorized within timeout";

/// A point of a run: many steps share one millisecond.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamp {
    tick: Tick,
    /// Time of the monotonic clock, without the time in which no shard had a turn.
    pub(crate) ms: u64,
}

/// Every state of an app's flag, with the time of the change and the time when all shards knew it.
#[derive(Debug)]
pub(crate) struct FlagHistory(Vec<FlagState>);

#[derive(Debug)]
struct FlagState {
    demanded: bool,
    from: Stamp,
    known: Option<Stamp>,
}

impl FlagHistory {
    /// At the start of the run.
    pub(crate) fn new(demanded: bool) -> Self {
        Self(vec![FlagState { demanded, from: Stamp::default(), known: Some(Stamp::default()) }])
    }

    /// True when some shard may have had this state of the flag at some time from `first` to `last`, both included.
    fn may_be(&self, demanded: bool, first: u64, last: u64, point: fn(&Stamp) -> u64) -> bool {
        self.0.iter().enumerate().any(|(at, state)| {
            let replaced = self.0.get(at + 1).and_then(|next| next.known.as_ref());
            state.demanded == demanded && point(&state.from) <= last && replaced.is_none_or(|end| first <= point(end))
        })
    }
}

/// Whether a connection must authorize itself, decided when it opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Duty {
    /// The flag changed while it opened, or it is not open.
    #[default]
    Unknown,
    /// The flag was off.
    Free,
    /// The flag was on.
    Demanded,
}

/// The known facts about a client's authorization.
#[derive(Debug, Default)]
pub(crate) struct AuthorizationView {
    /// When it requested the connection.
    pub(crate) connected: Stamp,
    established: Option<Stamp>,
    duty: Duty,
    /// It read the success of a signin, or of a subscribe to a channel that is not public.
    authorized: bool,
}

/// Whether a connection counts towards its app's quota.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Counted {
    Yes,
    No,
    /// The flag changed while it opened.
    Perhaps,
}

impl AuthorizationView {
    /// Whether it counts, if it is open: a connection past its deadline, kept because the flag was off by then, counts
    /// too.
    fn counted(&self, within_ms: u64, now_ms: u64) -> Counted {
        let over = self.established.is_some_and(|at| at.ms + within_ms + JUDGED_WITHIN_MS <= now_ms);
        match self.duty {
            _ if self.authorized || over => Counted::Yes,
            Duty::Free => Counted::Yes,
            Duty::Demanded if now_ms < self.connected.ms + within_ms => Counted::No,
            Duty::Demanded | Duty::Unknown => Counted::Perhaps,
        }
    }
}

impl World {
    /// This point of the run.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { tick: self.tick, ms: self.system.served_ms() }
    }

    /// The operator turns the flag of the scenario's app on or off.
    pub(crate) fn flip_authorization(&mut self) {
        let Some(app) = self.scenario.authorization else { return };
        let demanded = !self.apps[app].authorized_connections;
        self.system.trace.note(|| format!("app {app} demands authorization: {demanded}"));
        self.apps[app].authorized_connections = demanded;
        let from = self.stamp();
        self.flags[app].0.push(FlagState { demanded, from, known: None });
        self.change_store();
    }

    /// All shards know the current flags.
    pub(crate) fn note_flags_known(&mut self) {
        let stamp = self.stamp();
        for state in self.flags.iter_mut().flat_map(|flag| &mut flag.0) {
            state.known.get_or_insert(stamp);
        }
    }

    /// `connection_established` was read.
    pub(crate) fn note_established(&mut self, number: usize) {
        let stamp = self.stamp();
        let client = &mut self.sockets[number];
        let (first, last) = (client.authorization.connected.tick, stamp.tick);
        let may_be = |demanded| self.flags[client.app].may_be(demanded, first, last, |stamp| stamp.tick);
        client.authorization.established = Some(stamp);
        client.authorization.duty = match (may_be(false), may_be(true)) {
            (true, false) => Duty::Free,
            (false, true) => Duty::Demanded,
            (true, true) | (false, false) => Duty::Unknown,
        };
    }

    /// The client read a success that authorizes it.
    pub(crate) fn note_authorized(&mut self, number: usize) {
        self.sockets[number].authorization.authorized = true;
    }

    /// The client read the error before the Close: a connection must not be closed without need, or before its
    /// deadline.
    pub(crate) fn handle_not_authorized(&mut self, number: usize) {
        let (now_ms, within_ms) = (self.system.served_ms(), self.authorization_ms);
        let client = &mut self.sockets[number];
        let view = &client.authorization;
        assert_eq!(client.phase, Phase::Open, "client {number} had no time to authorize itself (P-AUTHZ-1)");
        assert_ne!(view.duty, Duty::Free, "client {number} is older than what the app demands (P-AUTHZ-1): {view:?}");
        assert!(!view.authorized, "client {number} was authorized and is closed (P-AUTHZ-1)");
        let due_ms = view.connected.ms + within_ms;
        assert!(due_ms <= now_ms, "client {number} is closed {} ms early (P-AUTHZ-1)", due_ms - now_ms);
        let demanded = self.flags[client.app].may_be(true, due_ms, now_ms, |stamp| stamp.ms);
        assert!(demanded, "client {number} is closed although nobody demands authorization any more (P-AUTHZ-1)");
        client.may_close.insert(4009);
        client.must_close = Some(4009);
        self.system.coverage.note(Happening::NotAuthorized);
    }

    /// At rest: a connection past its deadline is closed, or was released because the flag is off.
    pub(crate) fn check_authorization(&mut self) {
        let (now_ms, within_ms) = (self.system.served_ms(), self.authorization_ms);
        for (number, client) in self.sockets.iter().enumerate().filter(|(_, client)| client.can_talk()) {
            let view = &client.authorization;
            let established = view.established.expect("an open client is established");
            if established.ms + within_ms + JUDGED_WITHIN_MS > now_ms {
                continue;
            }
            let flag = &self.flags[client.app];
            let may_be = |demanded| flag.may_be(demanded, view.connected.ms + within_ms, now_ms, |stamp| stamp.ms);
            let happening = match (view.duty, view.authorized, may_be(false), may_be(true)) {
                (Duty::Demanded, false, false, _) => {
                    panic!("client {number} is open and should have authorized itself (P-AUTHZ-1): {view:?}")
                }
                (Duty::Demanded, true, _, true) => Happening::AuthorizedKept,
                (Duty::Demanded, false, true, false) => Happening::UnauthorizedReleased,
                (Duty::Free, false, false, _) => Happening::OlderKept,
                (Duty::Demanded | Duty::Free | Duty::Unknown, ..) => continue,
            };
            self.system.coverage.note(happening);
        }
    }

    /// The connections that count stay within the quota, and a free place can be taken (P-CLOSE-2, P-AUTHZ-1).
    pub(crate) fn check_quota(&mut self) {
        let (now_ms, within_ms) = (self.system.served_ms(), self.authorization_ms);
        let max = self.apps[0].connections_max as usize;
        let open = self.sockets.iter().filter(|client| client.app == 0 && client.can_talk());
        let counted: Vec<Counted> = open.map(|client| client.authorization.counted(within_ms, now_ms)).collect();
        // So do streams and held polls (R-SSE-4, R-POLL-2).
        let reads = |reader: &&Reader| reader.app == 0 && (reader.is_open() || reader.is_asking());
        let reading = self.readers.iter().filter(reads).count();
        let counted: Vec<Counted> = counted.into_iter().chain(std::iter::repeat_n(Counted::Yes, reading)).collect();
        let of = |which| counted.iter().filter(|counted| **counted == which).count();
        let (sure, perhaps) = (of(Counted::Yes), of(Counted::Yes) + of(Counted::Perhaps));
        assert!(max == 0 || sure <= max, "{sure} connections of an app that may have {max} (P-CLOSE-2)");
        if max == 0 || self.scenario.few_slots || self.draining || !self.apps[0].enabled {
            return;
        }
        let demanded = self.apps[0].authorized_connections;
        if !demanded && perhaps >= max {
            return;
        }
        self.tick += 1;
        let newcomer = self.sockets.len();
        self.connect_socket_of(0, "/app/key-0-0?protocol=7");
        self.settle();
        let phase = self.sockets[newcomer].phase;
        assert_eq!(phase, Phase::Open, "{counted:?} of {max} connections, authorization {demanded}: one is refused");
        if !demanded {
            return;
        }
        let private = self.apps[0].channels[1].clone();
        self.subscribe_to(newcomer, private);
        self.settle();
        let is_open = self.sockets[newcomer].can_talk();
        assert!(is_open || perhaps >= max, "{counted:?} of {max} connections count, and one is refused (P-AUTHZ-1)");
        assert!(!is_open || sure < max, "{counted:?} of {max} connections count, and one more may stay (P-CLOSE-2)");
        if !is_open {
            self.system.coverage.note(Happening::AuthorizedOverQuota);
        }
    }
}
