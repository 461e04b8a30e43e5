//! Webhook deliveries in progress, and the last failed ones: a separate LMDB file, so that neither its size nor its
//! commits affect the apps. Committed deliveries survive a restart.
//!
//! One thread of the server writes. Others read: the body of a delivery when it is sent, and the list of failures.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::environment::{Environment, Table, TableSet};
use super::error::{Fault, StoreError};
use super::files::{Missing, QUEUE_FOLDER};
use super::record;
use crate::app::AppSerial;
use crate::limits;

/// Layout of a delivery's record.
const LAYOUT: u8 = 1;

/// The tables of the queue.
#[derive(Clone, Copy)]
struct QueueTables {
    /// Number (u64, big endian) -> the output of [`encode`].
    deliveries: Table,
    /// Number -> attempts (u8) and when the next is due (u64, big endian, unix ms).
    attempts: Table,
    /// Number -> `FailedDelivery` in JSON.
    failed: Table,
}

impl TableSet for QueueTables {
    const NAMES: &'static [&'static str] = &["deliveries", "attempts", "failed"];

    fn new(tables: &[Table]) -> Self {
        let [deliveries, attempts, failed] = tables.try_into().expect("there is one table per name");
        Self { deliveries, attempts, failed }
    }
}

/// The open queue. Clones share it.
#[derive(Clone)]
pub struct Queue {
    environment: Arc<Environment<QueueTables>>,
}

/// One request to one endpoint, without its body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// Its place in the order of all deliveries.
    pub number: u64,
    /// Serial of its app.
    pub app: AppSerial,
    /// Id of the endpoint.
    pub endpoint: Arc<str>,
    /// Deliveries of one queue are sent one after the other: those of one channel, or all batches of an endpoint.
    pub queue: u64,
    /// When it was created, unix ms.
    pub created_ms: u64,
    /// Requests that failed so far.
    pub attempts: u8,
    /// When the next request may be made, unix ms; 0 before the first failure.
    pub next_at_ms: u64,
    /// Length of its body.
    pub body_bytes: u32,
}

/// A delivery that was given up (P-HOOK-7, R-HOOK-4).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FailedDelivery {
    /// Serial of its app.
    pub app: u32,
    /// Id of the endpoint.
    pub endpoint: String,
    /// When it was created, unix ms.
    pub created_at_ms: u64,
    /// When it was given up, unix ms.
    pub failed_at_ms: u64,
    /// Number of requests made.
    pub attempts: u8,
    /// The answer to the last request, or why there was none.
    pub reason: String,
}

/// A change of the queue.
#[derive(Debug)]
pub enum Change {
    /// A new delivery and its body.
    Add(Delivery, Vec<u8>),
    /// A request failed; the next one is due at `next_at_ms`, unix ms.
    Again {
        /// The delivery's number.
        number: u64,
        /// Requests that failed so far.
        attempts: u8,
        /// When the next request may be made.
        next_at_ms: u64,
    },
    /// It was delivered, or is no longer wanted.
    Done(Delivery),
    /// It was given up.
    Failed(Delivery, FailedDelivery),
}

impl Queue {
    /// Opens the queue of a data directory.
    ///
    /// # Errors
    /// The store's errors; [`StoreError::Missing`] if there is no queue and `missing` does not allow creating one.
    pub fn open(data: &Path, missing: Missing) -> Result<Self, StoreError> {
        let environment = Environment::open(&data.join(QUEUE_FOLDER), missing, limits::STORE_BYTES_MAX)?;
        Ok(Self { environment: Arc::new(environment) })
    }

    /// Creates the queue's file if there is none.
    ///
    /// # Errors
    /// The store's errors.
    pub(super) fn make(data: &Path) -> Result<(), StoreError> {
        Environment::<QueueTables>::make(&data.join(QUEUE_FOLDER), limits::STORE_BYTES_MAX)
    }

    /// All deliveries in their order, for a start to resume.
    pub fn deliveries(&self) -> Result<Vec<Delivery>, StoreError> {
        self.environment.read(|transaction, tables| {
            let mut deliveries = Vec::new();
            for entry in tables.deliveries.iter(transaction)? {
                let (key, value) = entry?;
                let (mut delivery, _) = decode(key, value)?;
                if let Some(value) = tables.attempts.get(transaction, key)? {
                    (delivery.attempts, delivery.next_at_ms) = decode_attempts(value)?;
                }
                deliveries.push(delivery);
            }
            Ok(deliveries)
        })
    }

