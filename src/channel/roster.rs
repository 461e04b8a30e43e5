//! The roster of one presence channel, held by the channel's owner (P-PRES rules).
//!
//! Members are kept in pages, in the order in which they joined. A page stores the text of its members in
//! `subscription_succeeded` (P-OUT-2), so that the frame of a roster of any size is copied together and never encoded
//! again: a join appends to the last page, a leave encodes one page.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use siphasher::sip::SipHasher13;

use crate::limits::ROSTER_BYTES_MAX;
use crate::protocol::server_event::{PresenceSucceeded, encode_member_entry, encode_member_id};
use crate::wire::websocket::{self, Opcode};

/// Members of one page, which one leave re-encodes.
const PAGE_MEMBERS: usize = 32;

/// The users of a presence channel.
#[derive(Debug)]
pub struct Roster {
    /// Keyed by number, in the order in which they were started; none is empty.
    pages: BTreeMap<u64, Page>,
    /// The page of each user.
    page_of: HashMap<Arc<str>, u64, SeededHash>,
    /// Number of the latest page.
    latest: u64,
    /// Pages up to this one accept no further members.
    sealed: u64,
    /// The `subscription_succeeded` frame of the current roster, built at most once per change.
    succeeded: Option<Bytes>,
    /// Bytes of the texts of all members.
    bytes: usize,
}

/// Some members, and their text.
#[derive(Debug, Default)]
struct Page {
    members: Vec<Member>,
    /// Their parts of `ids`, each preceded by a comma.
    ids: Vec<u8>,
    /// Their parts of `hash`, likewise.
    entries: Vec<u8>,
}

/// One user, however many connections it has.
#[derive(Debug)]
pub struct Member {
    /// Identity as a string (P-PRES-1).
    pub user_id: Arc<str>,
    /// `user_info` as raw JSON text, that of the first join (P-PRES-3).
    pub user_info: Option<Arc<str>>,
    connections: u32,
}

/// The effect of a join.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Joined {
    /// The user's first connection: the others must be notified (P-PRES-2).
    First,
    /// A further connection of a member.
    Again,
    /// The channel is full (P-LIM-7); nothing changed.
    Full,
    /// The list of members has reached its maximum text length (P-LIM-7); nothing changed.
    Large,
}

/// The effect of a leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Left {
    /// The user's last connection: the others must be notified (P-PRES-2).
    Last,
    /// The user has other connections.
    StillThere,
}

/// Hashes user ids, which peers choose, with the process's secret (threat T12).
#[derive(Clone, Debug)]
struct SeededHash(SipHasher13);

impl std::hash::BuildHasher for SeededHash {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}

impl Roster {
    /// An empty roster.
    pub fn new(boot_secret: &[u8; 16]) -> Self {
        let hash = SeededHash(SipHasher13::new_with_key(boot_secret));
        Self {
            pages: BTreeMap::new(),
            page_of: HashMap::with_hasher(hash),
            latest: 0,
            sealed: 0,
            succeeded: None,
            bytes: 0,
        }
    }

    /// Number of users.
    pub fn count(&self) -> u32 {
        self.page_of.len() as u32
    }

    /// Adds a connection of a user, unless there would then be more than `members_max` users.
    pub fn join(&mut self, user_id: &Arc<str>, user_info: Option<&Arc<str>>, members_max: u32) -> Joined {
        if let Some(number) = self.page_of.get(user_id) {
            let page = self.pages.get_mut(number).expect("the page of a user exists");
            let at = page.position(user_id);
            page.members[at].connections += 1;
            return Joined::Again;
        }
        if self.count() >= members_max {
            return Joined::Full;
        }
        if self.bytes >= ROSTER_BYTES_MAX {
            return Joined::Large;
        }
        let member = Member { user_id: user_id.clone(), user_info: user_info.cloned(), connections: 1 };
        let number = match self.pages.last_key_value() {
            Some((&last, page)) if page.members.len() < PAGE_MEMBERS && last > self.sealed => last,
            Some(_) | None => {
                self.latest += 1;
                self.latest
            }
        };
        let page = self.pages.entry(number).or_default();
        self.bytes -= page.bytes();
        page.push(member);
        self.bytes += page.bytes();
        self.page_of.insert(user_id.clone(), number);
        self.succeeded = None;
        Joined::First
    }

    /// Removes a connection of a member.
    pub fn leave(&mut self, user_id: &str) -> Left {
        let number = *self.page_of.get(user_id).expect("only who joined leaves");
        let page = self.pages.get_mut(&number).expect("the page of a user exists");
        let at = page.position(user_id);
        page.members[at].connections -= 1;
        if page.members[at].connections > 0 {
            return Left::StillThere;
        }
        self.bytes -= page.bytes();
        page.remove(at);
        self.bytes += page.bytes();
        if page.members.is_empty() {
            self.pages.remove(&number);
        }
        self.page_of.remove(user_id);
        self.succeeded = None;
        Left::Last
    }

