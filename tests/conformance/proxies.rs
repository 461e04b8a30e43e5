//! Behind a proxy: `X-Forwarded-For`, `Forwarded`, `X-Forwarded-Proto` and the PROXY protocol are accepted only from
//! trusted proxies (threat T26). The tests detect the address by the rate limit on failed credentials (threat T6).

use std::net::Ipv4Addr;

use crate::common::http::{HttpConnection, encode_request};
use crate::common::rig::on_fresh_servers;
use crate::common::server::{Driver, ServerOptions, TestServer};
use crate::common::socket::{QUERY, Socket};

const TRUSTED: &str = "127.50.0.0/16";
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 50, 0, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 51, 0, 1);

fn trusting(driver: Driver) -> ServerOptions {
    ServerOptions::new(driver).shards(1).app("tls", &["tls_only=true"]).with(&["--trusted-proxies", TRUSTED])
}

/// Fails often enough to be rate limited if all failures come from one address; returns the last status.
fn fail_101_times(server: &TestServer, source: Ipv4Addr, forwarded_for: impl Fn(usize) -> String) -> u16 {
    let mut connection = HttpConnection::open_from(source, server.address);
    let path = server.app().path("/events");
    let ask = |connection: &mut HttpConnection, index: usize| {
        let (forwarded, bearer) = (forwarded_for(index), format!("Bearer rly_{index:0>40}"));
        let headers = [("X-Forwarded-For", forwarded.as_str()), ("Authorization", bearer.as_str())];
        connection.ask("POST", &path, &headers, b"{}").status
    };
    (0..100).for_each(|index| assert_eq!(ask(&mut connection, index), 401));
    ask(&mut connection, 100)
}

/// Threats T6 and T26, P-STAT-6: behind a trusted proxy each forwarded address has its own count: the last address of
/// the list that is not a proxy, whatever the client wrote before it.
#[test]
fn forwarded_addresses_count_from_trusted_proxies() {
    on_fresh_servers(trusting, |server| {
        assert_eq!(fail_101_times(&server, PROXY, |index| format!("10.0.0.{index}")), 401, "101 addresses");
        let spoofed = |index: usize| format!("10.9.9.{index}, 10.1.1.1, 127.50.0.7");
        assert_eq!(fail_101_times(&server, PROXY, spoofed), 429, "one address behind two proxies");
    });
}

/// Threat T26: a stranger's `X-Forwarded-For` is ignored: all its failures count against its own address.
#[test]
fn forwarded_addresses_of_strangers_are_ignored() {
    on_fresh_servers(trusting, |server| {
        assert_eq!(fail_101_times(&server, STRANGER, |index| format!("10.0.0.{index}")), 429);
    });
    on_fresh_servers(
        |driver| ServerOptions::new(driver).shards(1),
        |server| assert_eq!(fail_101_times(&server, PROXY, |index| format!("10.0.0.{index}")), 429),
    );
}

/// Threat T26: a PROXY v2 header of a trusted proxy names the client, before HTTP and before an upgrade; one of a
/// stranger is not valid HTTP and is refused.
#[test]
fn proxy_protocol_counts_from_trusted_proxies() {
    on_fresh_servers(trusting, |server| {
        let path = server.app().path("/events");
        let ask = |client: [u8; 4], index: usize| {
            let bearer = format!("Bearer rly_{index:0>40}");
            let mut bytes = proxy_header(client);
            bytes.extend(encode_request("POST", &path, &[("Authorization", &bearer)], b"{}"));
            let mut connection = HttpConnection::open_from(PROXY, server.address);
            connection.write(&bytes).unwrap();
            connection.read().status
        };
        (0..100).for_each(|index| assert_eq!(ask([10, 2, 2, 2], index), 401));
        assert_eq!((ask([10, 2, 2, 2], 100), ask([10, 2, 2, 3], 100)), (429, 401));

        let stream = crate::common::http::connect_from(PROXY, server.address).unwrap();
        std::io::Write::write_all(&mut &stream, &proxy_header([10, 3, 3, 3])).unwrap();
        let target = format!("/app/{}{QUERY}", server.app().key);
        let (mut socket, _) = Socket::upgrade_on(stream, server.app(), &target, &[]);
        socket.established();
        socket.subscribe("private-proxied");

        let mut stranger = HttpConnection::open_from(STRANGER, server.address);
        let mut bytes = proxy_header([10, 4, 4, 4]);
        bytes.extend(encode_request("GET", "/up", &[], b""));
        let _ = stranger.write(&bytes);
        assert_eq!(stranger.read().status, 400);
        stranger.expect_end();
    });
}

