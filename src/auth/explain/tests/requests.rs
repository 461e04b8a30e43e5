//! Signed requests.

use md5::{Digest, Md5};
use proptest::prelude::*;

use super::*;

/// A request that a client signs and sends.
#[derive(Clone, Debug)]
struct Sample {
    method: &'static str,
    path: String,
    /// Its own parameters, as values.
    own: Vec<(String, String)>,
    body: String,
    timestamp: u64,
}

type Pairs = Vec<(String, String)>;

impl Sample {
    fn publish() -> Self {
        Self {
            method: "POST",
            path: "/apps/3/events".into(),
            own: Vec::new(),
            body: r#"{"name":"e","channel":"news","data":"{\"title\":\"Zoë / 😀\"}"}"#.into(),
            timestamp: NOW_S - 3,
        }
    }

    fn list() -> Self {
        let own = [("filter_by_prefix", "presence-a b/é"), ("info", "user_count")];
        Self {
            method: "GET",
            path: "/apps/3/channels".into(),
            own: own.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            body: String::new(),
            timestamp: NOW_S,
        }
    }

    fn pairs_for(&self, key: &str, body: &str) -> Pairs {
        let mut pairs = self.own.clone();
        pairs.push(("auth_key".into(), key.into()));
        pairs.push(("auth_timestamp".into(), self.timestamp.to_string()));
        pairs.push(("auth_version".into(), "1.0".into()));
        if !body.is_empty() {
            pairs.push(("body_md5".into(), hex::encode(Md5::digest(body))));
        }
        pairs.sort();
        pairs
    }

    /// Sorted parameters of the valid request.
    fn pairs(&self) -> Pairs {
        self.pairs_for(NEW.0, &self.body)
    }

    fn query(&self) -> String {
        join(&self.pairs())
    }

    fn text(&self) -> String {
        format!("{}\n{}\n{}", self.method, self.path, self.query())
    }

    /// The valid request, for which this was signed.
    fn signed(&self, text: &str) -> Question {
        self.send(&self.pairs(), &sign(NEW.1, text))
    }

    fn with_query(&self, query: &str) -> Question {
        self.signed(&format!("{}\n{}\n{query}", self.method, self.path))
    }

    fn with_path(&self, path: &str) -> Question {
        self.signed(&format!("{}\n{path}\n{}", self.method, self.query()))
    }

    /// A request with these parameters, signed as sent.
    fn resigned(&self, pairs: &Pairs) -> Question {
        self.send(pairs, &sign(NEW.1, &format!("{}\n{}\n{}", self.method, self.path, join(pairs))))
    }

    /// These parameters and this signature, percent-encoded in the order given.
    fn send(&self, pairs: &Pairs, signature: &str) -> Question {
        let mut sent: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        sent.push(format!("auth_signature={}", encode(signature)));
        self.send_raw(&sent.join("&"), self.body.as_bytes())
    }

    fn send_raw(&self, query: &str, body: &[u8]) -> Question {
        Question::Request {
            method: self.method.into(),
            target: format!("{}?{query}", self.path),
            headers: vec![("host".into(), "relay.test:6001".into())],
            body: Some(body.to_vec()),
        }
    }

    /// The signed request with another body.
    fn with_body(&self, body: &[u8]) -> Question {
        let Question::Request { method, target, headers, .. } = self.signed(&self.text()) else { unreachable!() };
        Question::Request { method, target, headers, body: Some(body.to_vec()) }
    }

    fn with_secret(&self, secret: &str) -> Question {
        self.send(&self.pairs(), &sign(secret, &self.text()))
    }
}

fn join(pairs: &Pairs) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// A separate implementation of percent-encoding: everything but letters, digits and `-._~`.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn without(pairs: &Pairs, name: &str) -> Pairs {
    pairs.iter().filter(|(known, _)| known != name).cloned().collect()
}

fn with(pairs: &Pairs, name: &str, value: &str) -> Pairs {
    let mut changed = without(pairs, name);
    changed.push((name.into(), value.into()));
    changed.sort();
    changed
}

