//! Keeps what `explain` needs of the refusals that were logged (R-EXPLAIN-6, threat T55).
//!
//! A shard that writes a line about a refusal puts it in here under a random id, which is in the line too. Writing a
//! line is limited to a few per second and shard, so one lock for all of them is rarely contended, and it is held for
//! microseconds; requests that succeed never come here.
//!
//! Invariant: refusals are kept for [`REFUSAL_KEPT_MS`], in at most [`REFUSAL_BYTES_PER_APP_MAX`] bytes per app and
//! [`REFUSAL_BYTES_MAX`] in all. An app that is refused often drops its own oldest first, and when all is full the app
//! with most does, so nobody drops those of another.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};

use crate::auth::explain::{Kept, RefusalId};
use crate::limits::{REFUSAL_BYTES_MAX, REFUSAL_BYTES_PER_APP_MAX, REFUSAL_KEPT_MS};
use crate::metrics::refusal_log::{LogLine, Refused};

/// The refusals of a process.
pub struct Refusals {
    random: SystemRandom,
    table: Mutex<Table>,
}

/// One refusal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// What was refused.
    pub what: Refused,
    /// The reason, as logged.
    pub reason: &'static str,
    /// Close code or HTTP status, if there is one.
    pub code: Option<u16>,
    /// Id of the app, as logged.
    pub app: Option<Box<str>>,
    /// What is kept of the signature.
    pub kept: Option<Kept>,
}

#[derive(Default)]
struct Table {
    /// By number, so the oldest are first.
    entries: BTreeMap<u64, Entry>,
    ids: HashMap<RefusalId, u64>,
    /// By the app's id; `""` for refusals of no app.
    apps: HashMap<Box<str>, Share>,
    bytes: usize,
    next: u64,
}

struct Entry {
    id: RefusalId,
    at_ms: u64,
    bytes: usize,
    refusal: Refusal,
}

/// What is kept for one app.
#[derive(Default)]
struct Share {
    bytes: usize,
    /// Numbers of its entries, the oldest first.
    numbers: VecDeque<u64>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { random: SystemRandom::new(), table: Mutex::default() }
    }
}

impl Refusals {
    /// Keeps the refusal of a line and returns its id; none if the system has no randomness. The time is monotonic.
    pub fn keep(&self, now_ms: u64, line: &LogLine) -> Option<RefusalId> {
        let mut id = [0; 16];
        self.random.fill(&mut id).ok()?;
        let LogLine { what, reason, code, app, kept, .. } = line;
        let (app, kept) = (app.as_deref().map(Into::into), kept.clone());
        let refusal = Refusal { what: *what, reason, code: *code, app, kept };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.insert(RefusalId(id), now_ms, refusal);
        Some(RefusalId(id))
    }

    /// The refusal with this id. With an app, only if it is that of the app.
    pub fn find(&self, now_ms: u64, app: Option<&str>, id: RefusalId) -> Option<Refusal> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.drop_expired(now_ms);
        let entry = table.entries.get(table.ids.get(&id)?)?;
        let is_of_app = app.is_none_or(|app| entry.refusal.app.as_deref() == Some(app));
        is_of_app.then(|| entry.refusal.clone())
    }
}

impl Table {
    fn insert(&mut self, id: RefusalId, at_ms: u64, refusal: Refusal) {
        self.drop_expired(at_ms);
        let app: Box<str> = refusal.app.clone().unwrap_or_default();
        let bytes = ENTRY_BYTES + refusal.kept.as_ref().map_or(0, Kept::text_bytes);
        let number = self.next;
        self.next += 1;
        let share = self.apps.entry(app.clone()).or_default();
        share.bytes += bytes;
        share.numbers.push_back(number);
        self.bytes += bytes;
        self.ids.insert(id, number);
        self.entries.insert(number, Entry { id, at_ms, bytes, refusal });
        while self.apps.get(&app).is_some_and(|share| share.bytes > REFUSAL_BYTES_PER_APP_MAX) {
            self.drop_oldest_of(&app);
        }
        while self.bytes > REFUSAL_BYTES_MAX {
            let most = self.apps.iter().max_by_key(|(_, share)| share.bytes).map(|(app, _)| app.clone());
            self.drop_oldest_of(&most.expect("something is kept"));
        }
    }

    fn drop_expired(&mut self, now_ms: u64) {
        while let Some((_, entry)) = self.entries.first_key_value() {
            if now_ms.saturating_sub(entry.at_ms) < REFUSAL_KEPT_MS {
                return;
            }
            let app = entry.refusal.app.clone().unwrap_or_default();
            self.drop_oldest_of(&app);
        }
    }

    /// The oldest of all is also the oldest of its app.
    fn drop_oldest_of(&mut self, app: &str) {
        let share = self.apps.get_mut(app).expect("an app with a refusal has a share");
        let number = share.numbers.pop_front().expect("it is not empty");
        let entry = self.entries.remove(&number).expect("a number has its entry");
        share.bytes -= entry.bytes;
        self.bytes -= entry.bytes;
        self.ids.remove(&entry.id);
        if share.numbers.is_empty() {
            self.apps.remove(app);
        }
    }
}

