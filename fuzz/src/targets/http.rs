//! HTTP/1.1 requests: the same stream split anywhere gives the same requests, and each of them is what a second, naive
//! reader makes of exactly the consumed bytes, so that no two readers disagree about where a request ends.

use relay::wire::http::{HttpError, Progress, Request, RequestDecoder, RequestLimits, Version};

use crate::input::{Input, cuts};

/// An owned copy of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Owned {
    method: String,
    path: String,
    query: Option<String>,
    is_1_1: bool,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    keep_alive: bool,
    /// Its end in the stream.
    end: usize,
}

type Outcome = (Vec<Owned>, Option<HttpError>);

/// P-HTTP-16, P-LIM-11, threats T14, T24, T25.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let limits = *input.pick(&[
        RequestLimits { head_bytes_max: 600, headers_max: 8, query_bytes_max: 50, body_bytes_max: 100 },
        RequestLimits { head_bytes_max: 60, headers_max: 2, query_bytes_max: 5, body_bytes_max: 3 },
        RequestLimits::default(),
    ]);
    let seed = input.word();
    let stream = with_line_ends(input);
    let [whole, bytewise, pieces] = cuts(&stream, seed).map(|pieces| decode(&pieces, &limits));
    assert_eq!(bytewise, whole, "byte by byte: {}", stream.escape_ascii());
    assert_eq!(pieces, whole, "in pieces: {}", stream.escape_ascii());
    let mut start = 0;
    for request in &whole.0 {
        check_request(request, &stream[start..request.end], &limits);
        start = request.end;
    }
}

/// `\n` becomes a complete line end unless the first byte selects raw bytes: most mutations then keep a head intact.
fn with_line_ends(mut input: Input<'_>) -> Vec<u8> {
    if input.below(4) == 0 {
        return input.rest().to_vec();
    }
    let mut stream = Vec::new();
    for byte in input.rest() {
        if *byte == b'\n' && stream.last() != Some(&b'\r') {
            stream.push(b'\r');
        }
        stream.push(*byte);
    }
    stream
}

fn decode(pieces: &[&[u8]], limits: &RequestLimits) -> Outcome {
    let mut decoder = RequestDecoder::default();
    let mut requests = Vec::new();
    let (mut end, mut continues) = (0, 0);
    for piece in pieces {
        let mut piece = *piece;
        while !piece.is_empty() {
            let decoded = match decoder.decode(piece, limits) {
                Ok(decoded) => decoded,
                Err(error) => return (requests, Some(error)),
            };
            let consumed = decoded.consumed;
            end += consumed;
            match decoded.progress {
                Progress::Request(request) => {
                    requests.push(own(&request, end));
                    continues = 0;
                    decoder.release();
                    assert!(decoder.is_idle(), "nothing is held between requests");
                }
                Progress::Partial => assert_eq!(consumed, piece.len(), "without a request all is consumed"),
                Progress::ExpectsContinue => {
                    assert_eq!(consumed, piece.len());
                    continues += 1;
                    assert_eq!(continues, 1, "a request asks to continue once");
                }
            }
            piece = &piece[consumed..];
        }
    }
    (requests, None)
}

fn own(request: &Request<'_>, end: usize) -> Owned {
    Owned {
        method: request.method.into(),
        path: request.path.into(),
        query: request.query.map(Into::into),
        is_1_1: request.version == Version::Http11,
        headers: request.headers.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        body: request.body.into(),
        keep_alive: request.keep_alive,
        end,
    }
}

