//! The thread between the running shards and the store: it writes `last_used_at` and the messages of the day, and
//! detects changes.
//!
//! Shards never touch the store. They push token uses into a bounded queue, which the store writer drains and merges;
//! it polls the store's version and passes on a new [`Directory`] when another process, or this one, changed something.
//! If the store fails while the server runs, the failure is logged and the operation retried: delivery continues with
//! the last snapshot.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use ipnet::IpNet;

use super::record::TokenRecord;
use super::{CreatedToken, Store, StoreError};
use crate::api::tokens::{ShownToken, encode_token, encode_tokens};
use crate::app::{AppSerial, Directory, MessagesUsed, TokenId};
use crate::limits;
use crate::rfc3339::rfc3339;
use crate::shard::{AnswerId, Change, ChangeKind, ChangeRefused, Changed};

/// Handle of the thread. Dropping it writes everything pending and ends the thread.
pub struct StoreWriter {
    shared: Arc<Shared>,
    /// Bounded, since each shard has a bounded number of changes in flight.
    changes: Sender<Change>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    uses: ArrayQueue<(TokenId, u64)>,
    messages: ArrayQueue<(AppSerial, MessagesUsed)>,
    dropped: AtomicU64,
    stopping: AtomicBool,
}

impl StoreWriter {
    /// Starts the thread. The thread calls `on_change` with a snapshot at once, so that no change since the shards
    /// started is missed, and with a new one at most [`limits::STORE_POLL_MS`] and the time of one commit after an app
    /// or a token was changed.
    pub fn spawn(store: Store, on_change: Box<dyn Fn(Arc<Directory>) + Send>) -> io::Result<Self> {
        Self::spawn_changing(store, on_change, Box::new(|_, _| {}), Vec::new())
    }

    /// Like [`StoreWriter::spawn`], for shards that change the store: `on_changed` is called with the answer to each of
    /// their changes, after `on_change` with the resulting directory. Webhooks may be in `allowed` networks, too.
    pub fn spawn_changing(
        store: Store,
        on_change: Box<dyn Fn(Arc<Directory>) + Send>,
        on_changed: Box<dyn Fn(AnswerId, Changed) + Send>,
        allowed: Vec<IpNet>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            uses: ArrayQueue::new(limits::TOKEN_USES_WAITING_MAX),
            messages: ArrayQueue::new(limits::MESSAGES_WAITING_MAX),
            dropped: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        });
        let (changes, inbox) = channel();
        let audited = store.audit_position().map_err(io::Error::other)?;
        let run = Run {
            store,
            changes: inbox,
            shared: Arc::clone(&shared),
            on_change,
            on_changed,
            allowed,
            version: None,
            audited,
            handed_out: Vec::new(),
            uses: Uses::default(),
            messages: Messages::default(),
            losses_told_ms: 0,
        };
        let thread = thread::Builder::new().name("relay-store".into()).spawn(move || run.run())?;
        Ok(Self { shared, changes, thread: Some(thread) })
    }

    /// Records that a token was used (R-TOKEN-4), at `unix_ms`. Never blocks and takes no lock; it wakes the thread,
    /// which costs a system call, only when the queue is half full.
    pub fn token_used(&self, token: TokenId, unix_ms: u64) {
        let uses = &self.shared.uses;
        if uses.push((token, unix_ms)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if uses.len() > uses.capacity() / 2 {
            self.wake();
        }
    }

    /// Accepts a change from a shard. Never blocks.
    pub fn change(&self, change: Change) {
        // A thread that has ended sends no answers; the process is about to end, too.
        let _ = self.changes.send(change);
        self.wake();
    }

    /// Looks for changes in the store now: this process has just made one.
    pub fn look(&self) {
        self.wake();
    }

    /// Records how many messages an app has published on a day (R-LIM-3). Never blocks and takes no lock; a count that
    /// finds no space is dropped, since the app's next count includes it.
    pub fn messages_counted(&self, app: AppSerial, used: MessagesUsed) {
        let _ = self.shared.messages.push((app, used));
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store writer ended by a panic");
        }
    }
}

/// Directories that are held until all shards have dropped them. A shard lags that many behind only if it has stopped;
/// it may then free any of them.
const DIRECTORIES_HELD_MAX: usize = 4;

/// Dropped token uses are logged at most once in this time, in ms.
const TELL_MS: u64 = 60_000;

