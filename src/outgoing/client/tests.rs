//! Real requests over loopback, where 127.0.0.2 represents an address that the operator allows and 127.0.0.1 an
//! internal one.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use ureq::http::Uri;
use ureq::unversioned::resolver::ResolvedSocketAddrs;
use ureq::unversioned::transport::NextTimeout;

use super::*;
use crate::limits;

const OUTSIDE: &str = "127.0.0.2";
const INSIDE: &str = "127.0.0.1";

/// A server that sends one answer on every connection and keeps it open until the peer closes it.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(host: &str, answer: String) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                thread::spawn(move || {
                    let (mut request, mut part) = (Vec::new(), [0; 4096]);
                    while let Ok(read @ 1..) = stream.read(&mut part) {
                        request.extend_from_slice(&part[..read]);
                        // Head and body may arrive separately.
                        if request.ends_with(b"{}") {
                            request.clear();
                            let _ = stream.write_all(answer.as_bytes());
                        }
                    }
                });
            }
        });
        Self { address, connections }
    }

    fn ok(host: &str) -> Self {
        Self::start(host, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned())
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.address.port())
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A name server that answers with the next of its lists; the last one is repeated.
#[derive(Clone, Debug)]
struct Answers(Arc<Mutex<VecDeque<Vec<&'static str>>>>);

impl Answers {
    fn new(answers: &[&[&'static str]]) -> [Self; 2] {
        let answers = Self(Arc::new(Mutex::new(answers.iter().map(|answer| answer.to_vec()).collect())));
        [answers.clone(), answers]
    }
}

impl Resolver for Answers {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut answers = self.0.lock().expect("no holder panics");
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        let mut resolved = self.empty();
        for address in answer.expect("an answer is left") {
            let address: IpAddr = address.parse().expect("an address");
            resolved.push(SocketAddr::new(address, uri.port_u16().expect("tests name a port")));
        }
        Ok(resolved)
    }
}

fn outside() -> Vec<IpNet> {
    vec!["127.0.0.2/32".parse().expect("a network")]
}

/// The status of the answer to a small request.
fn send(client: &Client, url: &str, reach: Reach) -> Result<u16, NoAnswer> {
    post(client, url, reach).map(|answer| answer.status)
}

fn post(client: &Client, url: &str, reach: Reach) -> Result<Answer, NoAnswer> {
    let within = Duration::from_millis(limits::WEBHOOK_ANSWER_MS);
    client.post(&Post { url, reach, headers: &[], body: b"{}", within, answer_bytes_max: ANSWER_BYTES_MAX })
}

const KEPT: Kept = Kept { per_host: 1, in_all: 16, idle: Duration::from_secs(15) };

const ANSWER_BYTES_MAX: usize = 16 * 1024;

#[track_caller]
fn expect_refused(result: Result<u16, NoAnswer>) {
    match result {
        Err(NoAnswer(reason)) => assert!(reason.contains("refused: "), "{reason}"),
        other => panic!("{other:?}"),
    }
}

/// Threat T19: whatever spelling the system's resolver accepts for an internal address, no connection is made.
#[test]
fn no_form_of_an_internal_address_is_reached() {
    let server = Server::ok(INSIDE);
    let client = Client::new(&outside(), &TrustedRoots::Mozilla, KEPT);
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "0177.0.0.1",
        "2130706433",
        "localhost",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "0",
        "[::]",
    ] {
        let result = send(&client, &server.url(host), Reach::Public);
        assert!(matches!(result, Err(NoAnswer(_))), "{host}: {result:?}");
    }
    expect_refused(send(&client, &server.url("127.1"), Reach::Public));
    expect_refused(send(&client, "http://169.254.169.254/latest/meta-data", Reach::Public));
    expect_refused(send(&client, "https://169.254.169.254/", Reach::Public));
    assert_eq!(server.connections(), 0);
    assert_eq!(send(&client, &server.url("127.1"), Reach::Anywhere), Ok(200), "the endpoint may be anywhere");
    assert_eq!(server.connections(), 1);
}

/// Threat T19: a name that is public when first resolved and internal later; and one with an address of each kind.
#[test]
fn rebinding_reaches_nothing() {
    let inside = Server::ok(INSIDE);
    let outside_server = TcpListener::bind((OUTSIDE, inside.address.port()));
    assert!(outside_server.is_ok(), "the port is free on the other address");
    let answers = Answers::new(&[&["127.0.0.2"], &["127.0.0.1"], &["127.0.0.2", "127.0.0.1"], &["::ffff:127.0.0.1"]]);
    let client = Client::with_resolvers(&outside(), &TrustedRoots::Mozilla, KEPT, answers);
    let served = thread::spawn(move || {
        let (mut stream, _) = outside_server.expect("it is bound").accept().expect("a connection");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let url = inside.url("rebinding.test");
    assert_eq!(send(&client, &url, Reach::Public), Ok(200), "it went where the first answer was");
    served.join().expect("served");
    for _ in 0..3 {
        expect_refused(send(&client, &url, Reach::Public));
    }
    assert_eq!(inside.connections(), 0);
}

/// Threat T19: a redirect to an internal address is an answer like any other; it is not followed.
#[test]
fn redirects_are_not_followed() {
    let inside = Server::ok(INSIDE);
    let location = inside.url(INSIDE);
    for status in [301, 302, 303, 307, 308] {
        let answer = format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let outside_server = Server::start(OUTSIDE, answer);
        let client = Client::new(&outside(), &TrustedRoots::Mozilla, KEPT);
        for reach in [Reach::Public, Reach::Anywhere] {
            let result = send(&client, &outside_server.url(OUTSIDE), reach);
            assert_eq!(result, Ok(status));
        }
    }
    assert_eq!(inside.connections(), 0);
}

/// Threat T19: a connection that is kept open for an endpoint that may have any address serves no other endpoint.
#[test]
fn kept_connections_are_not_shared_across_reach() {
    let server = Server::ok(INSIDE);
    let client = Client::new(&[], &TrustedRoots::Mozilla, KEPT);
    for _ in 0..3 {
        assert_eq!(send(&client, &server.url(INSIDE), Reach::Anywhere), Ok(200));
    }
    assert_eq!(server.connections(), 1, "kept open");
    expect_refused(send(&client, &server.url(INSIDE), Reach::Public));
    assert_eq!(server.connections(), 1);
}

/// Threats T19, T27, T36: an answer of any status is returned with its body and type up to the bound; an answer that
/// never ends costs its bound, and a failure reads as one line.
#[test]
fn answers_are_bounded() {
    let client = Client::new(&[], &TrustedRoots::Mozilla, KEPT);
    let answer = |status: u16, body: &str| {
        let head = format!("HTTP/1.1 {status} Some\r\nContent-Type: text/x\r\nContent-Length: {}", body.len());
        let server = Server::start(INSIDE, format!("{head}\r\n\r\n{body}"));
        post(&client, &server.url(INSIDE), Reach::Anywhere).expect("an answer")
    };
    for status in [200, 302, 404, 503] {
        let found = answer(status, "text");
        assert_eq!((found.status, &*found.body, found.is_complete), (status, &b"text"[..], true));
        assert_eq!(found.content_type.as_deref(), Some("text/x"));
    }
    assert!(answer(200, &"y".repeat(ANSWER_BYTES_MAX)).is_complete);
    let long = answer(200, &"y".repeat(1_000_000));
    assert_eq!((long.body.len(), long.is_complete), (ANSWER_BYTES_MAX, false));
    let short = Server::start(INSIDE, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nx".to_owned());
    let within = Duration::from_millis(200);
    let request = Post {
        url: &short.url(INSIDE),
        reach: Reach::Anywhere,
        headers: &[],
        body: b"{}",
        within,
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let cut = client.post(&request).expect("a head");
    assert!(!cut.is_complete, "{cut:?}");
    let garbage = Server::start(INSIDE, "nonsense\r\n\r\n".to_owned());
    let NoAnswer(reason) = post(&client, &garbage.url(INSIDE), Reach::Anywhere).expect_err("no answer");
    assert!(!reason.contains(['\r', '\n']), "{reason:?}");
}

/// Threat T19: public addresses require https; http needs permission.
#[test]
fn http_needs_leave() {
    let guard = |reach| Guard::new(DefaultResolver::default(), reach, outside());
    let check = |scheme, address: &str, reach| guard(reach).check(scheme, address.parse().expect("an address")).is_ok();
    assert!(check("https", "1.1.1.1", Reach::Public));
    assert!(!check("http", "1.1.1.1", Reach::Public));
    assert!(check("http", "127.0.0.2", Reach::Public) && check("http", "::ffff:127.0.0.2", Reach::Public));
    assert!(!check("https", "127.0.0.3", Reach::Public) && !check("https", "fe80::1", Reach::Public));
    assert!(check("http", "10.0.0.1", Reach::Anywhere) && check("http", "1.1.1.1", Reach::Anywhere));
}

/// P-HOOK-9: all certificates of a file of roots are read; a file without a certificate, or with a malformed one, is
/// rejected.
#[test]
fn roots_are_read_from_pem() {
    assert!(TrustedRoots::from_pem(b"").is_none());
    assert!(TrustedRoots::from_pem(b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").is_none());
    let pem = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".repeat(2);
    assert!(matches!(TrustedRoots::from_pem(&pem), Some(TrustedRoots::These(roots)) if roots.len() == 2));
}
