//! Users of the dashboard: a name, a role and a password, which is kept as its Argon2id hash (R-ADMIN-7, threat T48).
//!
//! Hashing takes tens of ms and [`limits::PASSWORD_HASH_KIB`] of memory, so it happens outside of transactions, and a
//! caller that checks passwords of strangers limits how many it checks at once.

use std::fmt;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use heed::RoTxn;
use serde::{Deserialize, Serialize};

use super::admin_tokens::Role;
use super::audit::{AuditAction, Note};
use super::batch::Batch;
use super::environment::Tables;
use super::error::{Fault, StoreError};
use super::{Store, random, record};
use crate::app::actor::Actor;
use crate::label::Label;
use crate::limits;

/// A user in the store.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub struct UserRecord {
    /// The name, unique.
    pub name: String,
    /// The label of the user's [`Role`].
    pub role: String,
    /// The password's hash in the PHC format; `Debug` does not print it.
    pub password: String,
    /// When the user was created, unix ms.
    pub created_at_ms: u64,
    /// When password or role were last changed, unix ms: a session that began before is no longer valid.
    pub changed_at_ms: u64,
}

impl fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserRecord({}, {}, [secret])", self.name, self.role)
    }
}

impl UserRecord {
    /// The user's role; one that this Relay does not know allows no more than reading.
    pub fn role(&self) -> Role {
        Role::of_label(&self.role).unwrap_or(Role::Viewer)
    }
}

/// A password to set.
pub struct NewPassword {
    /// The user's name; an unknown one is created.
    pub user: String,
    /// The password.
    pub password: String,
    /// The role; `None` leaves that of an existing user, and makes a new one an admin.
    pub role: Option<Role>,
}

impl Store {
    /// All users, by name.
    pub fn users(&self) -> Result<Vec<UserRecord>, StoreError> {
        self.environment().read(|transaction, tables| {
            let mut users = Vec::new();
            for entry in tables.users.iter(transaction)? {
                users.push(record::decode("a user", entry?.1)?);
            }
            Ok(users)
        })
    }

    /// The user with this name.
    pub fn user(&self, name: &str) -> Result<Option<UserRecord>, StoreError> {
        self.environment().read(|transaction, tables| find(transaction, tables, name))
    }

    /// The user, if there is one with this name and password. An unknown name takes as long as a wrong password.
    pub fn check_password(&self, name: &str, password: &str) -> Result<Option<UserRecord>, StoreError> {
        if password.len() > limits::PASSWORD_BYTES_MAX {
            return Ok(None);
        }
        let user = self.user(name)?;
        let hash = user.as_ref().map_or(NOBODY, |user| &user.password);
        let damaged = || Fault::Record(format!("the password hash of user {name:?} is invalid")).at(&self.file());
        let hash = PasswordHash::new(hash).map_err(|_| damaged())?;
        let is_right = Argon2::default().verify_password(password.as_bytes(), &hash).is_ok();
        Ok(user.filter(|_| is_right))
    }

    /// Sets the password of a user, and the role if one is given. Returns the record and whether the user is new.
    pub fn set_password(&self, actor: &Actor, new: &NewPassword) -> Result<(UserRecord, bool), StoreError> {
        check_user_name(&new.user)?;
        check_password(&new.password)?;
        let hash = hash(&new.password)?;
        self.change_all(actor, |batch| {
            let done = put(batch, &new.user, hash, new.role);
            batch.at(done)
        })
    }

    /// Removes a user.
    pub fn remove_user(&self, actor: &Actor, name: &str) -> Result<UserRecord, StoreError> {
        self.change_all(actor, |batch| {
            let removed = remove(batch, name);
            batch.at(removed)
        })
    }
}

/// The hash that a password of an unknown user is compared with. No password has it.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The PHC text of a password's hash with a new salt.
fn hash(password: &str) -> Result<String, StoreError> {
    let params = Params::new(limits::PASSWORD_HASH_KIB, limits::PASSWORD_HASH_PASSES, 1, None);
    let hasher = params.map(|params| Argon2::new(Algorithm::Argon2id, Version::V0x13, params));
    let hasher = hasher.expect("the parameters are constants within Argon2's bounds");
    let hash: PasswordHash = hasher
        .hash_password_with_salt(password.as_bytes(), &random::salt())
        .map_err(|error| StoreError::Invalid(format!("the password cannot be hashed: {error}")))?;
    Ok(hash.to_string())
}

fn put(batch: &mut Batch<'_, '_>, name: &str, hash: String, role: Option<Role>) -> Result<(UserRecord, bool), Fault> {
    let before = find(batch.transaction, batch.tables, name)?;
    if before.is_none() && batch.tables.users.len(batch.transaction)? >= limits::USERS_MAX as u64 {
        return Err(StoreError::TooManyUsers.into());
    }
    let role = role.map(|role| role.label().to_owned());
    let user = UserRecord {
        name: name.into(),
        role: match (&role, &before) {
            (Some(role), _) => role.clone(),
            (None, Some(before)) => before.role.clone(),
            (None, None) => Role::Admin.label().into(),
        },
        password: hash,
        created_at_ms: before.as_ref().map_or(batch.now_ms, |before| before.created_at_ms),
        changed_at_ms: batch.now_ms,
    };
    batch.tables.users.put(batch.transaction, name.as_bytes(), &record::encode(&user))?;
    batch.note(match &before {
        None => Note::new(AuditAction::UserCreate).subject(name).with("role", &user.role).secret("password"),
        Some(before) => {
            let note = Note::new(AuditAction::UserChange).subject(name).secret("password");
            let is_same = before.role == user.role;
            if is_same { note } else { note.change("role", Some(&before.role), Some(&user.role)) }
        }
    });
    Ok((user, before.is_none()))
}

