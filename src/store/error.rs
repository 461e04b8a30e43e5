//! Errors of the store: each reads as one line that names cause and fix.

use std::io;
use std::path::{Path, PathBuf};

use heed::MdbError;

use super::created::CreatedWithKey;
use crate::limits;

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory does not exist and the caller may not create it.
    #[error("there is no data directory at {0}: pass the right one with --data, or create it (`mkdir -m 700 {0}`, or start `relay serve --data {0}`)", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The directory exists but nothing was ever stored in it.
    #[error("{0} contains no store (no data.mdb): pass the right directory with --data, or create one with `relay serve` or `relay app create`", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// The data file is gone, but other files show that it existed.
    #[error("the store {0} is missing, but {1} has other files of it ({others}): restore a backup, or move those away too to start empty", path.display(), directory.display())]
    Lost {
        /// The data file.
        path: PathBuf,
        /// Where it was.
        directory: PathBuf,
        /// Names of the files.
        others: String,
    },
    /// The webhook queue is missing from a directory that a server has used.
    #[error("the queue of webhooks {0} is missing: restore it, or create an empty directory there (`mkdir -m 700 {0}`) to continue without the pending webhooks", path.display())]
    LostQueue {
        /// Its folder.
        path: PathBuf,
    },
    /// The directory's name belongs to something that is not a directory.
    #[error("{0} is not a directory: pass another one with --data", path.display())]
    NotADirectory {
        /// The path that was given.
        path: PathBuf,
    },
    /// The directory could not be created.
    #[error("cannot create the data directory {0}: {source}; create it with mode 0700, owned by this user, or pass another with --data", path.display())]
    Unmakeable {
        /// The directory.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A file or the directory belongs to another user.
    #[error("{0} belongs to user {owner} but this process runs as user {user}: run as that user, or `chown {user} {0}`", path.display())]
    WrongOwner {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// This process's effective user.
        user: u32,
    },
    /// Others could read secrets or replace the store (threat T23).
    #[error("{0} is accessible to other users (mode {mode:04o}) and contains secrets: `chmod {fix} {0}`", path.display())]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The expected permission bits, in octal digits.
        fix: &'static str,
    },
    /// A file of the store is a symlink or not a regular file (threat T23).
    #[error("{0} is not a regular file (perhaps a symlink): the store does not follow links; put the file itself there", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Another server serves from this directory.
    #[error("the data directory {0} is in use by another `relay serve` (pid {pid}): stop that one, or pass another directory with --data", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds the lock, `unknown` if it did not record its id.
        pid: String,
    },
    /// The file is damaged or not a store.
    #[error("the store {0} is damaged or not a store of relay ({detail}): restore a backup, or move the file away to start empty", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The fault that was found.
        detail: String,
    },
    /// A newer Relay wrote it.
    #[error("the store {0} has schema {found}, this relay supports schema {known}: use the newer relay that wrote it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Schema of the file.
        found: u32,
        /// The schema that this Relay supports.
        known: u32,
    },
    /// No space, on the disk or in the map, or a disk that accepts no writes. Nothing was changed.
    #[error("cannot write the store {0} ({detail}); nothing was changed: free space or fix the disk, and try again", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// The cause.
        detail: String,
    },
    /// The kernel denies writing.
    #[error("cannot write the store in {0}: {source}; check the owner and mode of the directory and that the file system is not read-only", path.display())]
    Unwritable {
        /// The directory or file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A failing disk, or any other error of the kernel.
    #[error("the store {0} failed: {source}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// The reported error.
        source: io::Error,
    },
    /// No app has this id.
    #[error("there is no app with id {0}: `relay app list` shows all")]
    UnknownApp(String),
    /// No token has this id.
    #[error("there is no token with id {0}: `relay token list` shows all")]
    UnknownToken(String),
    /// No admin token has this id.
    #[error("there is no admin token with id {0}: `relay admin token list` shows all")]
    UnknownAdminToken(String),
    /// No user has this name.
    #[error("there is no user {0}: `relay admin users` shows all")]
    UnknownUser(String),
    /// An app has at most [`limits::TOKENS_PER_APP_MAX`] tokens.
    #[error("app {0} is at its limit of {max} active tokens: revoke one with `relay token revoke` first", max = limits::TOKENS_PER_APP_MAX)]
    TooManyTokens(String),
    /// There are at most [`limits::ADMIN_TOKENS_MAX`] admin tokens.
    #[error("there are {max} active admin tokens, which is the limit: revoke one with `relay admin token revoke` first", max = limits::ADMIN_TOKENS_MAX)]
    TooManyAdminTokens,
    /// There are at most [`limits::USERS_MAX`] users.
    #[error("there are {max} users, which is the limit: remove one with `relay admin passwd --remove` first", max = limits::USERS_MAX)]
    TooManyUsers,
    /// A key to be removed has created tokens or endpoints that are active (threat T43).
    #[error("{}", key_created(.app, .keys, .created))]
    KeyCreated {
        /// The app's id.
        app: String,
        /// The keys.
        keys: Vec<String>,
        /// What they created.
        created: Vec<CreatedWithKey>,
    },
    /// The app was changed since the caller read it (threat T52).
    #[error("app {app} was changed meanwhile, its revision is {found}: read it again")]
    Stale {
        /// The app's id.
        app: String,
        /// Its revision.
        found: u64,
    },
    /// An `Idempotency-Key` was used for another request before (threat T44).
    #[error("this Idempotency-Key was used with another request before: choose a new one")]
    KeyReused,
    /// No webhook endpoint has this id.
    #[error("there is no webhook with id {0}: `relay webhook list` shows all")]
    UnknownWebhook(String),
    /// The app stores no master key.
    #[error("app {0} stores no encryption master key")]
    NoMasterKey(String),
    /// An app has at most [`limits::WEBHOOKS_PER_APP_MAX`] endpoints.
    #[error("app {0} is at its limit of {max} webhooks: remove one with `relay webhook remove` first", max = limits::WEBHOOKS_PER_APP_MAX)]
    TooManyWebhooks(String),
    /// The app has no such key.
    #[error("app {app} has no key {key}: `relay app show {app}` shows its keys")]
    UnknownKey {
        /// The app's id.
        app: String,
        /// The key.
        key: String,
    },
    /// An app already has this id.
    #[error("an app with id {0} exists already: choose another --id, or change it with `relay app set {0}`")]
    AppExists(String),
    /// A key is unique in the store: it alone identifies the app when a client connects.
    #[error("the key {0} belongs to an app already: keys are unique, choose another")]
    KeyTaken(String),
    /// An app keeps at least one key pair.
    #[error("{0} is the only key of its app: `relay app rotate` first, or `relay app disable`")]
    LastKey(String),
    /// An app has at most [`limits::APP_KEYS_MAX`] pairs.
    #[error("app {0} is at its limit of {max} key pairs: run `relay app rotate {0} --remove-old` first", max = limits::APP_KEYS_MAX)]
    TooManyKeys(String),
    /// A value that a record cannot hold; the text describes the accepted values.
    #[error("{0}")]
    Invalid(String),
}