fn text_rows(sample: &Sample) -> Vec<Row> {
    let Sample { method, path, .. } = sample;
    let (query, pairs) = (sample.query(), sample.pairs());
    let reversed: Pairs = pairs.iter().rev().cloned().collect();
    let upper: Pairs = pairs.iter().map(|(name, value)| (name.to_uppercase(), value.clone())).collect();
    vec![
        ("nothing", Cause::Ok, sample.signed(&sample.text())),
        (
            "method in lower case",
            Cause::LowerCaseMethod,
            sample.signed(&format!("{}\n{path}\n{query}", method.to_lowercase())),
        ),
        ("another method", Cause::OtherMethod, sample.signed(&format!("DELETE\n{path}\n{query}"))),
        ("parameters in another order", Cause::UnsortedQuery, sample.with_query(&join(&reversed))),
        ("names in upper case", Cause::UpperCaseNames, sample.with_query(&join(&upper))),
        (
            "path without its beginning",
            Cause::PathPrefix,
            sample.with_path(path.strip_prefix("/apps/3").expect("a path of the app")),
        ),
        ("path with /api/v1", Cause::PathPrefix, sample.with_path(&format!("/api/v1{path}"))),
        ("path with the server's prefix", Cause::PathPrefix, sample.with_path(&format!("/relay{path}"))),
        ("a doubled slash", Cause::PathSlashes, sample.with_path(&format!("/{path}"))),
        ("a slash after the path", Cause::PathSlashes, sample.with_path(&format!("{path}/"))),
        ("no slash before the path", Cause::PathSlashes, sample.with_path(path.trim_start_matches('/'))),
        ("host and path", Cause::HostInPath, sample.with_path(&format!("relay.test{path}"))),
        ("the URL", Cause::HostInPath, sample.with_path(&format!("https://relay.test:6001{path}"))),
        ("path and query", Cause::QueryInPath, sample.signed(&format!("{method}\n{path}?{query}"))),
        ("a question mark before the query", Cause::QueryInPath, sample.signed(&format!("{method}\n{path}\n?{query}"))),
        ("a backslash and an n", Cause::WrongSeparator, sample.signed(&format!("{method}\\n{path}\\n{query}"))),
        ("CR LF", Cause::WrongSeparator, sample.signed(&format!("{method}\r\n{path}\r\n{query}"))),
        ("no line feeds", Cause::WrongSeparator, sample.signed(&format!("{method}{path}{query}"))),
        ("a line feed after the text", Cause::TrailingNewline, sample.signed(&format!("{}\n", sample.text()))),
        ("no method", Cause::MissingPart, sample.signed(&format!("{path}\n{query}"))),
        ("no query", Cause::MissingPart, sample.signed(&format!("{method}\n{path}"))),
        (
            "auth_version not signed",
            Cause::UnsignedParameters,
            sample.with_query(&join(&without(&pairs, "auth_version"))),
        ),
        ("a parameter added after signing", Cause::UnsignedParameters, {
            sample.send(&with(&pairs, "added", "1"), &sign(NEW.1, &sample.text()))
        }),
        ("no auth_version", Cause::MissingParameter, sample.resigned(&without(&pairs, "auth_version"))),
        (
            "auth_key twice",
            Cause::RepeatedParameter,
            sample.resigned(&[&pairs[..], &[("auth_key".into(), NEW.0.into())]].concat()),
        ),
        ("auth_version 2.0", Cause::WrongVersion, sample.resigned(&with(&pairs, "auth_version", "2.0"))),
        (
            "a date as timestamp",
            Cause::MalformedTimestamp,
            sample.resigned(&with(&pairs, "auth_timestamp", "2027-01-15")),
        ),
        (
            "601 s behind",
            Cause::ClockSkew,
            sample.resigned(&with(&pairs, "auth_timestamp", &(NOW_S - 601).to_string())),
        ),
        (
            "an hour ahead",
            Cause::ClockSkew,
            sample.resigned(&with(&pairs, "auth_timestamp", &(NOW_S + 3_600).to_string())),
        ),
        (
            "timestamp in ms",
            Cause::TimestampInMs,
            sample.resigned(&with(&pairs, "auth_timestamp", &(NOW_S * 1_000).to_string())),
        ),
        ("timestamp in ms, signed in s", Cause::TimestampInMs, {
            sample.send(
                &with(&pairs, "auth_timestamp", &format!("{}123", sample.timestamp)),
                &sign(NEW.1, &sample.text()),
            )
        }),
        ("another path", Cause::OtherAppPath, {
            let elsewhere = Sample { path: path.replacen("/3/", "/17/", 1), ..sample.clone() };
            elsewhere.signed(&elsewhere.text())
        }),
        ("300 parameters", Cause::QueryTooLong, {
            let many = (0..300).map(|number| (format!("p{number:03}"), "1".to_owned()));
            sample.resigned(&pairs.iter().cloned().chain(many).collect())
        }),
        ("another text", Cause::Unknown, sample.signed("POST\n/apps/3/events\nx=1")),
    ]
}