/// State owned by the thread.
struct Run {
    store: Store,
    changes: Receiver<Change>,
    shared: Arc<Shared>,
    on_change: Box<dyn Fn(Arc<Directory>) + Send>,
    on_changed: Box<dyn Fn(AnswerId, Changed) + Send>,
    allowed: Vec<IpNet>,
    version: Option<u64>,
    /// The number of the next entry of the audit log that is to be logged.
    audited: u64,
    handed_out: Vec<Arc<Directory>>,
    uses: Uses,
    messages: Messages,
    /// When dropped token uses may be logged again, in ms.
    losses_told_ms: u64,
}

impl Run {
    fn run(mut self) {
        let begin = Instant::now();
        let mut failing = Failing::default();
        loop {
            let stopping = self.shared.stopping.load(Ordering::Acquire);
            while let Some((token, unix_ms)) = self.shared.uses.pop() {
                self.uses.note(token, unix_ms);
            }
            let now_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            let answers = self.make_changes();
            failing.tell("reading changes", self.notice_change());
            failing.tell("reading the audit log", self.log_audit());
            for (id, changed) in answers {
                (self.on_changed)(id, changed);
            }
            if let Some(due) = self.uses.take_due(now_ms, stopping) {
                let written = self.store.record_token_uses(due.iter().map(|(token, at)| (token, *at)));
                if written.is_err() {
                    self.uses.put_back(due);
                }
                failing.tell("writing last_used_at", written);
            }
            while let Some((app, used)) = self.shared.messages.pop() {
                self.messages.waiting.insert(app, used);
            }
            if self.messages.is_due(now_ms, stopping) {
                let written = self.store.record_messages_used(&self.messages.waiting);
                self.messages.note_commit(now_ms, &written);
                failing.tell("writing the messages of the day", written);
            }
            if now_ms >= self.losses_told_ms {
                self.tell_losses(now_ms);
            }
            if stopping {
                return;
            }
            thread::park_timeout(Duration::from_millis(limits::STORE_POLL_MS));
        }
    }

    /// Drops the directories that no shard uses any more. A hundred thousand apps take tens of ms to free, which the
    /// last shard to drop them must not spend.
    fn drop_unused(&mut self) {
        self.handed_out.retain(|directory| Arc::strong_count(directory) > 1);
        let surplus = self.handed_out.len().saturating_sub(DIRECTORIES_HELD_MAX);
        self.handed_out.drain(..surplus);
    }

    fn tell_losses(&mut self, now_ms: u64) {
        let dropped = self.shared.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            self.losses_told_ms = now_ms + TELL_MS;
            tracing::warn!(dropped, "token uses arrived faster than they could be recorded");
        }
    }

    /// Applies the changes that shards requested; the answers are sent once the directory shows the changes.
    fn make_changes(&self) -> Vec<(AnswerId, Changed)> {
        let changes = self.changes.try_iter();
        changes.map(|change| (change.id, self.make(change).unwrap_or_else(|error| refused(&error)))).collect()
    }

    fn make(&self, change: Change) -> Result<Changed, StoreError> {
        match change.what {
            ChangeKind::AddWebhook(new) => {
                let webhook = self.store.add_webhook(&change.actor, &change.app, new, &self.allowed)?;
                let endpoint = webhook.to_endpoint().map_err(|fault| fault.at(&self.store.file()))?;
                Ok(Changed::Added(Box::new(endpoint)))
            }
            ChangeKind::RemoveWebhook(id) => {
                self.store.remove_webhook(&change.actor, Some(&change.app), &id)?;
                Ok(Changed::Removed)
            }
            ChangeKind::AddToken(new) => {
                let CreatedToken { record, token } = self.store.create_token(&change.actor, new)?;
                Ok(Changed::Created(encode_token(&ShownToken { token: Some(token), ..shown(record) })))
            }
            ChangeKind::RevokeToken(id) => {
                self.store.revoke_token(&change.actor, Some(&change.app), &id)?;
                Ok(Changed::Removed)
            }
            ChangeKind::ListTokens => {
                let tokens: Vec<ShownToken> = self.store.tokens(Some(&change.app))?.into_iter().map(shown).collect();
                Ok(Changed::Listed(encode_tokens(&tokens)))
            }
            ChangeKind::NewMasterKey(stored) => {
                let key = self.store.new_master_key(&change.actor, &change.app, stored)?;
                Ok(Changed::MasterKey(key.into(), stored))
            }
            ChangeKind::RemoveMasterKey => {
                self.store.remove_master_key(&change.actor, &change.app)?;
                Ok(Changed::Removed)
            }
        }
    }

    /// Writes new entries of the audit log to the log, also those of other processes (threat T50).
    fn log_audit(&mut self) -> Result<(), StoreError> {
        if self.store.audit_position()? == self.audited {
            return Ok(());
        }
        let (entries, next) = self.store.audit_since(self.audited, limits::AUDIT_LINES_MAX)?;
        let unlogged = (next - self.audited).saturating_sub(entries.len() as u64);
        self.audited = next;
        for entry in entries {
            let changes: Vec<String> = entry.changes.iter().map(ToString::to_string).collect();
            tracing::info!(
                number = entry.number,
                actor = entry.actor,
                actor_id = entry.actor_id,
                address = entry.address,
                app = entry.app,
                subject = entry.subject,
                changes = changes.join(", "),
                "audit: {}",
                entry.action
            );
        }
        if unlogged > 0 {
            tracing::info!("audit: {unlogged} more entries: `relay admin audit` shows them");
        }
        Ok(())
    }

    fn notice_change(&mut self) -> Result<(), StoreError> {
        if Some(self.store.version()?) != self.version {
            let directory = self.store.directory()?;
            let directory = Arc::new(directory);
            self.version = Some(directory.version());
            self.handed_out.push(Arc::clone(&directory));
            (self.on_change)(directory);
        }
        self.drop_unused();
        Ok(())
    }
}