    /// The members of the first page from this number on, and that page's number.
    pub fn page(&self, from: u64) -> Option<(u64, &[Member])> {
        self.pages.range(from..).next().map(|(number, page)| (*number, &*page.members))
    }

    /// Members that join from now on are placed on later pages than the one whose number is returned. A list that is
    /// read page by page, up to that one, therefore includes everybody who is present throughout, and nobody twice.
    pub fn seal(&mut self) -> u64 {
        self.sealed = self.latest;
        self.latest
    }

    /// The frame that lists the members for a joining client (P-OUT-2), one for all that join between two changes.
    pub fn succeeded(&mut self, channel: &str) -> Bytes {
        if let Some(frame) = &self.succeeded {
            return frame.clone();
        }
        let frame = Bytes::from(self.encode(channel));
        self.succeeded = Some(frame.clone());
        frame
    }

    fn encode(&self, channel: &str) -> Vec<u8> {
        let around = PresenceSucceeded::new(channel, self.count());
        let commas = 2 * usize::from(!self.pages.is_empty());
        let payload_bytes = around.head.len() + around.middle.len() + around.tail.len() + self.bytes - commas;
        let mut frame = Vec::with_capacity(websocket::header_bytes(payload_bytes) + payload_bytes);
        websocket::encode_header(&mut frame, Opcode::Text, payload_bytes);
        frame.extend_from_slice(&around.head);
        append_list(&mut frame, self.pages.values().map(|page| &*page.ids));
        frame.extend_from_slice(around.middle);
        append_list(&mut frame, self.pages.values().map(|page| &*page.entries));
        frame.extend_from_slice(around.tail);
        frame
    }
}

impl Page {
    fn bytes(&self) -> usize {
        self.ids.len() + self.entries.len()
    }

    fn position(&self, user_id: &str) -> usize {
        let at = self.members.iter().position(|member| &*member.user_id == user_id);
        at.expect("a user is on its page")
    }

    fn push(&mut self, member: Member) {
        encode_member_id(&mut self.ids, &member.user_id);
        encode_member_entry(&mut self.entries, &member.user_id, member.user_info.as_deref());
        self.members.push(member);
    }

    fn remove(&mut self, at: usize) {
        self.members.remove(at);
        let members = std::mem::take(&mut self.members);
        *self = Self { members: Vec::with_capacity(members.len()), ..Self::default() };
        for member in members {
            self.push(member);
        }
    }
}

