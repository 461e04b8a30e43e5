//! Log lines about refusals: their content, and how many of them are written.
//!
//! Invariant: no line contains a secret, a token, a signature or a query (R-AUTH-7, threat T27), since lines consist
//! only of reasons from closed sets and of names; text that a peer chose is cut, and its control characters are
//! escaped, so that one refusal is one line. A peer that is refused repeatedly cannot fill a disk.

use std::net::IpAddr;

use crate::auth::explain::Kept;
use crate::label::labels;
use crate::limits::{LOGGED_CHARACTERS_MAX, REFUSAL_LINES_MAX};

labels! {
    /// What was refused: the message of the line.
    pub enum Refused {
        /// A WebSocket at its handshake.
        Connection => "connection refused",
        /// A WebSocket that was open.
        Close => "connection closed",
        /// A subscription.
        Subscription => "subscription refused",
        /// A signin.
        Signin => "signin refused",
        /// A client event.
        ClientEvent => "client event refused",
        /// A credential of a request of the HTTP API.
        Credential => "credential refused",
        /// A request of the HTTP API, for another cause.
        Request => "request refused",
        /// A PROXY protocol header: the connection is closed.
        ProxyHeader => "PROXY protocol header refused",
        /// `X-Forwarded-For` or `Forwarded` of a trusted proxy: the client then has no address.
        ForwardedAddress => "forwarded address unreadable",
    }
}

/// What a line reports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reports {
    /// One refusal, which can be explained by its id (R-EXPLAIN-6).
    Refusal,
    /// Only how many lines were suppressed.
    Suppressed,
}

/// One line. Its text has passed through [`printable`] or [`hint`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogLine {
    /// Whether there is a refusal.
    pub reports: Reports,
    /// What was refused.
    pub what: Refused,
    /// The reason: a word of a closed set.
    pub reason: &'static str,
    /// Close code or HTTP status, if there is one.
    pub code: Option<u16>,
    /// Id of the app.
    pub app: Option<String>,
    /// Address of the client, as far as it is known: open WebSockets are named by `socket_id`.
    pub peer: Option<IpAddr>,
    /// Of an open WebSocket.
    pub socket_id: Option<String>,
    /// Name of the channel.
    pub channel: Option<String>,
    /// The beginning of the unknown app key.
    pub key: Option<String>,
    /// The purpose of the request, as scopes name it.
    pub scope: Option<&'static str>,
    /// Lines of the same kind and reason that were held back since the last one.
    pub suppressed: u64,
    /// What is kept of a refused signature. It is not written to the log.
    pub kept: Option<Kept>,
}

impl LogLine {
    /// A line that contains only what was refused and why.
    pub fn new(what: Refused, reason: &'static str) -> Self {
        Self {
            reports: Reports::Refusal,
            what,
            reason,
            code: None,
            app: None,
            peer: None,
            socket_id: None,
            channel: None,
            key: None,
            scope: None,
            suppressed: 0,
            kept: None,
        }
    }
}

