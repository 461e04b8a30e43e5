//! What `explain` is answered with: finds the app that a question is about, and the refusal of the log that it names
//! (R-EXPLAIN-7). The search itself is [`crate::auth::explain`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::fault::Fault;
use crate::app::{App, Directory};
use crate::auth::AuthFailure;
use crate::auth::explain::{
    self, Answer, Asked, Question, RefusalId, State, Subject, explain_kept, explain_other, explain_reason,
};
use crate::driver::refusals::{Refusal, Refusals};
use crate::label::Label;
use crate::limits::EXPLAIN_CALLS_PER_MINUTE;
use crate::moment::Moment;
use crate::store::StoreError;
use crate::wire::query::Query;

/// What questions are answered with: the apps as they are served, and the refusals of the log.
pub struct Explainer {
    directory: ArcSwap<Directory>,
    refusals: Arc<Refusals>,
    path_prefix: String,
    callers: Mutex<Callers>,
    /// Held by the only call that searches (threat T54).
    turn: Mutex<()>,
}

/// When each caller who asked recently may ask at full rate again, in ms; entries in the past mean the same as none.
/// There are never more callers than admin credentials.
#[derive(Debug, Default)]
struct Callers {
    free_from_ms: HashMap<String, u64>,
}

impl Explainer {
    /// With these apps and refusals, for a server with this path prefix.
    pub fn new(directory: Arc<Directory>, refusals: Arc<Refusals>, path_prefix: &str) -> Self {
        let path_prefix = path_prefix.trim_end_matches('/').to_owned();
        Self {
            directory: ArcSwap::new(directory),
            refusals,
            path_prefix,
            callers: Mutex::default(),
            turn: Mutex::default(),
        }
    }

    /// Serves these apps from now on.
    pub fn handle_directory(&self, directory: Arc<Directory>) {
        self.directory.store(directory);
    }

    /// Takes one call of a caller.
    ///
    /// # Errors
    /// 429.
    pub(super) fn take(&self, caller: &str, now: Moment) -> Result<(), Fault> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).take(caller, now.monotonic_ms)
    }

    /// The turn to search.
    ///
    /// # Errors
    /// 503 while another call searches.
    pub(super) fn turn(&self) -> Result<MutexGuard<'_, ()>, Fault> {
        self.turn.try_lock().map_err(|_| Fault::unavailable("Another refusal is being explained; try again."))
    }

    /// Explains, in the caller's turn.
    ///
    /// # Errors
    /// 400 and 404.
    pub(super) fn explain(&self, _turn: &MutexGuard<'_, ()>, asked: &Asked, now: Moment) -> Result<Answer, Fault> {
        let directory = &**self.directory.load();
        let state = |app| State { directory, app, path_prefix: &self.path_prefix, now };
        match &asked.subject {
            Subject::Question(question) => {
                let app = app_of(directory, asked.app_id.as_deref(), question)?;
                Ok(explain::explain(&state(app), question))
            }
            Subject::Refusal(id) => {
                let refusal = self.refusal(asked.app_id.as_deref(), *id, now)?;
                let app = refusal.app.as_deref().and_then(|id| directory.app_by_id(id));
                Ok(match (refusal.kept, app, AuthFailure::of_label(refusal.reason)) {
                    (Some(kept), Some(app), _) => explain_kept(&state(app), &kept),
                    (_, _, Some(failure)) => explain_reason(failure),
                    (..) => explain_other(refusal.what.label(), refusal.reason),
                })
            }
        }
    }

    fn refusal(&self, app: Option<&str>, id: RefusalId, now: Moment) -> Result<Refusal, Fault> {
        self.refusals.find(now.monotonic_ms, app, id).ok_or_else(|| {
            Fault::not_found("There is no such refusal: its server explains it for 10 minutes, by its app alone.")
        })
    }
}

impl Callers {
    fn take(&mut self, caller: &str, now_ms: u64) -> Result<(), Fault> {
        const SHARE_MS: u64 = 60_000 / EXPLAIN_CALLS_PER_MINUTE;
        self.free_from_ms.retain(|_, free_from_ms| *free_from_ms > now_ms);
        let free_from_ms = self.free_from_ms.get(caller).copied().unwrap_or(now_ms) + SHARE_MS;
        let excess_ms = (free_from_ms - now_ms).saturating_sub(60_000);
        if excess_ms > 0 {
            let message = format!("A credential explains at most {EXPLAIN_CALLS_PER_MINUTE} refusals a minute.");
            return Err(Fault::too_many(message, u32::try_from(excess_ms.div_ceil(1_000)).unwrap_or(u32::MAX)));
        }
        self.free_from_ms.insert(caller.to_owned(), free_from_ms);
        Ok(())
    }
}

/// The app that is meant: the one given, or else the one that the path or the key names, or else the only one.
fn app_of<'a>(directory: &'a Directory, id: Option<&str>, question: &Question) -> Result<&'a App, Fault> {
    if let Some(id) = id {
        return directory.app_by_id(id).map(|app| &**app).ok_or_else(|| StoreError::UnknownApp(id.to_owned()).into());
    }
    let named = match question {
        Question::Channel { auth, .. } | Question::User { auth, .. } => {
            auth.rsplit_once(':').and_then(|(key, _)| app_of_key(directory, key))
        }
        Question::Request { target, headers, .. } => {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let id = path.split_once("/apps/").and_then(|(_, rest)| rest.split('/').next());
            let key = Query::new(Some(query)).first("auth_key").map(std::borrow::Cow::into_owned);
            let header = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("X-Relay-Key"));
            let key = key.or(header.map(|(_, value)| value.clone()));
            id.and_then(|id| directory.app_by_id(id)).or_else(|| app_of_key(directory, key.as_deref()?))
        }
    };
    let mut apps = directory.apps();
    match (named, apps.next(), apps.next()) {
        (Some(app), ..) | (None, Some(app), None) => Ok(app),
        (None, ..) => {
            Err(Fault::bad_request("app_id is missing (on the command line --app ID): no app has this key or id."))
        }
    }
}

/// The app with this key, or with this secret in the place of the key.
fn app_of_key<'a>(directory: &'a Directory, key: &str) -> Option<&'a Arc<App>> {
    let bare = key.trim_matches(|c: char| !c.is_alphanumeric());
    let has_secret = |app: &&Arc<App>| app.keys.iter().any(|pair| pair.secret.matches(bare.as_bytes()));
    directory.app_by_key(bare).or_else(|| directory.apps().find(has_secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-EXPLAIN-7: a minute's calls at once, then one for each share of a minute; callers do not slow each other down,
    /// and a caller who waited is forgotten.
    #[test]
    fn calls_are_limited_per_credential() {
        let mut callers = Callers::default();
        for _ in 0..EXPLAIN_CALLS_PER_MINUTE {
            callers.take("adm_a", 7).expect("within the limit");
        }
        assert_eq!(callers.take("adm_a", 7).expect_err("beyond").status(), 429);
        callers.take("adm_b", 7).expect("another caller");
        let share_ms = 60_000 / EXPLAIN_CALLS_PER_MINUTE;
        assert!(callers.take("adm_a", 6 + share_ms).is_err());
        callers.take("adm_a", 7 + share_ms).expect("one share later");
        callers.take("adm_c", 1_000_000).expect("much later");
        assert_eq!(callers.free_from_ms.len(), 1, "the others are forgotten");
    }
}