/// A token as its app sees it.
fn shown(record: TokenRecord) -> ShownToken {
    ShownToken {
        id: record.id,
        token: None,
        name: record.name,
        scopes: record.scopes,
        created_at: rfc3339(record.created_at_ms),
        expires_at: record.expires_at_ms.map(rfc3339),
        last_used_at: record.last_used_at_ms.map(rfc3339),
        revoked_at: record.revoked_at_ms.map(rfc3339),
        created_by: record.created_by.as_ref().map(ToString::to_string),
    }
}

/// The cause that a caller of the API may see. Disk errors are shown to the operator only.
fn refused(error: &StoreError) -> Changed {
    #[allow(clippy::wildcard_enum_match_arm, reason = "other causes are not shown to the caller")]
    let cause = match error {
        StoreError::Invalid(text) => ChangeRefused::Invalid(text.clone()),
        StoreError::UnknownWebhook(_) => ChangeRefused::UnknownWebhook,
        StoreError::UnknownToken(_) => ChangeRefused::UnknownToken,
        StoreError::UnknownApp(_) => ChangeRefused::UnknownApp,
        StoreError::NoMasterKey(_) => ChangeRefused::NoMasterKey,
        StoreError::TooManyWebhooks(_) | StoreError::TooManyTokens(_) => ChangeRefused::Invalid(error.to_string()),
        _ => {
            tracing::error!(%error, "a change requested over HTTP was not made");
            ChangeRefused::Unwritable
        }
    };
    Changed::Refused(cause)
}

/// Messages of the day that are not written yet: the newest count of each app. Pure: time is an argument.
#[derive(Default)]
struct Messages {
    waiting: BTreeMap<AppSerial, MessagesUsed>,
    tried_ms: Option<u64>,
}

impl Messages {
    /// True when there is something to write, at most once in [`limits::MESSAGES_COMMIT_MS`] unless `last`.
    fn is_due(&self, now_ms: u64, last: bool) -> bool {
        let early = self.tried_ms.is_some_and(|at| now_ms - at < limits::MESSAGES_COMMIT_MS);
        !self.waiting.is_empty() && (last || !early)
    }

    /// Counts that could not be written wait for the next commit.
    fn note_commit(&mut self, now_ms: u64, written: &Result<(), StoreError>) {
        self.tried_ms = Some(now_ms);
        if written.is_ok() {
            self.waiting.clear();
        }
    }
}

/// Logs when a failure begins and when it ends, not every retry.
#[derive(Default)]
struct Failing {
    what: Vec<&'static str>,
}

impl Failing {
    fn tell(&mut self, what: &'static str, result: Result<(), StoreError>) {
        let before = self.what.contains(&what);
        match result {
            Ok(()) if before => {
                self.what.retain(|failing| *failing != what);
                tracing::info!("the store works again: {what}");
            }
            Ok(()) => {}
            Err(error) if !before => {
                self.what.push(what);
                tracing::error!(%error, "the store fails {what}; Relay continues to serve and retries");
            }
            Err(_) => {}
        }
    }
}

/// Uses that are not written yet, and when each token was last written. Pure: time is an argument.
#[derive(Default)]
struct Uses {
    /// Latest use of a token that is not written, unix ms.
    waiting: HashMap<TokenId, u64>,
    /// When a token was written, on the store writer's clock in ms; forgotten after [`limits::TOKEN_USE_WRITE_MS`].
    written: HashMap<TokenId, u64>,
    committed_ms: Option<u64>,
}