/// A second reader: splits at line ends, takes nothing on trust, and must arrive at the same request.
fn check_request(request: &Owned, bytes: &[u8], limits: &RequestLimits) {
    let shown = bytes.escape_ascii();
    let text = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let head_end = find(text, b"\r\n\r\n").unwrap_or_else(|| panic!("no end of the head: {shown}")) + 2;
    let (head, body) = (&text[..head_end], &text[head_end + 2..]);
    assert!(head.len() + 2 <= limits.head_bytes_max, "the head is within its bound: {shown}");
    let mut lines = split_lines(head).into_iter();
    let line = lines.next().expect("there is a request line");
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { panic!("three parts in {}: {shown}", line.escape_ascii()) };
    assert_eq!(request.method.as_bytes(), method, "{shown}");
    assert_eq!(request.is_1_1, version == b"HTTP/1.1", "{shown}");
    assert!(matches!(version, b"HTTP/1.1" | b"HTTP/1.0"), "{shown}");
    check_target(request, target);
    let headers: Vec<(Vec<u8>, Vec<u8>)> = lines
        .map(|line| {
            let colon = find(line, b":").unwrap_or_else(|| panic!("a header without a colon: {shown}"));
            assert!(!line.starts_with(b" ") && !line.starts_with(b"\t"), "a folded header: {shown}");
            (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_vec())
        })
        .collect();
    assert!(headers.len() <= limits.headers_max, "{shown}");
    let seen: Vec<_> =
        request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase().into_bytes(), value.clone())).collect();
    assert_eq!(seen, headers, "{shown}");
    check_body(request, &headers, body, limits);
}

fn check_target(request: &Owned, target: &[u8]) {
    let target = std::str::from_utf8(target).expect("targets are ASCII");
    let origin = match target.find("://") {
        Some(scheme) if !target.starts_with('/') => {
            let authority = &target[scheme + 3..];
            &authority[authority.find(['/', '?', '#']).unwrap_or(authority.len())..]
        }
        _ => target,
    };
    let (path, query) = origin.split_once('?').map_or((origin, None), |(path, query)| (path, Some(query)));
    assert_eq!(request.path, if path.is_empty() { "/" } else { path }, "{target}");
    assert_eq!(request.query.as_deref(), query, "{target}");
    assert!(request.path.starts_with('/') || request.path == "*", "{target}");
}

fn check_body(request: &Owned, headers: &[(Vec<u8>, Vec<u8>)], body: &[u8], limits: &RequestLimits) {
    let all = |wanted: &[u8]| -> Vec<&[u8]> {
        headers.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_slice()).collect()
    };
    let has = |name: &[u8], token: &[u8]| {
        all(name)
            .iter()
            .any(|value| value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token)))
    };
    let (lengths, codings) = (all(b"content-length"), all(b"transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "threat T25: {headers:?}");
    assert!(all(b"host").len() == 1 || !request.is_1_1, "{headers:?}");
    let persists = !has(b"connection", b"close") && (request.is_1_1 || has(b"connection", b"keep-alive"));
    assert_eq!(request.keep_alive, persists, "{headers:?}");
    let wanted = match (lengths.first(), codings.first()) {
        (_, Some(coding)) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked") && request.is_1_1, "{headers:?}");
            join_chunks(body)
        }
        (Some(length), None) => {
            let length = std::str::from_utf8(length).expect("digits");
            assert!(!length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()), "{length}");
            assert_eq!(length.parse::<usize>().expect("a length that was accepted"), body.len());
            body.to_vec()
        }
        (None, None) => {
            assert!(body.is_empty(), "bytes after a request without a body are the next one's");
            Vec::new()
        }
    };
    assert!(wanted.len() <= limits.body_bytes_max);
    assert_eq!(request.body, wanted);
}

/// Joins the chunks of a complete body, which must end with the input's last byte.
fn join_chunks(mut rest: &[u8]) -> Vec<u8> {
    let mut joined = Vec::new();
    loop {
        let end = find(rest, b"\r\n").expect("a chunk size has its line");
        let digits = rest[..end].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        assert!(digits == end || rest[digits] == b';', "a size is hex digits up to an extension");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..digits]).expect("digits"), 16).expect("a size");
        rest = &rest[end + 2..];
        if size == 0 {
            break;
        }
        joined.extend(&rest[..size]);
        assert_eq!(&rest[size..size + 2], b"\r\n");
        rest = &rest[size + 2..];
    }
    // Trailers, up to the empty line that ends the body.
    loop {
        let end = find(rest, b"\r\n").expect("trailers end");
        rest = &rest[end + 2..];
        if end == 0 {
            assert!(rest.is_empty(), "the body ends with its empty line");
            return joined;
        }
    }
}

fn split_lines(head: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(end) = find(rest, b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    assert!(rest.is_empty());
    lines
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