fn secret_rows(sample: &Sample) -> Vec<Row> {
    let text = sample.text();
    let right = sign(NEW.1, &text);
    let keyed = |key: &str, secret: &str| {
        let pairs = sample.pairs_for(key, &sample.body);
        sample.send(&pairs, &sign(secret, &format!("{}\n{}\n{}", sample.method, sample.path, join(&pairs))))
    };
    let sent = |signature: &str| sample.send(&sample.pairs(), signature);
    vec![
        ("key and secret swapped", Cause::SwappedKeyAndSecret, keyed(NEW.1, NEW.0)),
        ("the secret sent as the key", Cause::SwappedKeyAndSecret, keyed(NEW.1, NEW.1)),
        ("signed with the key", Cause::SignedWithKey, sample.with_secret(NEW.0)),
        ("secret of the older key", Cause::SecretOfOtherKey, sample.with_secret(OLD.1)),
        ("secret of another app", Cause::SecretOfOtherApp, sample.with_secret(OTHER.1)),
        ("key of another app", Cause::OtherAppKey, keyed(OTHER.0, OTHER.1)),
        ("a removed key", Cause::UnknownKey, keyed("0123456789abcdef0123", "gone")),
        ("quotes around the key", Cause::QuotedKey, keyed(&format!("\"{}\"", NEW.0), NEW.1)),
        ("a line feed after the key", Cause::PaddedKey, keyed(&format!("{}\n", NEW.0), NEW.1)),
        ("a line feed after the secret", Cause::PaddedSecret, sample.with_secret(&format!("{}\n", NEW.1))),
        ("quotes around the secret", Cause::QuotedSecret, sample.with_secret(&format!("\"{}\"", NEW.1))),
        ("no secret", Cause::EmptySecret, sample.with_secret("")),
        ("upper-case hex", Cause::UpperCaseSignature, sent(&right.to_uppercase())),
        ("base64", Cause::Base64Signature, sent(&base64(&hex::decode(&right).expect("hex")))),
        ("a space after the signature", Cause::PaddedSignature, sent(&format!("{right} "))),
        ("half a signature", Cause::MalformedSignature, sent(&right[..32])),
        (
            "no signature",
            Cause::MissingParameter,
            sample.send_raw(&join(&without(&sample.pairs(), "none")), sample.body.as_bytes()),
        ),
        ("UTF-16", Cause::WrongEncoding, {
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            sent(&hex::encode(hmac_of(NEW.1.as_bytes(), &utf16)))
        }),
        ("MD5 of the text", Cause::MalformedSignature, sent(&hex::encode(Md5::digest(&text)))),
        ("nothing signed", Cause::MissingCredential, sample.send_raw("info=user_count", sample.body.as_bytes())),
    ]
}

/// The encoder of Python's `base64`, for 32 bytes: a separate implementation.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let digits = bits.as_bytes().chunks(6).map(|chunk| {
        let chunk = format!("{:0<6}", std::str::from_utf8(chunk).expect("digits"));
        char::from(DIGITS[usize::from_str_radix(&chunk, 2).expect("binary")])
    });
    let text: String = digits.collect();
    format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4))
}

/// Mistakes with the parameters of a list.
fn query_rows(sample: &Sample) -> Vec<Row> {
    let pairs = sample.pairs();
    let coded = |coding: &dyn Fn(&str) -> String| join(&pairs.iter().map(|(n, v)| (n.clone(), coding(v))).collect());
    let raw = coded(&encode);
    let plus = coded(&|value: &str| encode(value).replace("%20", "+"));
    let own_first: Pairs = [&pairs[3..], &pairs[..3]].concat();
    vec![
        ("values percent-encoded (accepted)", Cause::Ok, sample.with_query(&raw)),
        ("values encoded as in a form", Cause::PercentEncoding, sample.with_query(&plus)),
        ("values encoded twice", Cause::PercentEncoding, {
            let twice: Pairs = pairs.iter().map(|(name, value)| (name.clone(), encode(value))).collect();
            // The values that are sent are encoded once more than the signed ones.
            sample.send(&twice, &sign(NEW.1, &sample.text()))
        }),
        ("own parameters not signed", Cause::UnsignedParameters, {
            let reserved: Pairs = pairs.iter().filter(|(name, _)| name.starts_with("auth_")).cloned().collect();
            sample.with_query(&join(&reserved))
        }),
        ("own parameters before the others", Cause::UnsortedQuery, sample.with_query(&join(&own_first))),
    ]
}