/// The callers list what was created; this is one line.
fn key_created(app: &str, keys: &[String], created: &[CreatedWithKey]) -> String {
    let (count, keys) = (created.len(), keys.join(", "));
    format!(
        "nothing was changed: {count} tokens and webhooks that were created with {keys} of app {app} work on without \
         it; repeat with --revoke-created to end them too, or with --keep-created to keep them"
    )
}

/// An error of a transaction's body: LMDB's own error becomes a [`StoreError`] where the path is known.
#[derive(Debug)]
pub(super) enum Fault {
    Heed(heed::Error),
    Store(StoreError),
    Record(String),
}

impl From<heed::Error> for Fault {
    fn from(error: heed::Error) -> Self {
        Self::Heed(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    /// Converts to the error that the caller sees. `file` is the data file.
    pub(super) fn at(self, file: &Path) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Record(detail) => StoreError::Corrupt { path: file.into(), detail },
            Self::Heed(error) => lmdb_error(error, file),
        }
    }
}

fn lmdb_error(error: heed::Error, file: &Path) -> StoreError {
    let path = file.to_path_buf();
    let detail = error.to_string();
    match error {
        heed::Error::Io(source) => io_error(source, file),
        heed::Error::Mdb(MdbError::MapFull) => {
            StoreError::Full { path, detail: format!("the store is limited to {} MiB", limits::STORE_BYTES_MAX >> 20) }
        }
        heed::Error::Mdb(
            MdbError::Invalid
            | MdbError::VersionMismatch
            | MdbError::Corrupted
            | MdbError::PageNotFound
            | MdbError::Incompatible
            | MdbError::PageFull
            | MdbError::CursorFull
            | MdbError::NotFound,
        )
        | heed::Error::Decoding(_) => StoreError::Corrupt { path, detail },
        heed::Error::Mdb(_) | heed::Error::Encoding(_) | heed::Error::EnvAlreadyOpened => {
            StoreError::Failed { path, source: io::Error::other(detail) }
        }
    }
}

/// Classifies a kernel error on a file of the store.
pub(super) fn io_error(source: io::Error, file: &Path) -> StoreError {
    use io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let path = file.to_path_buf();
    // LMDB reads through its map, so this comes from writes only: LMDB reports a write cut short by a full disk this
    // way.
    if source.raw_os_error() == Some(libc::EIO) {
        let detail = "a write was cut short: the disk is full, at a limit, or failing".into();
        return StoreError::Full { path, detail };
    }
    // The list of kinds is non-exhaustive, so a wildcard is required here.
    #[allow(clippy::wildcard_enum_match_arm)]
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => StoreError::Full { path, detail: source.to_string() },
        PermissionDenied | ReadOnlyFilesystem => StoreError::Unwritable { path, source },
        _ => StoreError::Failed { path, source },
    }
}