/// Text of a peer in the form that a line may contain: cut, control characters escaped.
pub fn printable(text: &str) -> String {
    let mut safe = String::new();
    for (number, character) in text.chars().enumerate() {
        if number == LOGGED_CHARACTERS_MAX {
            safe.push_str("...");
            break;
        }
        // Format characters too: some change the direction of the text that follows.
        if character.is_control()
            || matches!(character, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
        {
            safe.extend(character.escape_unicode());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// The beginning of an unknown name: enough to recognize it, too little to use if it was a secret that somebody put in
/// the wrong place.
pub fn hint(text: &str) -> String {
    let start: String = text.chars().take(HINT_CHARACTERS).collect();
    if start.len() < text.len() { printable(&start) + "..." } else { printable(&start) }
}

/// Less than a fifth of a generated secret.
const HINT_CHARACTERS: usize = 7;

/// Holds back lines: per kind and reason [`REFUSAL_LINES_MAX`] at once and per minute. Kinds and reasons are closed
/// sets, so there are few brakes.
#[derive(Debug, Default)]
pub struct LogBrakes {
    brakes: Vec<((Refused, &'static str), Brake)>,
}

#[derive(Debug, Default)]
struct Brake {
    /// When the bucket will be empty again, in ms of the monotonic clock; each line fills its share of a minute.
    empty_at_ms: u64,
    suppressed: u64,
    /// When the suppressed number is reported at the latest; meaningless while there is none.
    tell_at_ms: u64,
}

const MINUTE_MS: u64 = 60_000;
/// The share of a minute that one line takes.
const LINE_MS: u64 = MINUTE_MS / REFUSAL_LINES_MAX as u64;

impl LogBrakes {
    /// Whether a line may be written now, and if so how many were held back before it.
    pub fn admit(&mut self, now_ms: u64, what: Refused, reason: &'static str) -> Option<u64> {
        let key = (what, reason);
        let at = self.brakes.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            self.brakes.push((key, Brake::default()));
            self.brakes.len() - 1
        });
        let brake = &mut self.brakes[at].1;
        let empty_at_ms = brake.empty_at_ms.max(now_ms) + LINE_MS;
        if empty_at_ms - now_ms > MINUTE_MS {
            if brake.suppressed == 0 {
                brake.tell_at_ms = now_ms + MINUTE_MS;
            }
            brake.suppressed += 1;
            return None;
        }
        brake.empty_at_ms = empty_at_ms;
        Some(std::mem::take(&mut brake.suppressed))
    }

    /// When suppressed numbers are due to be reported, on the monotonic clock, in ms.
    pub fn due_ms(&self) -> Option<u64> {
        self.brakes.iter().filter(|(_, brake)| brake.suppressed > 0).map(|(_, brake)| brake.tell_at_ms).min()
    }

    /// Takes one suppressed number that is due: a line that contains nothing else.
    pub fn take_due(&mut self, now_ms: u64) -> Option<LogLine> {
        let is_due = |brake: &Brake| brake.suppressed > 0 && brake.tell_at_ms <= now_ms;
        let ((what, reason), brake) = self.brakes.iter_mut().find(|(_, brake)| is_due(brake))?;
        let suppressed = std::mem::take(&mut brake.suppressed);
        Some(LogLine { reports: Reports::Suppressed, suppressed, ..LogLine::new(*what, reason) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flood of one reason writes 20 lines at once and 20 a minute; every suppressed line is counted, and other
    /// reasons are not affected.
    #[test]
    fn a_flood_is_held_back_and_counted() {
        let mut brakes = LogBrakes::default();
        let (mut written, mut suppressed) = (0, 0);
        for ms in 0..120_000 {
            if let Some(before) = brakes.admit(ms, Refused::Credential, "bad_token") {
                written += 1;
                suppressed += before;
            }
        }
        assert_eq!(written, 20 + 39);
        assert_eq!(brakes.admit(60_000, Refused::Credential, "missing"), Some(0));
        assert_eq!(brakes.admit(60_000, Refused::Subscription, "bad_token"), Some(0));
        let due_ms = brakes.due_ms().expect("something was held back");
        assert_eq!(brakes.take_due(due_ms - 1), None);
        let rest = brakes.take_due(due_ms).expect("it is due");
        assert_eq!((rest.reports, rest.what, rest.reason), (Reports::Suppressed, Refused::Credential, "bad_token"));
        assert_eq!(written + suppressed + rest.suppressed, 120_000);
        assert_eq!((brakes.due_ms(), brakes.take_due(u64::MAX)), (None, None));
    }

    /// Threat T27: line breaks, escape sequences and characters that change the direction of text are escaped, long
    /// text is cut at a character.
    #[test]
    fn peers_cannot_forge_lines() {
        assert_eq!(printable("a\r\nb\u{1b}[31m\u{7f}"), "a\\u{d}\\u{a}b\\u{1b}[31m\\u{7f}");
        assert_eq!(printable("x\u{202e}y\u{2028}z"), "x\\u{202e}y\\u{2028}z");
        assert_eq!(printable(&"é".repeat(300)), "é".repeat(200) + "...");
        assert_eq!(printable("presence-räume"), "presence-räume");
    }

    /// Threat T27: only the beginning of an unknown name is logged.
    #[test]
    fn unknown_names_are_cut() {
        assert_eq!(hint("278d425bdf160c739803"), "278d425...");
        assert_eq!(hint("app-key"), "app-key");
        assert_eq!(hint("ä\nb"), "ä\\u{a}b");
    }
}