/// Mistakes with the body of a publish.
fn body_rows(sample: &Sample) -> Vec<Row> {
    let body = &*sample.body;
    let (pairs, md5) = (sample.pairs(), hex::encode(Md5::digest(body)));
    let lines = format!("{}\n{}\n", sample.method, sample.path);
    let value: Value = serde_json::from_str(body).expect("JSON");
    let escaped: String = body
        .encode_utf16()
        .map(|unit| match char::from_u32(unit.into()).filter(char::is_ascii) {
            Some(c) => c.to_string(),
            None => format!("\\u{unit:04x}"),
        })
        .collect();
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03rest";
    let compressed = |body: &[u8], coding: Option<&str>| {
        let Question::Request { method, target, mut headers, .. } = sample.with_body(body) else { unreachable!() };
        headers.extend(coding.map(|coding| ("content-encoding".to_owned(), coding.to_owned())));
        Question::Request { method, target, headers, body: Some(body.to_vec()) }
    };
    vec![
        ("no body_md5", Cause::MissingBodyMd5, sample.resigned(&without(&pairs, "body_md5"))),
        (
            "body_md5 signed, not sent",
            Cause::MissingBodyMd5,
            sample.send(&without(&pairs, "body_md5"), &sign(NEW.1, &sample.text())),
        ),
        (
            "body_md5 sent, not signed",
            Cause::UnsignedParameters,
            sample.with_query(&join(&without(&pairs, "body_md5"))),
        ),
        ("MD5 of another body", Cause::OtherBody, sample.with_body(b"{\"name\":\"other\"}")),
        (
            "MD5 of no body",
            Cause::Md5OfEmptyBody,
            sample.resigned(&with(&pairs, "body_md5", "d41d8cd98f00b204e9800998ecf8427e")),
        ),
        (
            "body_md5 in base64",
            Cause::EncodedBodyMd5,
            sample.resigned(&with(&pairs, "body_md5", &base64(&Md5::digest(body)))),
        ),
        ("another body_md5 signed than sent", Cause::OtherBody, {
            let other = with(&pairs, "body_md5", &hex::encode(Md5::digest("other")));
            sample.send(&other, &sign(NEW.1, &sample.text()))
        }),
        ("a line feed after the body", Cause::BodyNewline, sample.with_body(format!("{body}\n").as_bytes())),
        ("the body's line feed lost", Cause::BodyNewline, {
            let longer = Sample { body: format!("{body}\n"), ..sample.clone() };
            longer.with_body(body.as_bytes())
        }),
        (
            "the body indented",
            Cause::ReformattedBody,
            sample.with_body(serde_json::to_string_pretty(&in_order(&value)).expect("JSON").as_bytes()),
        ),
        ("the body with Unicode escapes", Cause::ReformattedBody, sample.with_body(escaped.as_bytes())),
        ("the body's escapes and slashes as PHP", Cause::ReformattedBody, {
            let php = Sample { body: escaped.replace('/', "\\/"), ..sample.clone() };
            php.with_body(body.as_bytes())
        }),
        ("the body as Python writes it", Cause::ReformattedBody, {
            let python =
                Sample { body: escaped.replace("\",\"", "\", \"").replace("\":\"", "\": \""), ..sample.clone() };
            python.with_body(body.as_bytes())
        }),
        ("gzip, by its header", Cause::CompressedBody, compressed(gzip, Some("gzip"))),
        ("gzip, by its bytes", Cause::CompressedBody, compressed(gzip, None)),
        ("the body signed", Cause::BodySigned, sample.signed(body)),
        ("the body as third line", Cause::BodySigned, sample.signed(&format!("{lines}{body}"))),
        ("the body as body_md5", Cause::BodySigned, sample.with_query(&sample.query().replace(&md5, body))),
    ]
}

/// A value whose members are printed in the order of `text`: name, channel, data.
fn in_order(value: &Value) -> impl serde::Serialize {
    #[derive(serde::Serialize)]
    struct Event {
        name: Value,
        channel: Value,
        data: Value,
    }
    Event { name: value["name"].clone(), channel: value["channel"].clone(), data: value["data"].clone() }
}