    /// The body of a delivery; `None` when it is gone.
    pub fn body(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.environment.read(|transaction, tables| {
            let key = number.to_be_bytes();
            let Some(value) = tables.deliveries.get(transaction, &key)? else { return Ok(None) };
            Ok(Some(decode(&key, value)?.1.to_vec()))
        })
    }

    /// The last deliveries that were given up, with their numbers, oldest first.
    pub fn failed(&self) -> Result<Vec<(u64, FailedDelivery)>, StoreError> {
        self.environment.read(|transaction, tables| {
            let entries = tables.failed.iter(transaction)?;
            entries
                .map(|entry| {
                    let (key, value) = entry?;
                    Ok((decode_number(key)?, record::decode("a failed delivery", value)?))
                })
                .collect()
        })
    }

    /// A number above all numbers in use.
    pub fn next_number(&self) -> Result<u64, StoreError> {
        self.environment.read(|transaction, tables| {
            let mut next = 1;
            for table in [tables.deliveries, tables.failed] {
                if let Some((key, _)) = table.last(transaction)? {
                    next = next.max(decode_number(key)?.saturating_add(1));
                }
            }
            Ok(next)
        })
    }

    /// How many deliveries are waiting.
    pub fn waiting(&self) -> Result<u64, StoreError> {
        self.environment.read(|transaction, tables| Ok(tables.deliveries.len(transaction)?))
    }

    /// Applies all changes in one commit, or none.
    pub fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.environment.write(|transaction, tables| {
            for change in changes {
                match change {
                    Change::Add(delivery, body) => {
                        let value = encode(delivery, body);
                        tables.deliveries.put(transaction, &delivery.number.to_be_bytes(), &value)?;
                    }
                    Change::Again { number, attempts, next_at_ms } => {
                        let mut value = vec![*attempts];
                        value.extend(next_at_ms.to_be_bytes());
                        tables.attempts.put(transaction, &number.to_be_bytes(), &value)?;
                    }
                    Change::Done(delivery) | Change::Failed(delivery, _) => {
                        let key = delivery.number.to_be_bytes();
                        tables.deliveries.delete(transaction, &key)?;
                        tables.attempts.delete(transaction, &key)?;
                    }
                }
                if let Change::Failed(delivery, failed) = change {
                    tables.failed.put(transaction, &delivery.number.to_be_bytes(), &record::encode(failed))?;
                }
            }
            while tables.failed.len(transaction)? > limits::WEBHOOK_FAILED_MAX {
                let oldest = tables.failed.first(transaction)?.map(|(key, _)| key.to_vec());
                let oldest = oldest.expect("a table with entries has a first one");
                tables.failed.delete(transaction, &oldest)?;
            }
            Ok(())
        })
    }
}

/// Layout, serial, queue, time, length of the endpoint's id, the id, and the body up to the end.
pub(super) fn encode(delivery: &Delivery, body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER_BYTES + delivery.endpoint.len() + body.len());
    value.push(LAYOUT);
    value.extend(delivery.app.0.to_be_bytes());
    value.extend(delivery.queue.to_be_bytes());
    value.extend(delivery.created_ms.to_be_bytes());
    value.push(u8::try_from(delivery.endpoint.len()).expect("ids of endpoints are short"));
    value.extend(delivery.endpoint.as_bytes());
    value.extend(body);
    value
}

const HEADER_BYTES: usize = 1 + 4 + 8 + 8 + 1;

