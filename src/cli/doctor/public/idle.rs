//! How long the hops keep a silent WebSocket: from their documented defaults, or by waiting.

use std::time::{Duration, Instant};

use serde_json::json;

use super::hop::Hop;
use super::lines::Fault;
use super::upgrade::{FRAME_TIME, how};
use super::websocket::Arrived;
use super::{Examination, State};

/// Relay pings a client that was silent for its `activity_timeout` and this long (P-LIVE-4).
const PING_SLACK_S: u64 = 10;
const COST: &str = "clients that are silent lose their connection and reconnect, again and again";

impl Examination {
    /// The idle timeout of the hops against the time between bytes.
    pub(super) fn check_idle(&mut self, activity_timeout_s: u64) {
        match self.idle {
            Some(time) => self.wait_idle(time),
            None => self.hint_idle(activity_timeout_s),
        }
    }

    /// What the documented default of the known hop means here.
    fn hint_idle(&mut self, activity_timeout_s: u64) {
        let between_s = activity_timeout_s + PING_SLACK_S;
        let names = self.hops.names();
        let known = names.iter().find_map(|name| default_of(name)).or_else(|| match self.hops.nearest() {
            Some(Hop::Nginx) => Some((NGINX_S, "nginx")),
            Some(Hop::Cloudflare) => Some((CLOUDFLARE_S, "Cloudflare")),
            Some(Hop::Haproxy | Hop::Caddy | Hop::Traefik) | None => None,
        });
        let flows = format!("data flows at least every {between_s} s (activity_timeout {activity_timeout_s})");
        match known {
            Some((timeout_s, name)) if timeout_s <= between_s => {
                let found = format!("{flows}; {name} closes after {timeout_s} s by default");
                self.fault(State::Advice, "idle", Fault::Idle, found, COST);
            }
            Some((timeout_s, name)) => {
                self.ok("idle", format!("{flows}; {name} closes after {timeout_s} s by default"));
            }
            None => self.ok("idle", format!("{flows}; --idle {between_s} shows whether the hops keep that long")),
        }
    }

    /// Waits with a connection of its own, as a client that only answers pings.
    fn wait_idle(&mut self, time: Duration) {
        let mut socket = match self.open_socket() {
            Ok(socket) => socket,
            Err(error) => {
                let found = format!("a second WebSocket cannot be opened: {error:?}");
                return self.fault(State::Problem, "idle", Fault::Down, found, COST);
            }
        };
        let deadline = Instant::now() + time;
        loop {
            let silent_since = socket.last_byte;
            match socket.next(deadline) {
                Arrived::Control | Arrived::Json(_) => {}
                Arrived::Nothing => break,
                arrived @ (Arrived::Close(..) | Arrived::Ended(_)) => {
                    let silent_s = silent_since.elapsed().as_secs_f64();
                    let found = format!("closed after {silent_s:.1} s of silence: {}", how(&arrived));
                    return self.fault(State::Problem, "idle", Fault::Idle, found, COST);
                }
            }
        }
        // Still open at both ends, and not only here.
        socket.send(&json!({"event": "pusher:ping", "data": {}}));
        match socket.next_message(Instant::now() + FRAME_TIME) {
            Arrived::Json(_) => self.ok("idle", format!("open after {} s of silence", time.as_secs())),
            arrived @ (Arrived::Control | Arrived::Close(..) | Arrived::Ended(_) | Arrived::Nothing) => {
                let found = format!("dead after {} s of silence, unnoticed: {}", time.as_secs(), how(&arrived));
                self.fault(State::Problem, "idle", Fault::Idle, found, COST);
            }
        }
    }
}

const NGINX_S: u64 = 60;
const CLOUDFLARE_S: u64 = 100;

/// The default of a hop by the name that it shows (docs/proxies.md).
fn default_of(name: &str) -> Option<(u64, &'static str)> {
    let lower = name.to_ascii_lowercase();
    let known: [(&str, u64, &str); 6] = [
        ("google", 30, "Google Cloud's load balancer"),
        ("heroku", 55, "Heroku"),
        ("awselb", 60, "AWS's load balancer"),
        ("nginx", NGINX_S, "nginx"),
        ("azure", 240, "Azure's gateway"),
        ("cloudflare", CLOUDFLARE_S, "Cloudflare"),
    ];
    known.iter().find(|(word, ..)| lower.contains(word)).map(|(_, timeout_s, name)| (*timeout_s, *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-DIAG-2, P-LIVE-4: the defaults are those that docs/proxies.md lists.
    #[test]
    fn defaults_are_documented() {
        const DOCUMENT: &str = include_str!("../../../../docs/proxies.md");
        for (name, row, timeout) in [
            ("nginx/1.22.1", "| nginx |", "60 s"),
            ("awselb/2.0", "| AWS, application load balancer |", "60 s"),
            ("Google Cloud", "| Google Cloud, application load balancer |", "30 s"),
            ("Microsoft-Azure-Application-Gateway/v2", "| Azure, application gateway |", "240 s"),
            ("Heroku", "| Heroku |", "55 s"),
            ("Cloudflare", "| Cloudflare |", "100 s"),
        ] {
            let (timeout_s, _) = default_of(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(format!("{timeout_s} s"), timeout, "{name}");
            let line = DOCUMENT.lines().find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("{row}"));
            assert!(line.contains(timeout), "{line}");
        }
        assert_eq!(default_of("Caddy"), None);
    }
}
