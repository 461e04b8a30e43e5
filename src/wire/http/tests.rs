//! The codec against tables derived from RFC 9112 and the smuggling rules, at every split, and against httparse.

use proptest::prelude::*;

use super::*;

/// A request without its borrow.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Owned {
    method: String,
    path: String,
    query: Option<String>,
    version: Version,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    keep_alive: bool,
}

fn own(request: &Request<'_>) -> Owned {
    Owned {
        method: request.method.into(),
        path: request.path.into(),
        query: request.query.map(Into::into),
        version: request.version,
        headers: request.headers.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        body: request.body.into(),
        keep_alive: request.keep_alive,
    }
}

/// The requests before the error, if any, and the error.
type Outcome = (Vec<Owned>, Option<HttpError>);

const LIMITS: RequestLimits =
    RequestLimits { head_bytes_max: 600, headers_max: 8, query_bytes_max: 50, body_bytes_max: 100 };

/// Feeds the pieces one after the other, as a connection would, and counts how often `100 Continue` is requested.
fn decode_counting<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &RequestLimits) -> (Outcome, usize) {
    let mut decoder = RequestDecoder::default();
    let mut requests = Vec::new();
    let mut continues = 0;
    for mut piece in pieces {
        while !piece.is_empty() {
            let decoded = match decoder.decode(piece, limits) {
                Ok(decoded) => decoded,
                Err(error) => return ((requests, Some(error)), continues),
            };
            let consumed = decoded.consumed;
            match &decoded.progress {
                Progress::Request(request) => requests.push(own(request)),
                Progress::Partial => assert_eq!(consumed, piece.len(), "all is consumed where no request came"),
                Progress::ExpectsContinue => {
                    assert_eq!(consumed, piece.len());
                    continues += 1;
                }
            }
            piece = &piece[consumed..];
        }
    }
    ((requests, None), continues)
}

fn decode_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &RequestLimits) -> Outcome {
    decode_counting(pieces, limits).0
}

fn decode_all(bytes: &[u8]) -> Outcome {
    decode_pieces([bytes], &LIMITS)
}

/// The same, in one piece, bytewise and at every split in two; the results must agree.
fn decode_every_way(bytes: &[u8]) -> Outcome {
    let whole = decode_all(bytes);
    assert_eq!(decode_pieces(bytes.chunks(1), &LIMITS), whole, "bytewise: {}", bytes.escape_ascii());
    for at in 0..bytes.len() {
        let (first, second) = bytes.split_at(at);
        assert_eq!(decode_pieces([first, second], &LIMITS), whole, "split at {at}: {}", bytes.escape_ascii());
    }
    whole
}