impl Uses {
    fn note(&mut self, token: TokenId, unix_ms: u64) {
        let latest = self.waiting.entry(token).or_insert(unix_ms);
        *latest = (*latest).max(unix_ms);
    }

    /// The uses to commit now, if any: at most one commit in [`limits::TOKEN_USES_COMMIT_MS`] unless `last`, and no
    /// token that was written within [`limits::TOKEN_USE_WRITE_MS`]; those keep waiting.
    fn take_due(&mut self, now_ms: u64, last: bool) -> Option<Vec<(TokenId, u64)>> {
        let early = self.committed_ms.is_some_and(|at| now_ms - at < limits::TOKEN_USES_COMMIT_MS);
        if self.waiting.is_empty() || (early && !last) {
            return None;
        }
        self.written.retain(|_, at| now_ms - *at < limits::TOKEN_USE_WRITE_MS);
        let due: Vec<_> = self.waiting.extract_if(|token, _| !self.written.contains_key(token)).collect();
        if due.is_empty() {
            return None;
        }
        self.committed_ms = Some(now_ms);
        self.written.extend(due.iter().map(|(token, _)| (token.clone(), now_ms)));
        Some(due)
    }

    /// The commit failed: the uses wait for the next one.
    fn put_back(&mut self, due: Vec<(TokenId, u64)>) {
        for (token, unix_ms) in due {
            self.written.remove(&token);
            self.note(token, unix_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(uses: &mut Uses, now_ms: u64, last: bool) -> Vec<(String, u64)> {
        let mut due: Vec<_> =
            uses.take_due(now_ms, last).unwrap_or_default().into_iter().map(|(id, at)| (id.into(), at)).collect();
        due.sort();
        due
    }

    /// R-TOKEN-4: a token is written at most once a minute, all tokens with at most one commit in 30 s, and the latest
    /// use is never lost meanwhile. The test advances the clock.
    #[test]
    fn writes_are_merged_and_spaced() {
        let mut uses = Uses::default();
        assert_eq!(due(&mut uses, 0, false), []);
        uses.note("a".into(), 1_000);
        uses.note("a".into(), 1_002);
        uses.note("a".into(), 1_001);
        assert_eq!(due(&mut uses, 10, false), [("a".into(), 1_002)]);
        uses.note("a".into(), 2_000);
        uses.note("b".into(), 2_001);
        assert_eq!(due(&mut uses, 30_009, false), []);
        assert_eq!(due(&mut uses, 30_010, false), [("b".into(), 2_001)]);
        uses.note("a".into(), 2_500);
        assert_eq!(due(&mut uses, 60_009, false), []);
        assert_eq!(due(&mut uses, 60_010, false), [("a".into(), 2_500)]);
        uses.note("c".into(), 3_000);
        assert_eq!(due(&mut uses, 60_011, true), [("c".into(), 3_000)]);
        assert!(uses.waiting.is_empty());
    }

    /// R-LIM-3: the messages of apps are written at once first, then at most every 30 s with the newest count, and at
    /// the end; a failed commit loses nothing.
    #[test]
    fn messages_are_merged_and_spaced() {
        let (mut messages, app) = (Messages::default(), AppSerial(1));
        assert!(!messages.is_due(0, true));
        messages.waiting.insert(app, MessagesUsed { day: 3, messages: 1 });
        assert!(messages.is_due(5, false));
        messages.note_commit(5, &Ok(()));
        messages.waiting.insert(app, MessagesUsed { day: 3, messages: 2 });
        messages.waiting.insert(app, MessagesUsed { day: 3, messages: 9 });
        assert!(!messages.is_due(30_004, false) && messages.is_due(30_004, true) && messages.is_due(30_005, false));
        messages.note_commit(30_005, &Err(StoreError::Invalid("no room".into())));
        assert!(!messages.is_due(60_004, false) && messages.is_due(60_005, false));
        assert_eq!(messages.waiting.get(&app).map(|used| used.messages), Some(9));
    }

    /// A failed commit loses nothing and is retried with the next one, not at once.
    #[test]
    fn a_failed_commit_waits() {
        let mut uses = Uses::default();
        uses.note("a".into(), 5);
        let taken = uses.take_due(0, false).expect("due");
        uses.put_back(taken);
        uses.note("a".into(), 4);
        assert_eq!(due(&mut uses, 29_999, false), []);
        assert_eq!(due(&mut uses, 30_000, false), [("a".into(), 5)]);
    }
}
