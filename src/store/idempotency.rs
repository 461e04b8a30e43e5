//! `Idempotency-Key` of a request that creates something (R-ADMIN-8, threat T44): a repeat finds the record that the
//! first request created. Only hashes are kept, never the answer, so a repeat cannot show a secret again; they are
//! written in the transaction of the creation, so no crash lets a repeat create a second record.

use std::collections::BTreeSet;

use heed::RoTxn;
use ring::digest::{SHA256, digest};

use super::batch::Batch;
use super::environment::Tables;
use super::error::{Fault, StoreError};
use crate::limits;

/// The identity of a request that creates something.
#[derive(Clone, Debug)]
pub struct Idempotency<'a> {
    /// The credential: its kind and public name.
    pub credential: &'a str,
    /// Method and path.
    pub route: &'a str,
    /// The value of the header.
    pub key: &'a str,
    /// The body of the request.
    pub body: &'a [u8],
}

impl Batch<'_, '_> {
    /// The id of the record that this request created before, within [`limits::IDEMPOTENCY_MS`].
    ///
    /// # Errors
    /// [`StoreError::KeyReused`] if the key belongs to a request with another body.
    pub fn repeated(&self, request: &Idempotency<'_>) -> Result<Option<String>, StoreError> {
        let found = find(self, request);
        match self.at(found)? {
            Some(entry) if entry.body != hash(&[request.body]) => Err(StoreError::KeyReused),
            Some(entry) => Ok(Some(entry.id)),
            None => Ok(None),
        }
    }

    /// Remembers the record that this request creates in this batch. At a bound the oldest key is forgotten.
    pub fn remember(&mut self, request: &Idempotency<'_>, id: &str) -> Result<(), StoreError> {
        let done = remember(self, request, id);
        self.at(done)
    }
}

const HASH_BYTES: usize = 32;

/// A remembered request.
struct Entry {
    at_ms: u64,
    body: [u8; HASH_BYTES],
    id: String,
}

