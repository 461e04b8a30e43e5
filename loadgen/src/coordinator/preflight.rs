//! One connection and one signed request before a run, so that a server that is down, or a wrong key, app or secret, is
//! reported as one error instead of ten thousand failures.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::outcome::Failure;
use crate::wire::answer::{Answer, read_answer};
use crate::wire::event::{Meaning, read_event};
use crate::wire::frame::{self, Decoded};
use crate::wire::target::{Signer, Target};
use crate::wire::upgrade::{Upgrade, read_upgrade};

/// Whether the run will sign requests or subscriptions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Proof {
    KeyOnly,
    KeyAndSecret,
}

/// Checks that the target answers and accepts the credentials.
pub(crate) fn check(target: &Target, proof: Proof) -> Result<(), Failure> {
    check_socket(target)?;
    if proof == Proof::KeyAndSecret {
        // To a channel without subscribers. Every server has this endpoint.
        let (status, body) = request(target, "POST", "/events", "", PROBE)?;
        if !(200..300).contains(&status) {
            let hint = match status {
                401 => " (check --secret, and --key against --app-id)",
                404 => " (check --app-id)",
                _ => "",
            };
            return Err(Failure::Run(format!(
                "the server at {} refused a signed request with {status}{hint}: {}",
                target.address,
                body.trim()
            )));
        }
    }
    Ok(())
}

/// Makes one signed request on a connection of its own: status and body.
pub(crate) fn request(
    target: &Target,
    method: &str,
    path: &str,
    query: &str,
    body: &[u8],
) -> Result<(u16, String), Failure> {
    let mut bytes = Vec::new();
    Signer::new(target).request(method, path, query, body, &mut bytes);
    let mut exchange = Exchange::open(target)?;
    exchange.send(&bytes)?;
    loop {
        match read_answer(&exchange.received) {
            Answer::Done { status, body, .. } => return Ok((status, String::from_utf8_lossy(body).into_owned())),
            Answer::Invalid(reason) => {
                return Err(Failure::Run(format!("the server at {} does not speak HTTP: {reason}", target.address)));
            }
            Answer::Partial => exchange.receive()?,
        }
    }
}

fn check_socket(target: &Target) -> Result<(), Failure> {
    let mut exchange = Exchange::open(target)?;
    exchange.send(&target.upgrade_request(false))?;
    let begin = loop {
        match read_upgrade(&exchange.received) {
            Upgrade::Done(length) => break length,
            Upgrade::Refused(line) => {
                return Err(Failure::Run(format!("the server at {} refused a WebSocket: {line}", target.address)));
            }
            Upgrade::Partial => exchange.receive()?,
        }
    };
    loop {
        match frame::decode(&exchange.received[begin..]) {
            Decoded::Frame { opcode: frame::TEXT, payload, .. } => {
                let meaning = read_event(payload);
                if matches!(meaning, Meaning::Established { .. }) {
                    return Ok(());
                }
                let error = if let Meaning::Error(text) = meaning { text } else { format!("{meaning:?}") };
                return Err(Failure::Run(format!("the server at {} refused the key: {error}", target.address)));
            }
            Decoded::Frame { .. } | Decoded::Invalid(_) => {
                return Err(Failure::Run(format!(
                    "the server at {} does not implement the Pusher protocol",
                    target.address
                )));
            }
            Decoded::Partial => exchange.receive()?,
        }
    }
}

/// One connection with a deadline.
struct Exchange {
    stream: TcpStream,
    target: String,
    received: Vec<u8>,
    deadline: Instant,
}

impl Exchange {
    fn open(target: &Target) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&target.address, TIMEOUT)
            .map_err(|error| Failure::Run(format!("no server at {}: {error}", target.address)))?;
        // Like all connections of a run, it ends with a reset and leaves no state in the kernel.
        let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        let target = target.address.to_string();
        Ok(Self { stream, target, received: Vec::new(), deadline: Instant::now() + TIMEOUT })
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).map_err(|error| Failure::Run(format!("cannot send to {}: {error}", self.target)))
    }

    fn receive(&mut self) -> Result<(), Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let silent = || Failure::Run(format!("the server at {} accepts connections but does not answer", self.target));
        if left.is_zero() {
            return Err(silent());
        }
        let mut buffer = [0; 4096];
        let read = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut buffer));
        match read {
            Ok(0) => {
                Err(Failure::Run(format!("the server at {} closed the connection without an answer", self.target)))
            }
            Ok(length) => {
                self.received.extend_from_slice(&buffer[..length]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(silent()),
            Err(error) => Err(Failure::Run(format!("cannot read from {}: {error}", self.target))),
        }
    }
}

const PROBE: &[u8] = br#"{"name":"probe","channels":["loadgen-preflight"],"data":"probe"}"#;
const TIMEOUT: Duration = Duration::from_secs(3);