fn all_rows(publish: &Sample, list: &Sample) -> Vec<Row> {
    [text_rows(publish), text_rows(list), secret_rows(publish), secret_rows(list), query_rows(list), body_rows(publish)]
        .concat()
}

/// R-EXPLAIN-2: prints the table of mistakes with requests.
#[test]
fn the_table() {
    let (publish, list) = (Sample::publish(), Sample::list());
    let rows = [text_rows(&publish), secret_rows(&publish), query_rows(&list), body_rows(&publish)].concat();
    print(&directory(), "/relay", &rows);
    check(&directory(), "/relay", &all_rows(&publish, &list));
}

/// R-EXPLAIN-3: the expected text has the right values in the place of the wrong ones, and no secret.
#[test]
fn the_expected_text_is_right() {
    let (directory, sample) = (directory(), Sample::publish());
    let expected = |question: &Question| explain(&state(&directory, ""), question).expected.expect("a text");
    let swapped = sample.pairs_for(NEW.1, &sample.body);
    assert_eq!(expected(&sample.send(&swapped, &"0".repeat(64))), sample.text());
    assert_eq!(expected(&sample.resigned(&without(&sample.pairs(), "body_md5"))), sample.text());
    let ms = with(&sample.pairs(), "auth_timestamp", &format!("{}777", sample.timestamp));
    assert_eq!(expected(&sample.resigned(&ms)), sample.text());
    assert_eq!(expected(&sample.resigned(&with(&sample.pairs(), "auth_version", "2"))), sample.text());
}

/// R-EXPLAIN-2: without the body, which a log does not have, the rest of the request is explained.
#[test]
fn a_request_without_its_body() {
    let (directory, sample) = (directory(), Sample::publish());
    let bodiless = |question: Question| match question {
        Question::Request { method, target, headers, .. } => Question::Request { method, target, headers, body: None },
        Question::Channel { .. } | Question::User { .. } => unreachable!("a request"),
    };
    let rows = [
        ("right", Cause::Ok, bodiless(sample.signed(&sample.text()))),
        ("lower case", Cause::LowerCaseMethod, bodiless(sample.signed(&sample.text().replace("POST", "post")))),
    ];
    check(&directory, "", &rows);
}

fn samples() -> impl Strategy<Value = (Sample, Sample)> {
    let name = "[A-Za-z][A-Za-z0-9_-]{0,20}";
    let text = "[a-zA-Z0-9 <>&äß€😀_-]{1,30}";
    (name, text, text, 0_u64..1_000).prop_map(|(name, title, value, age)| {
        // A slash, and a character beyond ASCII, so that the forms of the body differ.
        let data = serde_json::json!({"title": format!("{title}/é")}).to_string();
        let body =
            format!(r#"{{"name":"{name}","channel":"news","data":{}}}"#, serde_json::to_string(&data).expect("JSON"));
        let timestamp = NOW_S - 500 + age;
        let publish = Sample { body, timestamp, ..Sample::publish() };
        let own = vec![("filter_by_prefix".to_owned(), format!("presence-{value} /é")), ("info".to_owned(), name)];
        (publish, Sample { own, timestamp, ..Sample::list() })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// R-EXPLAIN-2, T53: each mistake is named for any body and parameters, and no answer has a digest or a secret.
    #[test]
    fn each_mistake_is_named((publish, list) in samples()) {
        check(&directory(), "/relay", &all_rows(&publish, &list));
    }

    /// T54: nothing that a caller may ask panics or exceeds the bounds.
    #[test]
    fn anything_gets_an_answer(
        method in "[A-Za-z]{1,8}",
        target in "/(apps/3/)?[!-~é]{0,200}",
        header in "[ -~]{0,60}",
        body in proptest::option::of("(?s).{0,300}"),
    ) {
        let directory = directory();
        let signed = format!("{target}&auth_key={}&auth_timestamp={NOW_S}&auth_version=1.0&auth_signature=", NEW.0);
        for target in [target, format!("{signed}{}", "0a".repeat(32)), signed] {
            let question = Question::Request {
                method: method.clone(),
                target,
                headers: ["Host", "Authorization", "X-Relay-Key", "Content-Encoding"]
                    .map(|name| (name.to_owned(), header.clone()))
                    .to_vec(),
                body: body.clone().map(String::into_bytes),
            };
            check_harmless(&directory, &question, &explain(&state(&directory, "/x"), &question));
        }
    }
}