pub(super) fn decode<'a>(key: &[u8], value: &'a [u8]) -> Result<(Delivery, &'a [u8]), Fault> {
    let damaged = || Fault::Record("the record of a webhook delivery is invalid".into());
    let number = u64::from_be_bytes(key.try_into().map_err(|_| damaged())?);
    let (header, rest) = value.split_at_checked(HEADER_BYTES).ok_or_else(damaged)?;
    if header.first() != Some(&LAYOUT) {
        return Err(damaged());
    }
    let long = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let (id, body) = rest.split_at_checked(usize::from(header[HEADER_BYTES - 1])).ok_or_else(damaged)?;
    let delivery = Delivery {
        number,
        app: AppSerial(u32::from_be_bytes(header[1..5].try_into().expect("four bytes"))),
        endpoint: std::str::from_utf8(id).map_err(|_| damaged())?.into(),
        queue: long(5),
        created_ms: long(13),
        attempts: 0,
        next_at_ms: 0,
        body_bytes: u32::try_from(body.len()).map_err(|_| damaged())?,
    };
    Ok((delivery, body))
}

fn decode_number(key: &[u8]) -> Result<u64, Fault> {
    let bytes = key.try_into().map_err(|_| Fault::Record("a delivery's number is not 8 bytes".into()))?;
    Ok(u64::from_be_bytes(bytes))
}

fn decode_attempts(value: &[u8]) -> Result<(u8, u64), Fault> {
    let damaged = || Fault::Record("the record of a webhook delivery's attempts is invalid".into());
    let (attempts, next_at_ms) = value.split_first().ok_or_else(damaged)?;
    Ok((*attempts, u64::from_be_bytes(next_at_ms.try_into().map_err(|_| damaged())?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(number: u64) -> Delivery {
        Delivery {
            number,
            app: AppSerial(7),
            endpoint: "wh_0123456789abcdef".into(),
            queue: u64::MAX - number,
            created_ms: 1_700_000_000_000 + number,
            attempts: 0,
            next_at_ms: 0,
            body_bytes: 3,
        }
    }

    fn failure(number: u64) -> FailedDelivery {
        FailedDelivery {
            app: 7,
            endpoint: "wh_0123456789abcdef".into(),
            created_at_ms: number,
            failed_at_ms: number + 1,
            attempts: 9,
            reason: "503".into(),
        }
    }

    /// P-HOOK-7: committed deliveries are there after the file was reopened, in order, with their attempts and bytes;
    /// completed ones are not.
    #[test]
    fn deliveries_survive() {
        let directory = tempfile::tempdir().expect("directory");
        assert!(Queue::open(directory.path(), Missing::Refuse).is_err());
        let queue = Queue::open(directory.path(), Missing::Create).expect("opens");
        let added: Vec<Change> = (1..=300).map(|number| Change::Add(delivery(number), vec![number as u8; 3])).collect();
        queue.commit(&added).expect("committed");
        queue
            .commit(&[Change::Again { number: 2, attempts: 3, next_at_ms: 99 }, Change::Done(delivery(1))])
            .expect("committed");
        drop(queue);
        let queue = Queue::open(directory.path(), Missing::Refuse).expect("opens again");
        let mut expected: Vec<Delivery> = (2..=300).map(delivery).collect();
        (expected[0].attempts, expected[0].next_at_ms) = (3, 99);
        assert_eq!(queue.deliveries().expect("read"), expected);
        assert_eq!(queue.body(300).expect("read"), Some(vec![300_u64 as u8; 3]));
        assert_eq!(queue.body(1).expect("read"), None);
        assert_eq!(queue.waiting().expect("read"), 299);
    }

    /// P-HOOK-7, R-HOOK-4: failures are listed, and only the last of them are kept, up to a bound.
    #[test]
    fn failures_are_listed_within_a_bound() {
        let directory = tempfile::tempdir().expect("directory");
        let queue = Queue::open(directory.path(), Missing::Create).expect("opens");
        let last = limits::WEBHOOK_FAILED_MAX + 2;
        for number in 1..=last {
            queue.commit(&[Change::Add(delivery(number), b"{}".to_vec())]).expect("committed");
        }
        let failed: Vec<Change> = (1..=last).map(|number| Change::Failed(delivery(number), failure(number))).collect();
        queue.commit(&failed).expect("committed");
        let listed = queue.failed().expect("read");
        assert_eq!(listed.len() as u64, limits::WEBHOOK_FAILED_MAX);
        assert_eq!((&listed[0], listed.last()), (&(3, failure(3)), Some(&(last, failure(last)))));
        assert_eq!(queue.waiting().expect("read"), 0);
    }
}