/// P-HTTP-16, T25: pipelined requests are returned one by one, with Content-Length, chunked and without a body, in one
/// piece, bytewise and split anywhere.
#[test]
fn pipelined_requests() {
    let stream = b"POST /apps/1/events?auth_key=k&x=? HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
        \r\nPOST http://a:80/b HTTP/1.1\r\nhost:a:80\r\nTransfer-Encoding: Chunked\r\n\r\n\
        3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nT: v\r\nU:\r\n\r\n\
        GET / HTTP/1.0\r\n\r\n\
        PUT https://a?q HTTP/1.0\r\nConnection: Keep-Alive\r\nX: \t spaced out \t\r\n\r\n\
        OPTIONS * HTTP/1.1\r\nHost:\r\nConnection: foo, CLOSE\r\n\r\n";
    let (requests, error) = decode_every_way(stream);
    assert_eq!(error, None);
    let seen: Vec<_> = requests
        .iter()
        .map(|request| {
            (
                request.method.as_str(),
                request.path.as_str(),
                request.query.as_deref(),
                request.body.as_slice(),
                request.keep_alive,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("POST", "/apps/1/events", Some("auth_key=k&x=?"), &b"hello"[..], true),
            ("POST", "/b", None, b"abc0123456789", true),
            ("GET", "/", None, b"", false),
            ("PUT", "/", Some("q"), b"", true),
            ("OPTIONS", "*", None, b"", false),
        ]
    );
    assert_eq!(requests[3].headers[1], ("X".into(), b"spaced out".to_vec()));
}

/// Puts lines between a good request line and the end of the head.
fn with_headers(lines: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

/// A chunked body after a good head.
fn with_chunks(chunks: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}").into_bytes()
}

/// P-HTTP-16, T25, T24: each pattern that two parsers of a stream could read differently gets 400, however it is split.
#[test]
fn smuggling_patterns_are_refused() {
    let heads = [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: -3\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: 1 2\r\n",
        "Content-Length: 3a\r\n",
        "Content-Length:\r\n",
        "Content-Length: \"3\"\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: -18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999999\r\n",
        "Content-Length : 3\r\n",
        " Content-Length: 3\r\n",
        "X: a\r\n Content-Length: 3\r\n",
        "X: a\r\n\tfolded\r\n",
        "X: a\nContent-Length: 3\r\n",
        "X: a\rContent-Length: 3\r\n",
        "X: a\r\r\n",
        "X: a\0b\r\n",
        "X: a\x0bb\r\n",
        "X: a\x7fb\r\n",
        "X\0: a\r\n",
        "X[]: a\r\n",
        "X\r\n",
        ": a\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding\n: chunked\r\n",
        "Host: b\r\n",
    ];
    for head in heads {
        let (requests, error) = decode_every_way(&with_headers(head));
        assert!(requests.is_empty(), "{head:?}");
        assert!(matches!(error, Some(HttpError::BadRequest(_))), "{head:?}: {error:?}");
    }
    let chunks = [
        "\r\n",
        ";\r\n",
        "x\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-1\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r\n0\n\r\n",
        "3\r\nabc\r\n0\r\n\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "3;a\0\r\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n",
        "00000000000000003\r\nabc\r\n0\r\n\r\n",
        "0\r\nX: a\n\r\n",
        "0\r\n X: a\r\n\r\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\n: a\r\n\r\n",
        "0\r\nX: a\0\r\n\r\n",
        "0\r\nX: a\r\n\rb",
    ];
    for chunks in chunks {
        let (requests, error) = decode_every_way(&with_chunks(chunks));
        assert!(requests.is_empty(), "{chunks:?}");
        assert!(matches!(error, Some(HttpError::BadRequest(_))), "{chunks:?}: {error:?}");
    }
}

/// T25: the request line and the Host header in all their broken forms (including those of h1spec), and the statuses of
/// errors other than 400.
#[test]
fn broken_heads_get_their_status() {
    let cases: [(&[u8], u16); 36] = [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / \r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/11\r\nHost: a\r\n\r\n", 400),
        (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\rX: a\r\n\r\n", 400),
        (b"Extra lineGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://a#/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://a/b#c HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505),
    ];
    for (bytes, status) in cases {
        let (requests, error) = decode_every_way(bytes);
        assert!(requests.is_empty(), "{}", bytes.escape_ascii());
        assert_eq!(error.map(HttpError::status), Some(status), "{}: {error:?}", bytes.escape_ascii());
    }
    let edge = b"GET / HTTP/1.1\r\nhoSt:\texample.com\r\nempty:\r\n\r\n";
    assert_eq!(decode_every_way(edge).1, None);
}

/// P-LIM-11: each limit at its value and one above it; a body that is too large is rejected before it is sent.
#[test]
fn limits_are_exact() {
    let outcome = |bytes: &[u8]| decode_every_way(bytes).1;
    let with_length = |length: usize| with_headers(&format!("Content-Length: {length}\r\n"));
    assert_eq!(outcome(&[with_length(100), vec![b'x'; 100]].concat()), None);
    assert_eq!(outcome(&with_length(101)), Some(HttpError::BodyTooLarge(100)));
    assert_eq!(outcome(&with_chunks(&format!("64\r\n{}\r\n0\r\n\r\n", "x".repeat(100)))), None);
    assert_eq!(outcome(&with_chunks("65\r")), Some(HttpError::BodyTooLarge(100)));
    assert_eq!(outcome(&with_chunks("ffffffffffffffff")), Some(HttpError::BodyTooLarge(100)));
    assert_eq!(outcome(&with_chunks(&format!("32\r\n{}\r\n33\r", "x".repeat(50)))), Some(HttpError::BodyTooLarge(100)));

    let with_query = |length: usize| format!("GET /?{} HTTP/1.1\r\nHost: a\r\n\r\n", "q".repeat(length)).into_bytes();
    assert_eq!(outcome(&with_query(50)), None);
    assert_eq!(outcome(&with_query(51)), Some(HttpError::QueryTooLong));

    assert_eq!(outcome(&with_headers(&"X: y\r\n".repeat(7))), None);
    assert_eq!(outcome(&with_headers(&"X: y\r\n".repeat(8))), Some(HttpError::HeadTooLarge));

    let filler = 600 - with_headers("X: \r\n").len();
    let with_head = |extra: usize| with_headers(&format!("X: {}\r\n", "y".repeat(filler + extra)));
    assert_eq!((with_head(0).len(), outcome(&with_head(0))), (600, None));
    assert_eq!(outcome(&with_head(1)), Some(HttpError::HeadTooLarge));
    assert_eq!(outcome(&b"A".repeat(600)), Some(HttpError::HeadTooLarge));
    assert_eq!(outcome(&b"A".repeat(599)), None);

    let with_extension = |length: usize| with_chunks(&format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(length)));
    assert_eq!(outcome(&with_extension(599)), None);
    assert_eq!(outcome(&with_extension(600)), Some(HttpError::HeadTooLarge));
    let endless_trailers = with_chunks(&format!("0\r\n{}", "X: y\r\n".repeat(200)));
    assert_eq!(outcome(&endless_trailers), Some(HttpError::HeadTooLarge));
}

/// P-LIM-11, T14: the memory held never exceeds twice the received bytes, whatever length is declared; after the
/// request none is held.
#[test]
fn memory_follows_arrived_bytes() {
    let limits = RequestLimits { body_bytes_max: 1 << 20, ..LIMITS };
    let bytes = [with_headers("Content-Length: 1048576\r\n"), vec![b'x'; 1 << 20]].concat();
    let mut decoder = RequestDecoder::default();
    let mut arrived = 0;
    for chunk in bytes.chunks(1_000) {
        arrived += chunk.len();
        let is_whole = matches!(decoder.decode(chunk, &limits).expect("no breach").progress, Progress::Request(_));
        assert_eq!(is_whole, arrived == bytes.len());
        assert_eq!(decoder.is_idle(), is_whole);
        assert!(decoder.held_bytes() <= 2 * arrived.max(600), "{} after {arrived}", decoder.held_bytes());
    }
    decoder.release();
    assert_eq!(decoder.held_bytes(), 0);
}

/// T14: a body that is discarded once the head is complete, wherever the stream is split: no byte of it is kept, its
/// framing and its limit are checked as usual, and the request is returned without it, with the request behind it
/// untouched.
#[test]
fn discarded_bodies_are_framed_as_others() {
    let behind = with_headers("X: y\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    let length = [with_headers("Content-Length: 90\r\n"), vec![b'z'; 90]].concat();
    let chunks = [with_headers(chunked), b"50\r\n".to_vec(), vec![b'z'; 80], b"\r\n0\r\n\r\n".to_vec()].concat();
    let part = format!("30\r\n{}\r\n", "z".repeat(48));
    let too_long = [with_headers(chunked), part.repeat(3).into_bytes()].concat();
    for (sent, expected) in [(length, None), (chunks, None), (too_long, Some(HttpError::BodyTooLarge(100)))] {
        let sent = [sent, behind.clone()].concat();
        let head_bytes = sent.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
        for split in head_bytes..head_bytes + 60 {
            let mut decoder = RequestDecoder::default();
            let (mut bodies, mut outcome) = (Vec::new(), None);
            for mut piece in [&sent[..split], &sent[split..]] {
                while !piece.is_empty() && outcome.is_none() {
                    match decoder.decode(piece, &LIMITS) {
                        Err(error) => outcome = Some(error),
                        Ok(DecodedRequest { consumed, progress }) => {
                            piece = &piece[consumed..];
                            if let Progress::Request(request) = progress {
                                bodies.push(request.body.len());
                            } else if decoder.take_head(&LIMITS).is_some() {
                                assert!(decoder.take_head(&LIMITS).is_none(), "once");
                                decoder.discard_body();
                                assert!(!decoder.keeps_body());
                            }
                        }
                    }
                }
                // After an error the decoder is not used any more.
                let held_bytes = if outcome.is_none() { decoder.held_bytes() } else { 0 };
                assert!(held_bytes <= head_bytes, "{held_bytes} at {split}");
            }
            assert_eq!(outcome, expected, "at {split}");
            assert_eq!(bodies.len(), if expected.is_some() { 0 } else { 2 }, "at {split}");
            assert!(bodies.iter().all(|bytes| *bytes == 0), "at {split}");
        }
    }
}

/// P-HTTP-16: a request without a body is the same when parsed again from its encoded head.
#[test]
fn encoded_heads_read_the_same() {
    for head in ["GET /a?b=%41&c HTTP/1.1\r\nHost: h\r\nUpgrade:  websocket \r\n\r\n", "GET http://h/ HTTP/1.0\r\n\r\n"]
    {
        let mut decoder = RequestDecoder::default();
        let Progress::Request(request) = decoder.decode(head.as_bytes(), &LIMITS).expect("no breach").progress else {
            panic!("no request")
        };
        let (requests, error) = decode_all(&request.encode_head());
        assert_eq!((requests, error), (vec![own(&request)], None));
    }
}

/// A request that is complete in the input borrows from it, and the bytes after it stay in the input: after an upgrade
/// they are not HTTP (T25).
#[test]
fn whole_requests_are_lent_from_the_input() {
    let mut bytes = with_headers("Content-Length: 3\r\n");
    let head_bytes = bytes.len();
    bytes.extend(b"abcGET / ");
    let mut decoder = RequestDecoder::default();
    let decoded = decoder.decode(&bytes, &LIMITS).expect("no breach");
    assert_eq!(decoded.consumed, head_bytes + 3);
    let Progress::Request(request) = decoded.progress else { panic!("no request") };
    assert!(bytes.as_ptr_range().contains(&request.body.as_ptr()));
    assert_eq!(decoder.held_bytes(), 0);
}

/// RFC 9110 section 10.1.1: `100 Continue` is requested once, when the body is awaited; not under HTTP/1.0, not without
/// a body.
#[test]
fn continue_is_asked_for_once() {
    let continues = |pieces: &[&[u8]]| decode_counting(pieces.iter().copied(), &LIMITS).1;
    let head = with_headers("Expect: 100-Continue\r\nContent-Length: 3\r\n");
    assert_eq!(continues(&[&head, b"a", b"bc"]), 1);
    assert_eq!(continues(&[&head[..10], &head[10..], b"abc"]), 1);
    assert_eq!(continues(&[&[&head[..], b"abc"].concat()]), 0);
    let chunked = with_headers("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n");
    assert_eq!(continues(&[&chunked, b"1\r", b"\na\r\n0\r\n\r\n"]), 1);
    assert_eq!(continues(&[&with_headers("Expect: 100-continue\r\n")]), 0);
    let old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(continues(&[old, b"abc"]), 0);
}

fn upgrade(head: &str) -> Result<Vec<u8>, UpgradeError> {
    let mut decoder = RequestDecoder::default();
    let decoded = decoder.decode(head.as_bytes(), &LIMITS).expect("a request");
    let Progress::Request(request) = decoded.progress else { panic!("no request in {head:?}") };
    decode_upgrade(&request).map(<[u8]>::to_vec)
}

const UPGRADE: &str = "GET /app/k?protocol=7 HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// P-CONN-7: the opening handshake of RFC 6455 section 4.2.1, each requirement broken once.
#[test]
fn opening_handshake() {
    assert_eq!(upgrade(UPGRADE), Ok(b"dGhlIHNhbXBsZSBub25jZQ==".to_vec()));
    for (from, to) in [
        ("GET", "POST"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("WebSocket", "h2c"),
        ("keep-alive, Upgrade", "keep-alive"),
        ("Sec-WebSocket-Version: 13\r\n", ""),
        ("Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=a"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSB$b25jZQ=="),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        ("Host: a\r\n", "Host: a\r\nTransfer-Encoding: chunked\r\n"),
    ] {
        let mut head = UPGRADE.replace(from, to);
        if to.contains("chunked") {
            head.push_str("1\r\na\r\n0\r\n\r\n");
        }
        assert!(matches!(upgrade(&head), Err(UpgradeError::BadRequest(_))), "{head:?}");
    }
    assert_eq!(upgrade(&UPGRADE.replace("Version: 13", "Version: 8")), Err(UpgradeError::Version));
}

/// P-CONN-6, P-HTTP-15: httparse can parse the output of the encoders.
#[test]
fn responses_are_read_back_by_httparse() {
    for (status, reason) in
        [(200, "OK"), (404, "Not Found"), (431, "Request Header Fields Too Large"), (503, "Service Unavailable")]
    {
        for (keep_alive, connection) in [(true, "keep-alive"), (false, "close")] {
            let mut bytes = Vec::new();
            encode_response(&mut bytes, status, "text/plain", "Retry-After: 1\r\n", b"body\n", keep_alive);
            let expected = [
                ("Content-Type", "text/plain"),
                ("Content-Length", "5"),
                ("Retry-After", "1"),
                ("Connection", connection),
            ];
            assert_eq!(parse_response(&bytes), (status, reason.into(), owned(&expected), b"body\n".to_vec()));
        }
    }
    let mut bytes = Vec::new();
    encode_response(&mut bytes, 204, "text/plain", "Allow: POST\r\n", b"", true);
    let expected = [("Allow", "POST"), ("Connection", "keep-alive")];
    assert_eq!(parse_response(&bytes), (204, "No Content".into(), owned(&expected), vec![]));
    let mut bytes = Vec::new();
    encode_upgrade(&mut bytes, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", Some("pusher-channels-protocol-7"));
    let expected = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("Sec-WebSocket-Protocol", "pusher-channels-protocol-7"),
    ];
    assert_eq!(parse_response(&bytes), (101, "Switching Protocols".into(), owned(&expected), vec![]));
}

type Response = (u16, String, Vec<(String, String)>, Vec<u8>);

fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn parse_response(bytes: &[u8]) -> Response {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = response.parse(bytes).expect("a response").unwrap();
    let headers = response
        .headers
        .iter()
        .map(|header| (header.name.into(), String::from_utf8(header.value.into()).expect("ASCII")))
        .collect();
    let (code, reason) = (response.code.expect("a status"), response.reason.expect("a reason").into());
    (code, reason, headers, bytes[head_bytes..].into())
}

/// P-STAT-1 to P-STAT-8: every status that any response uses has its reason phrase.
#[test]
fn every_status_has_a_reason() {
    for status in [200, 202, 204, 400, 401, 403, 404, 405, 409, 413, 426, 429, 431, 500, 501, 503, 505, 101, 100] {
        let mut bytes = Vec::new();
        encode_response_head(&mut bytes, status, "", "", 0, true);
        assert!(!parse_response(&bytes).1.is_empty(), "{status}");
    }
}

/// A body and how it is sent over the wire.
#[derive(Clone, Debug)]
enum Body {
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>, bool),
}

fn body() -> impl Strategy<Value = Body> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..30);
    prop_oneof![
        bytes().prop_map(Body::Length),
        (prop::collection::vec(bytes(), 0..3), any::<bool>())
            .prop_map(|(chunks, extras)| Body::Chunked(chunks, extras)),
    ]
}

fn encode_body(body: &Body, wire: &mut Vec<u8>) -> Vec<u8> {
    match body {
        Body::Length(bytes) => {
            wire.extend(format!("Content-Length: {:02}\r\n\r\n", bytes.len()).bytes());
            wire.extend(bytes);
            bytes.clone()
        }
        Body::Chunked(chunks, extras) => {
            wire.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                wire.extend(format!("{:X}{}\r\n", chunk.len(), if *extras { ";a=\"b\"" } else { "" }).bytes());
                wire.extend(chunk);
                wire.extend(b"\r\n");
            }
            wire.extend(if *extras { &b"00;c\r\nTrailer: x\r\n\r\n"[..] } else { b"0\r\n\r\n" });
            chunks.concat()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// P-HTTP-16: random pipelined requests are decoded as sent, in one piece and in random pieces.
    #[test]
    fn requests_arrive_as_sent_however_split(
        sent in prop::collection::vec((body(), "[!-~]{0,20}", any::<bool>()), 1..5),
        piece in 1..60_usize,
    ) {
        let mut wire = Vec::new();
        let mut expected = Vec::new();
        for (body, value, leading) in &sent {
            wire.extend(if *leading { &b"\r\n"[..] } else { b"" });
            wire.extend(format!("POST /a HTTP/1.1\r\nHost: a\r\nX-Value: {value}\r\n").bytes());
            let body = encode_body(body, &mut wire);
            expected.push((value.clone().into_bytes(), body));
        }
        let whole = decode_all(&wire);
        prop_assert_eq!(whole.1, None);
        let seen: Vec<_> = whole.0.iter().map(|request| (request.headers[1].1.clone(), request.body.clone())).collect();
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(decode_pieces(wire.chunks(piece), &LIMITS), whole);
    }

    /// P-HTTP-16, T25: a stream corrupted at one byte gives the same requests and the same error in one piece, in
    /// several pieces and bytewise.
    #[test]
    fn spoilt_streams_fail_alike_however_split(
        bodies in prop::collection::vec(body(), 1..4),
        at in any::<prop::sample::Index>(),
        spoilt in prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(b';'), b'0'..=b'9'],
        piece in 1..60_usize,
    ) {
        let mut wire = Vec::new();
        for body in &bodies {
            wire.extend(b"POST /a?b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
            encode_body(body, &mut wire);
        }
        let at = at.index(wire.len());
        wire[at] = spoilt;
        let whole = decode_all(&wire);
        prop_assert_eq!(&decode_pieces(wire.chunks(piece), &LIMITS), &whole);
        prop_assert_eq!(&decode_pieces(wire.chunks(1), &LIMITS), &whole);
    }

    /// T24, T25: random bytes never cause a panic, and the result does not depend on how they are split.
    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), b' '..=b'~'], 0..200)) {
        prop_assert_eq!(decode_pieces(bytes.chunks(1), &LIMITS), decode_all(&bytes));
    }
}
