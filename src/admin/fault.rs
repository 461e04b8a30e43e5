//! Why an operation was not done, and how that is answered (R-ERR-1).

use serde_json::{Value, json};

use crate::api::refusal::Refusal;
use crate::rfc3339::rfc3339;
use crate::store::{CreatedWithKey, StoreError};

/// A refusal or failure.
#[derive(Debug)]
pub enum Fault {
    /// The store's own error. Faults of the disk are for the operator: over HTTP their text is not shown.
    Store(StoreError),
    /// An answer of this status with this sentence.
    Answer {
        /// The status, 4xx or 5xx.
        status: u16,
        /// The cause, one sentence.
        message: String,
        /// Seconds for `Retry-After`.
        retry_after_s: Option<u32>,
    },
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let Refusal { status, message, retry_after_s, .. } = refusal;
        Self::Answer { status, message, retry_after_s }
    }
}

/// The text for the command line, with every detail.
impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Answer { message, .. } => f.write_str(message),
        }
    }
}

impl Fault {
    /// An answer without `Retry-After`.
    pub(super) fn answer(status: u16, message: impl Into<String>) -> Self {
        Self::Answer { status, message: message.into(), retry_after_s: None }
    }

    /// 400.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::answer(400, message)
    }

    /// 401: one text for every cause, so that no answer tells an expired token from an unknown one.
    pub(super) fn unauthorized() -> Self {
        Self::answer(401, "An admin token is required: Authorization: Bearer rly_adm_... (relay admin token create).")
    }

    /// 403.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::answer(403, message)
    }

    /// 404.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::answer(404, message)
    }

    /// 415.
    pub(super) fn unsupported_type(message: impl Into<String>) -> Self {
        Self::answer(415, message)
    }

    /// 421: the request is for another server (threat T45).
    pub(super) fn wrong_host(message: impl Into<String>) -> Self {
        Self::answer(421, message)
    }

    /// 429 instead of 401 for an address that guesses.
    pub(super) fn too_many_failures() -> Self {
        Self::too_many("Too many failed credentials from this address; try again in a minute.", 60)
    }

    /// 429, and the seconds until the next try.
    pub(super) fn too_many(message: impl Into<String>, seconds: u32) -> Self {
        Self::Answer { status: 429, message: message.into(), retry_after_s: Some(seconds) }
    }

    /// 503: nothing was done.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::Answer { status: 503, message: message.into(), retry_after_s: Some(1) }
    }

    /// The status of its answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::Store(error) => status_of(error),
            Self::Answer { status, .. } => *status,
        }
    }

    /// The tokens and endpoints that keys had created, if that is why these were not removed (threat T43).
    pub fn created(&self) -> Vec<Value> {
        match self {
            Self::Store(StoreError::KeyCreated { created, .. }) => created.iter().map(encode_created).collect(),
            Self::Store(_) | Self::Answer { .. } => Vec::new(),
        }
    }

    /// Seconds for `Retry-After`.
    pub(super) fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Store(_) => None,
            Self::Answer { retry_after_s, .. } => *retry_after_s,
        }
    }

    /// The sentence for a caller over HTTP.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Store(error) if self.status() == 503 => {
                tracing::error!(%error, "the admin API cannot use the store");
                "The store cannot be read or written, and nothing was changed; the log of the server has the cause."
                    .to_owned()
            }
            Self::Store(error) => error.to_string(),
            Self::Answer { message, .. } => message.clone(),
        }
    }
}

/// A token or webhook endpoint that a removed key had created.
pub(super) fn encode_created(item: &CreatedWithKey) -> Value {
    let CreatedWithKey { kind, id, name, created_by, created_at_ms } = item;
    let (created_by, created_at) = (created_by.to_string(), rfc3339(*created_at_ms));
    json!({ "kind": kind, "id": id, "name": name, "created_by": created_by, "created_at": created_at })
}

/// The status of the store's errors: the caller's mistakes by their kind, faults of the disk 503.
fn status_of(error: &StoreError) -> u16 {
    match error {
        StoreError::Invalid(_) => 400,
        StoreError::UnknownApp(_)
        | StoreError::UnknownToken(_)
        | StoreError::UnknownAdminToken(_)
        | StoreError::UnknownUser(_)
        | StoreError::UnknownWebhook(_)
        | StoreError::UnknownKey { .. }
        | StoreError::NoMasterKey(_) => 404,
        StoreError::AppExists(_)
        | StoreError::KeyTaken(_)
        | StoreError::LastKey(_)
        | StoreError::TooManyKeys(_)
        | StoreError::TooManyWebhooks(_)
        | StoreError::TooManyTokens(_)
        | StoreError::TooManyAdminTokens
        | StoreError::TooManyUsers
        | StoreError::KeyCreated { .. }
        | StoreError::KeyReused => 409,
        StoreError::Stale { .. } => 412,
        StoreError::Missing { .. }
        | StoreError::Empty { .. }
        | StoreError::Lost { .. }
        | StoreError::LostQueue { .. }
        | StoreError::NotADirectory { .. }
        | StoreError::Unmakeable { .. }
        | StoreError::WrongOwner { .. }
        | StoreError::Exposed { .. }
        | StoreError::NotAFile { .. }
        | StoreError::InUse { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Newer { .. }
        | StoreError::Full { .. }
        | StoreError::Unwritable { .. }
        | StoreError::Failed { .. } => 503,
    }
}