/// Appends texts that each begin with a comma, without the first comma.
fn append_list<'a>(out: &mut Vec<u8>, mut texts: impl Iterator<Item = &'a [u8]>) {
    if let Some(first) = texts.next() {
        out.extend_from_slice(first.strip_prefix(b",").expect("every part begins with a comma"));
    }
    for text in texts {
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    /// Payload of a text frame of the server.
    fn payload(frame: &[u8]) -> &[u8] {
        assert_eq!(frame[0], 0x81);
        let (length, header) = match frame[1] {
            126 => (usize::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
            127 => (u64::from_be_bytes(frame[2..10].try_into().expect("eight bytes")) as usize, 10),
            length => (usize::from(length), 2),
        };
        assert_eq!(frame.len(), header + length);
        &frame[header..]
    }

    /// P-OUT-2, P-SDK-9, P-PRES-4: byte for byte, with ids and infos that need escapes.
    #[test]
    fn succeeded_as_the_rule_writes_it() {
        let mut roster = Roster::new(&[7; 16]);
        roster.join(&"1".into(), Some(&r#"{"n":"A \"b\""}"#.into()), 9);
        roster.join(&"6\"9".into(), None, 9);
        let frame = roster.succeeded("presence-c");
        assert_eq!(
            std::str::from_utf8(payload(&frame)).expect("UTF-8"),
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-c","data":"{\"presence\":{\"count\":2,\"ids\":[\"1\",\"6\\\"9\"],\"hash\":{\"1\":{\"n\":\"A \\\"b\\\"\"},\"6\\\"9\":null}}}"}"#
        );
        assert_eq!(roster.succeeded("presence-c").as_ptr(), frame.as_ptr(), "made once per change");
        roster.leave("1");
        roster.leave("6\"9");
        assert!(roster.succeeded("presence-c").ends_with(br#"\"count\":0,\"ids\":[],\"hash\":{}}}"}"#));
    }

    /// P-LIM-7: the text of a roster is bounded, whatever number and length of members an app may have; existing
    /// members may join again, and a leave frees space.
    #[test]
    fn texts_of_rosters_are_bounded() {
        let mut roster = Roster::new(&[0; 16]);
        let (first, second): (Arc<str>, Arc<str>) = ("1".into(), "2".into());
        assert_eq!(roster.join(&first, Some(&"\"x\"".into()), 10), Joined::First);
        let own = roster.bytes;
        assert_eq!(own, roster.pages.values().map(Page::bytes).sum::<usize>());
        roster.bytes = ROSTER_BYTES_MAX;
        assert_eq!(roster.join(&second, None, 10), Joined::Large);
        assert_eq!((roster.count(), roster.join(&first, None, 10)), (1, Joined::Again));
        roster.bytes = own;
        assert_eq!(roster.join(&second, None, 10), Joined::First);
        assert_eq!(
            (roster.leave("2"), roster.leave("1"), roster.leave("1")),
            (Left::Last, Left::StillThere, Left::Last)
        );
        assert_eq!(roster.bytes, 0);
    }

    /// P-PRES-2, P-PRES-3, P-LIM-7: one member per user, first info kept, gone with the last connection.
    #[test]
    fn members_are_users() {
        let mut roster = Roster::new(&[7; 16]);
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let (first, second): (Arc<str>, Arc<str>) = ("1".into(), "2".into());
        assert_eq!(roster.join(&alice, Some(&first), 1), Joined::First);
        assert_eq!(roster.join(&alice, Some(&second), 1), Joined::Again);
        assert_eq!(roster.join(&bob, None, 1), Joined::Full);
        let (_, members) = roster.page(0).expect("somebody");
        assert_eq!(members[0].user_info.as_deref(), Some("1"));
        assert_eq!(roster.leave("alice"), Left::StillThere);
        assert_eq!(roster.leave("alice"), Left::Last);
        assert_eq!(roster.count(), 0);
    }

    /// P-HTTP-5: a user that joins while a list is read is placed after the users already listed.
    #[test]
    fn sealed_pages_take_nobody() {
        let mut roster = Roster::new(&[7; 16]);
        roster.join(&"a".into(), None, 9);
        roster.join(&"b".into(), None, 9);
        let end = roster.seal();
        roster.leave("a");
        roster.join(&"a".into(), None, 9);
        let users =
            |from| roster.page(from).map(|(_, members)| members.iter().map(|m| &*m.user_id).collect::<String>());
        assert_eq!((users(0), users(end + 1)), (Some("b".to_owned()), Some("a".to_owned())));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// P-OUT-2: after any joins and leaves over several pages, the frame equals serde_json's encoding of the
        /// members in the order of their joins.
        #[test]
        fn frames_agree_with_a_list(steps in prop::collection::vec((any::<bool>(), 0_u8..120), 0..400)) {
            let mut roster = Roster::new(&[7; 16]);
            let mut model: Vec<String> = Vec::new();
            for (joins, user) in steps {
                let user_id = format!("u\"\\{user}é");
                let at = model.iter().position(|known| *known == user_id);
                match (joins, at) {
                    (true, None) => {
                        let info = (!user.is_multiple_of(3)).then(|| Arc::from(format!(r#"{{"n":[{user},"\n"]}}"#)));
                        prop_assert_eq!(roster.join(&user_id.as_str().into(), info.as_ref(), 1_000), Joined::First);
                        model.push(user_id);
                    }
                    (false, Some(at)) => {
                        prop_assert_eq!(roster.leave(&user_id), Left::Last);
                        model.remove(at);
                    }
                    (true, Some(_)) | (false, None) => {}
                }
            }
            let frame = roster.succeeded("presence-c");
            let frame: Value = serde_json::from_slice(payload(&frame)).expect("JSON");
            let data: Value = serde_json::from_str(frame["data"].as_str().expect("a string")).expect("JSON");
            let info = |user_id: &String| {
                let user: u64 = user_id[3..user_id.len() - 2].parse().expect("a number");
                if user.is_multiple_of(3) { Value::Null } else { json!({"n": [user, "\n"]}) }
            };
            let hash: Map<String, Value> = model.iter().map(|user_id| (user_id.clone(), info(user_id))).collect();
            prop_assert_eq!(data, json!({"presence": {"count": model.len(), "ids": model, "hash": hash}}));
            let mut users = Vec::new();
            let mut from = 0;
            while let Some((number, members)) = roster.page(from) {
                users.extend(members.iter().map(|member| member.user_id.to_string()));
                from = number + 1;
            }
            prop_assert_eq!(&users, &model);
            prop_assert_eq!(roster.count() as usize, model.len());
        }
    }
}