/// Threats T6 and T26: failures from every form of an address count against that client; a hidden or unreadable address
/// counts against no client: it rate limits no other client, and the log reports that it cannot be read.
#[test]
fn every_form_of_a_forwarded_address_counts() {
    on_fresh_servers(
        |driver| trusting(driver).with(&["--auth-failures-per-minute", "5"]),
        |server| {
            let path = server.app().path("/events");
            let ask = |name: &str, value: &str| {
                let headers = [(name, value), ("Authorization", "Bearer rly_none")];
                HttpConnection::open_from(PROXY, server.address).ask("POST", &path, &headers, b"{}").status
            };
            for (number, (name, form)) in [
                ("X-Forwarded-For", "203.0.113.N"),
                ("X-Forwarded-For", "198.51.100.N:50123"),
                ("X-Forwarded-For", "[2001:db8:N::7]"),
                ("X-Forwarded-For", "[2001:db8:N::7]:443"),
                ("X-Forwarded-For", "\"2001:db8:N::7\""),
                ("Forwarded", "for=192.0.2.N;proto=https"),
                ("Forwarded", "proto=https; For=\"[2001:db8:N::7]:4711\", for=127.50.0.9"),
            ]
            .into_iter()
            .enumerate()
            {
                let of = |client: usize| form.replace('N', &(10 * number + client).to_string());
                (0..5).for_each(|_| assert_eq!(ask(name, &of(1)), 401, "{name}: {}", of(1)));
                assert_eq!((ask(name, &of(1)), ask(name, &of(2))), (429, 401), "{name}: {form}");
            }
            for (name, value) in [
                ("X-Forwarded-For", "unknown"),
                ("Forwarded", "for=_hidden"),
                ("X-Forwarded-For", "203.0.113.99, nonsense"),
                ("X-Forwarded-For", "nonsense, 127.50.0.7"),
            ] {
                (0..8).for_each(|_| assert_eq!(ask(name, value), 401, "{name}: {value}"));
            }
            crate::common::eventually("the log says what cannot be read", || {
                server.log().contains("forwarded address unreadable").then_some(())
            });
        },
    );
}

/// Threat T26: the PROXY protocol in text (version 1) names the client as its second version does; a broken header is
/// logged and ends the connection.
#[test]
fn proxy_protocol_in_text() {
    on_fresh_servers(
        |driver| trusting(driver).with(&["--auth-failures-per-minute", "5"]),
        |server| {
            let path = server.app().path("/events");
            let ask = |line: &str| {
                let mut bytes = format!("{line}\r\n").into_bytes();
                bytes.extend(encode_request("POST", &path, &[("Authorization", "Bearer rly_none")], b"{}"));
                let mut connection = HttpConnection::open_from(PROXY, server.address);
                connection.write(&bytes).unwrap();
                connection.try_read().map(|answer| answer.status).ok()
            };
            for form in ["PROXY TCP4 203.0.113.N 127.0.0.1 50000 6001", "PROXY TCP6 2001:db8:N::7 ::1 50000 6001"] {
                let of = |client: &str| form.replace('N', client);
                (0..5).for_each(|_| assert_eq!(ask(&of("7")), Some(401)));
                assert_eq!((ask(&of("7")), ask(&of("8"))), (Some(429), Some(401)));
            }
            assert_eq!(ask("PROXY UNKNOWN"), Some(401));
            assert_eq!(ask("PROXY TCP4 nonsense"), None);
            // A proxy that is not configured: 400, and the log states why.
            for header in [b"PROXY TCP4 203.0.113.7 127.0.0.1 50000 6001\r\n".to_vec(), proxy_header([10, 4, 4, 4])] {
                let mut stranger = HttpConnection::open_from(STRANGER, server.address);
                stranger.write(&[header, encode_request("GET", "/up", &[], b"")].concat()).unwrap();
                stranger.read().expect(400);
            }
            crate::common::eventually("the log names the stranger's header", || {
                (server.log().matches("\"untrusted\"").count() == 2).then_some(())
            });
            crate::common::eventually("the log names the header", || {
                server.log().contains("PROXY protocol header refused").then_some(())
            });
        },
    );
}

/// P-CLOSE-4: a TLS-only app believes `X-Forwarded-Proto: https` from a trusted proxy, and from no other peer.
#[test]
fn tls_only_behind_a_trusted_proxy() {
    on_fresh_servers(trusting, |server| {
        let app = server.named_app("tls");
        let target = format!("/app/{}{QUERY}", app.key);
        let connect = |source: Ipv4Addr, proto: &str| {
            let stream = crate::common::http::connect_from(source, server.address).unwrap();
            Socket::upgrade_on(stream, app, &target, &[("X-Forwarded-Proto", proto)]).0
        };
        connect(PROXY, "https").established();
        // The value that Traefik sends, and a list of two proxies.
        connect(PROXY, "wss").established();
        connect(PROXY, "HTTPS, http").established();
        connect(PROXY, "http").expect_fatal(4000);
        connect(STRANGER, "https").expect_fatal(4000);
    });
}

/// PROXY protocol v2, TCP over IPv4, from `client` port 5555 to 10.0.0.1 port 443.
fn proxy_header(client: [u8; 4]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    bytes.extend(client);
    bytes.extend([10, 0, 0, 1]);
    bytes.extend(5555_u16.to_be_bytes());
    bytes.extend(443_u16.to_be_bytes());
    bytes
}
