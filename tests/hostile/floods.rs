//! Floods of honest messages: the flooder reaches its limit, everybody else is served as before (threat T16).

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::unharmed::{socket_target, unharmed_by};
use crate::common::socket::Socket;
use crate::common::wire::{FIN, RawSocket, TEXT, frame};

const SUBSCRIBES: usize = 100_000;
const CHANNELS_MAX: usize = 1_000;

/// Threat T16, P-LIM-12, P-FAIL-4, P-IN-3: of 100,000 subscribes on one connection 1,000 are accepted, 99 are
/// LimitReached and the next closes it with 4009; meanwhile another connection gets its answers, and closing the
/// flooder leaves all of its channels.
#[test]
fn subscribes_beyond_the_bound() {
    unharmed_by(64 << 20, |server| {
        let mut flooder = RawSocket::established(server.address, &socket_target(server));
        let mut neighbour = Socket::open(server, server.app());
        let writer = flooder.stream().try_clone().unwrap();
        let (mut succeeded, mut refused, mut slowest) = (0, 0, Duration::ZERO);
        std::thread::scope(|scope| {
            scope.spawn(|| write_subscribes(writer));
            loop {
                let answer = flooder.read().unwrap_or_else(|error| panic!("{error} after {succeeded} and {refused}"));
                if let Some(code) = answer.close_code() {
                    break assert_eq!(code, 4009, "after {succeeded} and {refused}");
                }
                let text = String::from_utf8(answer.payload).unwrap();
                succeeded += usize::from(text.contains("subscription_succeeded"));
                refused += usize::from(text.contains("LimitReached") && text.contains("\"status\":4100"));
                if (succeeded + refused) % 100 == 0 && text.contains("\"channel\"") {
                    let start = Instant::now();
                    neighbour.expect_quiet();
                    slowest = slowest.max(start.elapsed());
                }
            }
            flooder.stream().shutdown(std::net::Shutdown::Both).unwrap();
        });
        // Channels that had not answered yet end without their success.
        assert!(succeeded <= CHANNELS_MAX && refused == 99, "{succeeded} and {refused}");
        assert!(slowest < Duration::from_secs(2), "a neighbour waited {slowest:?} for its pong");
        drop(flooder);
        server.await_subscriptions(server.app(), "flood-0", 0);
    });
}

fn write_subscribes(mut stream: TcpStream) {
    use std::io::Write;
    for first in (0..SUBSCRIBES).step_by(100) {
        let frames: Vec<u8> = (first..first + 100)
            .flat_map(|number| {
                let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"flood-{number}"}}}}"#);
                frame(FIN | TEXT, text.as_bytes())
            })
            .collect();
        if stream.write_all(&frames).is_err() {
            break;
        }
    }
}