/// The cost of an entry besides its text: the entry, its id in the tables, and the names of app and key.
const ENTRY_BYTES: usize = 768;

const _: () = assert!(std::mem::size_of::<Entry>() + 256 <= ENTRY_BYTES);
const _: () = assert!(REFUSAL_BYTES_PER_APP_MAX <= REFUSAL_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{App, AppKey, AppSerial, AppSettings, Directory};
    use crate::auth::AuthFailure;
    use crate::limits::REFUSAL_TEXT_BYTES_MAX;

    fn line(app: &str, text_bytes: usize) -> LogLine {
        let owner = App {
            serial: AppSerial(1),
            id: app.into(),
            name: "".into(),
            enabled: true,
            keys: vec![AppKey::new("key", "secret")],
            settings: AppSettings::default(),
            encryption_master_key: None,
            webhooks: Default::default(),
        };
        let directory = Directory::new(1, Vec::new(), Vec::new());
        let data = "x".repeat(text_bytes.saturating_sub(4));
        let text = ("1.2", Some("c"), Some(&*data));
        let kept = Kept::of_socket(&directory, &owner, text, "key:00", (AuthFailure::BadSignature, 7));
        assert_eq!(kept.text_bytes(), text_bytes);
        let refused = LogLine::new(Refused::Subscription, "AuthError");
        LogLine { app: Some(app.to_owned()), code: Some(401), kept: Some(kept), ..refused }
    }

    fn kept(refusals: &Refusals, now_ms: u64, ids: &[RefusalId]) -> usize {
        ids.iter().filter(|id| refusals.find(now_ms, None, **id).is_some()).count()
    }

    /// R-EXPLAIN-6, T55: an id is found for ten minutes and not a millisecond longer, only for its app; others are not.
    #[test]
    fn refusals_are_found_for_ten_minutes() {
        let refusals = Refusals::default();
        let id = refusals.keep(5, &line("a", 40)).expect("randomness");
        let found = refusals.find(5, Some("a"), id).expect("it is there");
        assert_eq!((found.reason, found.code, found.app.as_deref()), ("AuthError", Some(401), Some("a")));
        assert_eq!(refusals.find(5, Some("b"), id), None);
        assert!(refusals.find(5, None, id).is_some());
        let mut other = id;
        other.0[15] ^= 1;
        assert_eq!(refusals.find(5, None, other), None);
        assert!(refusals.find(5 + REFUSAL_KEPT_MS - 1, Some("a"), id).is_some());
        assert_eq!(refusals.find(5 + REFUSAL_KEPT_MS, Some("a"), id), None);
        assert_eq!(refusals.table.lock().expect("no panic").bytes, 0);
        let ids: Vec<_> = (0..1_000).map(|_| refusals.keep(5, &line("a", 40)).expect("randomness")).collect();
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 1_000, "ids are random");
    }

    /// T55: an app keeps exactly what fits into its bound, the newest; another app loses nothing by it.
    #[test]
    fn one_app_does_not_drop_those_of_another() {
        let refusals = Refusals::default();
        let quiet = refusals.keep(1, &line("quiet", 40)).expect("randomness");
        let most = REFUSAL_BYTES_PER_APP_MAX / (ENTRY_BYTES + REFUSAL_TEXT_BYTES_MAX);
        let ids: Vec<_> = (0..3 * most)
            .map(|_| refusals.keep(2, &line("loud", REFUSAL_TEXT_BYTES_MAX)).expect("randomness"))
            .collect();
        assert_eq!(kept(&refusals, 2, &ids[..2 * most]), 0);
        assert_eq!(kept(&refusals, 2, &ids[2 * most..]), most);
        assert!(refusals.find(2, Some("quiet"), quiet).is_some());
    }

    /// T55: beyond the bound of all apps the one with most drops its oldest, and the rest keep theirs.
    #[test]
    fn all_apps_together_are_bounded() {
        let refusals = Refusals::default();
        let apps = REFUSAL_BYTES_MAX / REFUSAL_BYTES_PER_APP_MAX + 1;
        let most = REFUSAL_BYTES_PER_APP_MAX / (ENTRY_BYTES + REFUSAL_TEXT_BYTES_MAX);
        let few: Vec<_> = (0..10).map(|_| refusals.keep(1, &line("few", 40)).expect("randomness")).collect();
        for app in 0..apps {
            for _ in 0..most {
                refusals.keep(2, &line(&format!("app-{app}"), REFUSAL_TEXT_BYTES_MAX)).expect("randomness");
            }
        }
        assert_eq!(kept(&refusals, 2, &few), 10);
        let table = refusals.table.lock().expect("no panic");
        assert!(
            table.bytes <= REFUSAL_BYTES_MAX
                && table.bytes > REFUSAL_BYTES_MAX - 2 * ENTRY_BYTES - REFUSAL_TEXT_BYTES_MAX
        );
        assert_eq!(table.entries.len(), table.ids.len());
        assert_eq!(table.bytes, table.entries.values().map(|entry| entry.bytes).sum::<usize>());
        assert!(
            table.apps.values().all(|share| share.bytes > REFUSAL_BYTES_PER_APP_MAX * 9 / 10 || share.bytes < 10_000)
        );
    }
}