impl Entry {
    fn encode(&self) -> Vec<u8> {
        [&self.at_ms.to_be_bytes()[..], &self.body, self.id.as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let damaged = || Fault::Record("a remembered Idempotency-Key is invalid".into());
        let (at_ms, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let (body, id) = rest.split_first_chunk().ok_or_else(damaged)?;
        let id = String::from_utf8(id.to_vec()).map_err(|_| damaged())?;
        Ok(Self { at_ms: u64::from_be_bytes(*at_ms), body: *body, id })
    }
}

/// SHA-256 of the parts, each with its length, so that no two lists of parts are the same bytes.
fn hash(parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| [&part.len().to_be_bytes()[..], part].concat()).collect();
    digest(&SHA256, &bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The credential's hash, then that of route and key: the keys of a credential are adjacent.
fn key_of(request: &Idempotency<'_>) -> Vec<u8> {
    let Idempotency { credential, route, key, .. } = request;
    [hash(&[credential.as_bytes()]), hash(&[route.as_bytes(), key.as_bytes()])].concat()
}

fn is_over(entry: &Entry, now_ms: u64) -> bool {
    entry.at_ms.saturating_add(limits::IDEMPOTENCY_MS) <= now_ms
}

fn find(batch: &Batch<'_, '_>, request: &Idempotency<'_>) -> Result<Option<Entry>, Fault> {
    let bytes = batch.tables.idempotency.get(batch.transaction, &key_of(request))?;
    let entry = bytes.map(Entry::decode).transpose()?;
    Ok(entry.filter(|entry| !is_over(entry, batch.now_ms)))
}

fn remember(batch: &mut Batch<'_, '_>, request: &Idempotency<'_>, id: &str) -> Result<(), Fault> {
    let key = key_of(request);
    for forgotten in surplus(batch.transaction, batch.tables, &key, batch.now_ms)? {
        batch.tables.idempotency.delete(batch.transaction, &forgotten)?;
    }
    let entry = Entry { at_ms: batch.now_ms, body: hash(&[request.body]), id: id.into() };
    batch.tables.idempotency.put(batch.transaction, &key, &entry.encode())?;
    Ok(())
}

/// The keys that make room for a new one: all that are over, and the oldest where a bound is reached.
fn surplus(transaction: &RoTxn<'_>, tables: &Tables, new: &[u8], now_ms: u64) -> Result<Vec<Vec<u8>>, Fault> {
    let credential = &new[..HASH_BYTES];
    let (mut surplus, mut kept) = (Vec::new(), BTreeSet::new());
    let mut own = 0;
    for entry in tables.idempotency.iter(transaction)? {
        let (key, value) = entry?;
        let entry = Entry::decode(value)?;
        if is_over(&entry, now_ms) {
            surplus.push(key.to_vec());
        } else {
            own += usize::from(key.starts_with(credential));
            kept.insert((entry.at_ms, key.to_vec()));
        }
    }
    let is_own = |key: &[u8]| key.starts_with(credential);
    if own >= limits::IDEMPOTENCY_KEYS_PER_CREDENTIAL_MAX {
        surplus.extend(kept.into_iter().map(|(_, key)| key).find(|key| is_own(key)));
    } else if kept.len() >= limits::IDEMPOTENCY_KEYS_MAX {
        surplus.extend(kept.into_iter().map(|(_, key)| key).next());
    }
    Ok(surplus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::actor::Actor;
    use crate::store::{Missing, Store, unix_ms};

    fn request<'a>(credential: &'a str, key: &'a str) -> Idempotency<'a> {
        Idempotency { credential, route: "POST /apps", key, body: b"{}" }
    }

    /// A store that remembers keys of these credentials with these times.
    fn store_with(entries: impl Iterator<Item = (String, String, u64)>) -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let written = store.environment().write(|transaction, tables| {
            for (credential, key, at_ms) in entries {
                let entry = Entry { at_ms, body: hash(&[b"{}"]), id: "x".into() };
                tables.idempotency.put(transaction, &key_of(&request(&credential, &key)), &entry.encode())?;
            }
            Ok(())
        });
        written.expect("written");
        (directory, store)
    }

    fn is_known(store: &Store, credential: &str, key: &str) -> bool {
        let found = store.change_all(&Actor::cli(0), |batch| batch.repeated(&request(credential, key)));
        found.expect("reads").is_some()
    }

    /// R-ADMIN-8: a key is forgotten after 24 h and its entry removed with the next creation.
    #[test]
    fn keys_end() {
        let now = unix_ms();
        let old = now - limits::IDEMPOTENCY_MS;
        let entries = [("a", "over", old), ("a", "young", old + 60_000)];
        let (_directory, store) =
            store_with(entries.into_iter().map(|(credential, key, at)| (credential.into(), key.into(), at)));
        assert!(!is_known(&store, "a", "over") && is_known(&store, "a", "young"));
        store.change_all(&Actor::cli(0), |batch| batch.remember(&request("b", "new"), "x")).expect("remembered");
        let kept = store.environment().read(|transaction, tables| Ok(tables.idempotency.len(transaction)?));
        assert_eq!(kept.expect("reads"), 2);
    }

    /// R-ADMIN-8: the keys of all credentials have a bound, beyond which the oldest of all is forgotten.
    #[test]
    fn all_keys_together_have_a_bound() {
        let now = unix_ms();
        let entries = (0..limits::IDEMPOTENCY_KEYS_MAX).map(|number| {
            let at_ms = if number == 4_321 { now - 9 } else { now };
            (format!("credential {}", number % 20), number.to_string(), at_ms)
        });
        let (_directory, store) = store_with(entries);
        assert!(is_known(&store, "credential 1", "4321"));
        store.change_all(&Actor::cli(0), |batch| batch.remember(&request("new", "new"), "x")).expect("remembered");
        assert!(!is_known(&store, "credential 1", "4321") && is_known(&store, "credential 2", "4322"));
        let kept = store.environment().read(|transaction, tables| Ok(tables.idempotency.len(transaction)?));
        assert_eq!(kept.expect("reads"), limits::IDEMPOTENCY_KEYS_MAX as u64);
    }
}