fn remove(batch: &mut Batch<'_, '_>, name: &str) -> Result<UserRecord, Fault> {
    let unknown = || StoreError::UnknownUser(format!("{name:?}"));
    let user = find(batch.transaction, batch.tables, name)?.ok_or_else(unknown)?;
    batch.tables.users.delete(batch.transaction, name.as_bytes())?;
    batch.note(Note::new(AuditAction::UserRemove).subject(name));
    Ok(user)
}

fn find(transaction: &RoTxn<'_>, tables: &Tables, name: &str) -> Result<Option<UserRecord>, Fault> {
    // LMDB refuses keys that are empty or too long instead of not finding them.
    if check_user_name(name).is_err() {
        return Ok(None);
    }
    let bytes = tables.users.get(transaction, name.as_bytes())?;
    bytes.map(|bytes| record::decode("a user", bytes)).transpose()
}

/// Names of users appear in log lines and URLs.
fn check_user_name(name: &str) -> Result<(), StoreError> {
    let max = limits::USER_NAME_BYTES_MAX;
    let fits = (1..=max).contains(&name.len());
    if fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte)) {
        return Ok(());
    }
    Err(StoreError::Invalid(format!("the name of a user must be 1 to {max} of A-Z a-z 0-9 - _ . @ +")))
}

/// The message does not repeat the password.
fn check_password(password: &str) -> Result<(), StoreError> {
    let (min, max) = (limits::PASSWORD_CHARACTERS_MIN, limits::PASSWORD_BYTES_MAX);
    if password.chars().count() >= min && password.len() <= max && !password.chars().any(char::is_control) {
        return Ok(());
    }
    Err(StoreError::Invalid(format!(
        "the password must have at least {min} characters and at most {max} bytes, without control characters"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Missing;

    fn new(user: &str, password: &str, role: Option<Role>) -> NewPassword {
        NewPassword { user: user.into(), password: password.into(), role }
    }

    /// Goal (R-ADMIN-7, threat T48): a password is accepted, its neighbours and unknown users are not, and neither the
    /// file nor debug output contains it. Method: the file's bytes are searched.
    #[test]
    fn passwords_are_hashed() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let actor = Actor::cli(0);
        let password = "correct horse battery";
        let (user, is_new) = store.set_password(&actor, &new("alice", password, None)).expect("set");
        assert!(is_new && user.role() == Role::Admin && !format!("{user:?}").contains("argon2"));
        assert!(user.password.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", user.password);
        assert_eq!(store.check_password("alice", password).expect("checks"), Some(user.clone()));
        for (name, wrong) in
            [("alice", "correct horse batter"), ("alice", ""), ("Alice", password), ("bob", password), ("", password)]
        {
            assert_eq!(store.check_password(name, wrong).expect("checks"), None, "{name} {wrong}");
        }
        let (changed, is_new) =
            store.set_password(&actor, &new("alice", "another password", Some(Role::Viewer))).expect("changed");
        assert!(!is_new && changed.role() == Role::Viewer && changed.created_at_ms == user.created_at_ms);
        assert_eq!(store.check_password("alice", password).expect("checks"), None, "the old one");
        assert!(
            store.set_password(&actor, &new("alice", "a third password", None)).expect("role stays").0.role()
                == Role::Viewer
        );
        let bytes = std::fs::read(directory.path().join("data.mdb")).expect("file");
        for text in [password, "another password"] {
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()));
        }
        store.remove_user(&actor, "alice").expect("removed");
        assert!(store.users().expect("users").is_empty());
        assert!(matches!(store.remove_user(&actor, "alice"), Err(StoreError::UnknownUser(_))));
    }

    /// Names and passwords at their bounds and one beyond; the message contains the bound and not the password.
    #[test]
    fn names_and_passwords_have_bounds() {
        for (name, password, accepted) in [
            ("a", "123456789012", true),
            ("a", "12345678901", false),
            ("a", &"x".repeat(1_024), true),
            ("a", &"x".repeat(1_025), false),
            ("a", "12345678901\n2", false),
            (&"n".repeat(64), "123456789012", true),
            (&"n".repeat(65), "123456789012", false),
            ("", "123456789012", false),
            ("a b", "123456789012", false),
            ("a\u{202e}b", "123456789012", false),
        ] {
            let outcome = check_user_name(name).and_then(|()| check_password(password));
            assert_eq!(outcome.is_ok(), accepted, "{name:?} {password:?}");
            if let Err(error) = outcome {
                assert!(!error.to_string().contains(password), "{error}");
            }
        }
    }

    /// R-ADMIN-7: at the bound a new user is refused and an existing one can still be changed.
    #[test]
    fn users_have_a_bound() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let set = |name: &str| {
            store.change_all(&Actor::cli(0), |batch| {
                let done = put(batch, name, NOBODY.into(), None);
                batch.at(done)
            })
        };
        for number in 0..limits::USERS_MAX {
            assert!(set(&format!("user-{number}")).expect("below the bound").1);
        }
        assert!(matches!(set("one-more"), Err(StoreError::TooManyUsers)));
        assert!(!set("user-0").expect("an existing one").1);
        assert_eq!(store.users().expect("users").len(), limits::USERS_MAX);
    }
}
