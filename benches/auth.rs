//! The cost of each proof: subscription signature, signed request, token, key and secret.
//!
//! Every figure is for one verification on warm caches; the wrong proofs show what a guess costs the server.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use relay::app::{App, AppKey, AppSerial, AppSettings, Directory, Scopes, Secret, Token};
use relay::auth::failures::AuthFailures;
use relay::auth::request::{Accepted, Known, verify_request};
use relay::auth::subscription::verify_subscription;
use relay::auth::token::token_hash;
use relay::moment::Moment;
use relay::wire::http::{Progress, RequestDecoder, RequestLimits};

const KEY: &str = "278d425bdf160c739803";
const SECRET: &str = "7ad3773142a6692b25b8";
const SOCKET: &str = "1234567890123456789.987654321";
const NOW: Moment = Moment { monotonic_ms: 0, unix_ms: 1_353_088_179_000 };

fn app() -> App {
    App {
        serial: AppSerial(1),
        id: "3".into(),
        name: "bench".into(),
        enabled: true,
        keys: vec![AppKey::new(KEY, SECRET)],
        encryption_master_key: None,
        settings: AppSettings::default(),
        webhooks: Default::default(),
    }
}

fn sign(text: &str) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

fn subscription(c: &mut Criterion) {
    let app = app();
    let mut group = c.benchmark_group("subscription verify");
    let user_info = "x".repeat(150);
    let rows = [
        ("private", "private-order-42", None),
        (
            "presence, 200 bytes",
            "presence-room-42",
            Some(format!(r#"{{"user_id":"12345","user_info":{{"name":"{user_info}"}}}}"#)),
        ),
        ("presence, 10 KiB", "presence-room-42", Some("x".repeat(10_240))),
    ];
    for (name, channel, data) in &rows {
        let data = data.as_deref();
        let text = data.map_or(format!("{SOCKET}:{channel}"), |data| format!("{SOCKET}:{channel}:{data}"));
        let auth = format!("{KEY}:{}", sign(&text));
        assert!(verify_subscription(&app, SOCKET, channel, data, &auth).is_ok());
        group.bench_function(*name, |b| {
            b.iter(|| verify_subscription(black_box(&app), SOCKET, channel, data, black_box(&auth)));
        });
    }
    let wrong = format!("{KEY}:{}", "0".repeat(64));
    assert!(verify_subscription(&app, SOCKET, "private-order-42", None, &wrong).is_err());
    group.bench_function("private, wrong", |b| {
        b.iter(|| verify_subscription(black_box(&app), SOCKET, "private-order-42", None, black_box(&wrong)));
    });
    group.finish();
}

/// The bytes of one request with these header lines.
fn request_bytes(target: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nHost: localhost:6001\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn signed_target(path: &str, signed_path: &str, body: &str, extra: &str) -> String {
    let digest = hex::encode(<md5::Md5 as md5::Digest>::digest(body));
    let query = format!("auth_key={KEY}&auth_timestamp={}&auth_version=1.0&body_md5={digest}", NOW.unix_s());
    let signature = sign(&format!("POST\n{signed_path}\n{query}"));
    format!("{path}?{query}&auth_signature={signature}{extra}")
}

fn request(c: &mut Criterion) {
    let token = format!("rly_{}", "a".repeat(40));
    let tokens = vec![Token {
        id: "tok_1".into(),
        hash: token_hash(&token),
        app: AppSerial(1),
        scopes: Scopes::FULL,
        expires_at_ms: None,
        revoked: false,
    }];
    let directory = Directory::new(1, vec![app()], tokens);
    let small = r#"{"name":"e","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    let large = "x".repeat(10 * 1024);
    let path = "/apps/3/events";
    // Everything that makes candidates differ, so that all 18 are tried.
    let hostile = format!("&k[0]=%41+b{}", "&k[]=%41+b".repeat(200));
    let rows = [
        ("signature", request_bytes(&signed_target(path, path, small, ""), "", small), true),
        (
            "signature, shorter path",
            request_bytes(&signed_target("/api/v1/apps/3/events", path, small, ""), "", small),
            true,
        ),
        ("signature, 10 KiB body", request_bytes(&signed_target(path, path, &large, ""), "", &large), true),
        ("signature, wrong", request_bytes(&signed_target(path, "/other", small, ""), "", small), false),
        (
            "signature, wrong, all candidates",
            request_bytes(&signed_target("/api/v1/apps/3/%65vents", path, small, &hostile), "", small),
            false,
        ),
        ("token", request_bytes(path, &format!("Authorization: Bearer {token}\r\n"), small), true),
        (
            "key and secret",
            request_bytes(path, &format!("X-Relay-Key: {KEY}\r\nX-Relay-Secret: {SECRET}\r\n"), small),
            true,
        ),
    ];
    let limits = RequestLimits {
        head_bytes_max: 16 * 1024,
        headers_max: 64,
        query_bytes_max: 8 * 1024,
        body_bytes_max: 1024 * 1024,
    };
    let mut group = c.benchmark_group("request verify");
    for (name, bytes, accepted) in &rows {
        let mut decoder = RequestDecoder::default();
        let decoded = decoder.decode(bytes, &limits).expect("a sound request");
        let Progress::Request(request) = decoded.progress else { panic!("{name}: not a whole request") };
        let verdict = verify_request(&directory, "3", &request, Known::Whole, "", NOW, Accepted::Usual);
        assert_eq!(verdict.is_ok(), *accepted, "{name}: {verdict:?}");
        group.bench_function(*name, |b| {
            b.iter(|| {
                verify_request(black_box(&directory), "3", black_box(&request), Known::Whole, "", NOW, Accepted::Usual)
            });
        });
    }
    group.finish();
}

fn secrets(c: &mut Criterion) {
    let token = format!("rly_{}", "a".repeat(40));
    c.bench_function("token hash", |b| b.iter(|| token_hash(black_box(&token))));
    let secret = Secret::new(SECRET);
    let mut group = c.benchmark_group("secret compare");
    let near = format!("{}9", &SECRET[..SECRET.len() - 1]);
    for (name, candidate) in [("right", SECRET), ("wrong at the start", "x"), ("wrong at the end", &near)] {
        group.bench_function(name, |b| b.iter(|| secret.matches(black_box(candidate.as_bytes()))));
    }
    group.finish();
    c.bench_function("failure count, full table", |b| {
        b.iter_batched_ref(
            || {
                let mut failures = AuthFailures::new(100);
                for number in 0..20_000_u32 {
                    failures.count(NOW, std::net::Ipv4Addr::from_bits(number).into());
                }
                (failures, 20_000_u32)
            },
            |(failures, next)| {
                *next += 1;
                failures.count(NOW, std::net::Ipv4Addr::from_bits(*next).into())
            },
            BatchSize::NumIterations(10_000),
        );
    });
}

criterion_group!(benches, subscription, request, secrets);
criterion_main!(benches);
