//! Pusher query signatures (P-SIGN-1 to P-SIGN-5, threat T4).
//!
//! Invariant: everything that gives the request its meaning is signed. Each reserved parameter therefore occurs once
//! and in its plain form, `body_md5` binds the body, and nothing is read from a parameter that the signature does not
//! cover.

use std::borrow::Cow;

use md5::{Digest, Md5};
use ring::hmac;
use smallvec::SmallVec;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::reading::{PARAMETERS_INLINE, Pairs, Reading, SignedText, append_pairs, candidate_paths};
use super::{AuthFailure, decode_signature};
use crate::app::App;
use crate::limits::{
    CANDIDATE_BYTES_MAX, CANDIDATE_PARAMETERS_MAX, DECODED_PARAMETERS_MAX, DECODED_QUERY_BYTES_MAX, SIGNATURE_WINDOW_S,
    SIGNED_PARAMETERS_MAX,
};
use crate::moment::Moment;
use crate::wire::query::{self, Parameter, Query, Values, append_read, array_base};

/// Why a signed request was refused; always 401. No text quotes a signature, a secret or a parameter.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignatureRefusal {
    /// A reserved parameter is absent.
    #[error("The query parameter {0} is missing.")]
    Missing(&'static str),
    /// A reserved parameter occurs twice, or as an array.
    #[error("The query parameter {0} must be present exactly once, not as an array.")]
    Repeated(&'static str),
    /// More parameters than any real signed request has.
    #[error("A signed query has at most {SIGNED_PARAMETERS_MAX} parameters.")]
    TooManyParameters,
    /// Longer than any real query that must be decoded.
    #[error(
        "A signed query with escapes, arrays or upper-case names has at most {DECODED_QUERY_BYTES_MAX} bytes and \
         {DECODED_PARAMETERS_MAX} parameters."
    )]
    TooLong,
    /// `auth_key` is not an active key of the app of the path.
    #[error("The auth_key is not an active key of this app.")]
    UnknownKey,
    /// `auth_version` is not 1.0.
    #[error("The auth_version must be 1.0.")]
    Version,
    /// `auth_timestamp` is not a number.
    #[error("The auth_timestamp must be a whole number of seconds since 1970.")]
    TimestampMalformed,
    /// `auth_timestamp` is too far from the server's clock (P-STAT-7).
    #[error(
        "Timestamp expired: Given timestamp ({}) not within {SIGNATURE_WINDOW_S}s of server time ({})",
        Rfc3339Second(*given_s),
        Rfc3339Second(*server_s)
    )]
    TimestampExpired {
        /// The timestamp of the request, in seconds since 1970.
        given_s: u64,
        /// The server's clock, in seconds since 1970.
        server_s: u64,
    },
    /// `auth_signature` does not have the form of the digest.
    #[error("The auth_signature must be 64 lower-case hex digits.")]
    SignatureMalformed,
    /// No candidate of P-SIGN-5 has this signature.
    #[error(
        "Invalid signature: auth_signature must be the HMAC-SHA256 hex digest, under the secret of auth_key, of \
         METHOD, PATH and the sorted query without auth_signature, each on a separate line."
    )]
    SignatureMismatch,
    /// The body differs from the signed one.
    #[error("The body_md5 is not the MD5 hex digest of the body.")]
    BodyMd5Mismatch,
}

impl SignatureRefusal {
    /// Its name in metrics and logs.
    pub fn failure(self) -> AuthFailure {
        match self {
            Self::Missing(_)
            | Self::Repeated(_)
            | Self::TooManyParameters
            | Self::TooLong
            | Self::Version
            | Self::TimestampMalformed
            | Self::SignatureMalformed => AuthFailure::Malformed,
            Self::UnknownKey => AuthFailure::UnknownKey,
            Self::TimestampExpired { .. } => AuthFailure::StaleTimestamp,
            Self::SignatureMismatch => AuthFailure::BadSignature,
            Self::BodyMd5Mismatch => AuthFailure::BodyMismatch,
        }
    }
}

/// The parts of a request that a signature covers, as requested.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// Method.
    pub method: &'a str,
    /// Path, percent-encoding kept, without the query.
    pub path: &'a str,
    /// The part after the first `?`.
    pub query: &'a str,
    /// Body.
    pub body: SignedBody<'a>,
}

/// The body of a signed request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SignedBody<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// It has not arrived yet, and is not empty: the request needs a `body_md5`, which is not checked.
    Awaited,
    /// It has not arrived yet and may be empty.
    AwaitedOrEmpty,
}

impl SignedBody<'_> {
    fn needs_md5(self) -> bool {
        match self {
            Self::Whole(body) => !body.is_empty(),
            Self::Awaited => true,
            Self::AwaitedOrEmpty => false,
        }
    }
}

/// True when the query contains a signature or a part of one, so that it must be valid (R-AUTH-4).
pub fn is_signed(query: &str) -> bool {
    let mut decoded = Vec::new();
    Query::new(Some(query)).parameters().any(|parameter| match Reserved::of_sent(parameter.name, &mut decoded) {
        Some((Reserved::Key | Reserved::Timestamp | Reserved::Version | Reserved::Signature, _)) => true,
        Some((Reserved::BodyMd5, _)) | None => false,
    })
}

/// Verifies the query signature of a request to this app; returns the index of the key in `app.keys`.
/// `prefix` is the configured path prefix or `""`.
///
/// # Errors
/// [`SignatureRefusal`]. The body is hashed last: only a client that holds the secret can make the server hash a large
/// one.
pub fn verify_signature(app: &App, signed: &Signed<'_>, prefix: &str, now: Moment) -> Result<usize, SignatureRefusal> {
    let query = SignedQuery::decode(signed.query)?;
    if query.body_md5.is_none() && signed.body.needs_md5() {
        return Err(SignatureRefusal::Missing(Reserved::BodyMd5.name()));
    }
    let (index, pair) = app.active_key(&query.key).ok_or(SignatureRefusal::UnknownKey)?;
    if *query.version != *b"1.0" {
        return Err(SignatureRefusal::Version);
    }
    let given_s = decode_seconds(&query.timestamp).ok_or(SignatureRefusal::TimestampMalformed)?;
    let server_s = now.unix_s();
    if given_s.abs_diff(server_s) > SIGNATURE_WINDOW_S {
        return Err(SignatureRefusal::TimestampExpired { given_s, server_s });
    }
    let verifies = |text: &[u8]| hmac::verify(&pair.hmac, text, &query.signature).is_ok();
    if !any_candidate(signed, &query, prefix, verifies) {
        return Err(SignatureRefusal::SignatureMismatch);
    }
    match (&query.body_md5, signed.body) {
        (Some(digest), SignedBody::Whole(body)) if !is_md5_of(digest, body) => Err(SignatureRefusal::BodyMd5Mismatch),
        (Some(_) | None, SignedBody::Whole(_) | SignedBody::Awaited | SignedBody::AwaitedOrEmpty) => Ok(index),
    }
}

/// The query of a signed request.
struct SignedQuery<'a> {
    key: Cow<'a, [u8]>,
    timestamp: Cow<'a, [u8]>,
    version: Cow<'a, [u8]>,
    body_md5: Option<Cow<'a, [u8]>>,
    signature: [u8; 32],
    /// All parameters but `auth_signature`, in the order sent; sorted by name if the query is plain.
    covered: SmallVec<[Parameter<'a>; PARAMETERS_INLINE]>,
    form: QueryForm<'a>,
}

/// Whether a query can be read in several ways (P-SIGN-5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum QueryForm<'a> {
    /// No escape, no plus, no array, no upper-case name: all readings are the bytes as sent, sorted by name. SDKs send
    /// publishes in this form, which need not be examined byte by byte for each reading.
    Plain,
    /// Plain, already sorted and with the signature as its last pair, as most SDKs send it: the signed part of the
    /// query is the text before that pair.
    InOrder(&'a [u8]),
    /// Anything else.
    Ambiguous,
}

impl<'a> SignedQuery<'a> {
    fn decode(query: &'a str) -> Result<Self, SignatureRefusal> {
        let mut reserved = [const { None::<Cow<'a, [u8]>> }; Reserved::ALL.len()];
        let mut covered = SmallVec::<[Parameter<'a>; PARAMETERS_INLINE]>::new();
        let mut is_plain = memchr::memchr3(b'%', b'+', b']', query.as_bytes()).is_none();
        let mut decoded = Vec::new();
        let is_too_long = query.len() > DECODED_QUERY_BYTES_MAX;
        if is_too_long && !is_plain {
            return Err(SignatureRefusal::TooLong);
        }
        for (count, parameter) in Query::new(Some(query)).parameters().enumerate() {
            if count == SIGNED_PARAMETERS_MAX {
                return Err(SignatureRefusal::TooManyParameters);
            }
            let exact = Reserved::exact(parameter.name).map(|which| (which, NameForm::Plain));
            is_plain &= exact.is_some() || !parameter.name.iter().any(u8::is_ascii_uppercase);
            if !is_plain && (is_too_long || count >= DECODED_PARAMETERS_MAX) {
                return Err(SignatureRefusal::TooLong);
            }
            let found = if is_plain { exact } else { Reserved::of_sent(parameter.name, &mut decoded) };
            if let Some((which, form)) = found {
                let value = if is_plain { parameter.value.into() } else { query::decode(parameter.value) };
                let before = reserved[which as usize].replace(value);
                if before.is_some() || form == NameForm::Array {
                    return Err(SignatureRefusal::Repeated(which.name()));
                }
            }
            if !matches!(found, Some((Reserved::Signature, _))) {
                covered.push(parameter);
            }
        }
        let form = if !is_plain {
            QueryForm::Ambiguous
        } else if covered.is_sorted_by_key(|parameter| parameter.name) {
            before_signature(query, &covered).map_or(QueryForm::Plain, QueryForm::InOrder)
        } else {
            // Stable: parameters of one name stay in the order sent.
            covered.sort_by_key(|parameter| parameter.name);
            QueryForm::Plain
        };
        let [key, timestamp, version, signature, body_md5] = reserved;
        let required =
            |value: Option<Cow<'a, [u8]>>, which: Reserved| value.ok_or(SignatureRefusal::Missing(which.name()));
        let signature = required(signature, Reserved::Signature)?;
        Ok(Self {
            key: required(key, Reserved::Key)?,
            timestamp: required(timestamp, Reserved::Timestamp)?,
            version: required(version, Reserved::Version)?,
            body_md5,
            signature: decode_signature(&signature).ok_or(SignatureRefusal::SignatureMalformed)?,
            covered,
            form,
        })
    }
}

/// Parameters that the signature itself consists of. The numbers are their positions in [`SignedQuery::decode`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reserved {
    Key = 0,
    Timestamp = 1,
    Version = 2,
    Signature = 3,
    BodyMd5 = 4,
}

impl Reserved {
    pub(super) const ALL: [Self; 5] = [Self::Key, Self::Timestamp, Self::Version, Self::Signature, Self::BodyMd5];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Key => "auth_key",
            Self::Timestamp => "auth_timestamp",
            Self::Version => "auth_version",
            Self::Signature => "auth_signature",
            Self::BodyMd5 => "body_md5",
        }
    }

    /// The reserved parameter of exactly this name.
    fn exact(name: &[u8]) -> Option<Self> {
        match name {
            b"auth_key" => Some(Self::Key),
            b"auth_timestamp" => Some(Self::Timestamp),
            b"auth_version" => Some(Self::Version),
            b"auth_signature" => Some(Self::Signature),
            b"body_md5" => Some(Self::BodyMd5),
            _ => None,
        }
    }

    /// The reserved parameter of a name as sent, in any spelling; `decoded` is a buffer for decoding it.
    pub(super) fn of_sent(name: &[u8], decoded: &mut Vec<u8>) -> Option<(Self, NameForm)> {
        if let Some(which) = Self::exact(name) {
            return Some((which, NameForm::Plain));
        }
        decoded.clear();
        append_read(decoded, name, Values::Decoded);
        decoded.make_ascii_lowercase();
        Self::of(decoded)
    }

    /// The reserved parameter of this decoded, lower-cased name. The array form counts as well: `body_md5[]=x` is
    /// signed like `body_md5=x` (P-SIGN-5), and must not cause a signed digest to be ignored.
    fn of(name: &[u8]) -> Option<(Self, NameForm)> {
        if let Some(which) = Self::exact(name) {
            return Some((which, NameForm::Plain));
        }
        let (base, form) = array_base(name).map_or((name, NameForm::Plain), |base| (base, NameForm::Array));
        Some((Self::exact(base)?, form))
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NameForm {
    Plain,
    Array,
}

/// The text before the signature, if that is the last pair and the text before it is exactly the other parameters
/// joined: no pair is empty, and each has its `=`. An empty value may lack the `=`, so a query with one is not used
/// this way.
fn before_signature<'a>(query: &'a str, others: &[Parameter<'_>]) -> Option<&'a [u8]> {
    let at = memchr::memrchr(b'&', query.as_bytes())?;
    let (before, last) = query.as_bytes().split_at(at);
    let joined_bytes: usize = others.iter().map(|other| other.name.len() + 1 + other.value.len() + 1).sum();
    let is_exact = joined_bytes == before.len() + 1 && others.iter().all(|other| !other.value.is_empty());
    (is_exact && last.starts_with(b"&auth_signature=")).then_some(before)
}

/// Tries the candidates of P-SIGN-5 in order, the one that SDKs sign first, and returns whether any verifies. A reading
/// that gives the same text as an earlier one is skipped, so a plain query with a wrong signature costs one HMAC.
///
/// For a query beyond what SDKs send, only the first candidate is tried: anybody can cause this work, including an
/// address that is over its failure limit, since a valid credential must be accepted whatever the same address sent
/// before (threat T6).
fn any_candidate(
    signed: &Signed<'_>,
    query: &SignedQuery<'_>,
    prefix: &str,
    mut verifies: impl FnMut(&[u8]) -> bool,
) -> bool {
    let has_candidates = query.covered.len() <= CANDIDATE_PARAMETERS_MAX
        && signed.path.len() + signed.query.len() <= CANDIDATE_BYTES_MAX;
    let paths = if has_candidates {
        candidate_paths(signed.path, prefix)
    } else {
        SmallVec::from_iter([Cow::Borrowed(signed.path.as_bytes())])
    };
    let mut text = SignedText::new();
    if query.form != QueryForm::Ambiguous {
        return paths.iter().any(|path| {
            begin_text(&mut text, signed.method, path);
            if let QueryForm::InOrder(pairs) = query.form {
                text.extend_from_slice(pairs);
            } else {
                append_pairs(&mut text, query.covered.iter().map(|parameter| (parameter.name, parameter.value)));
            }
            verifies(&text)
        });
    }
    let has_any = |byte: u8| has_candidates && memchr::memchr(byte, signed.query.as_bytes()).is_some();
    let readings = [(Values::Decoded, true), (Values::Raw, has_any(b'%')), (Values::PlusAsSpace, has_any(b'+'))];
    for (values, _) in readings.into_iter().filter(|(_, differs)| *differs) {
        let mut reading = Reading::of(&query.covered, values);
        let collapses = has_candidates && reading.has_arrays();
        for (pairs, _) in [(Pairs::AsSent, true), (Pairs::Collapsed, collapses)].into_iter().filter(|(_, is)| *is) {
            let joined = reading.join(pairs);
            for path in &paths {
                begin_text(&mut text, signed.method, path);
                text.extend_from_slice(&joined);
                if verifies(&text) {
                    return true;
                }
            }
        }
    }
    false
}

/// The lines before the query.
fn begin_text(text: &mut SignedText, method: &str, path: &[u8]) {
    text.clear();
    text.extend_from_slice(method.as_bytes());
    text.make_ascii_uppercase();
    text.push(b'\n');
    text.extend_from_slice(path);
    text.push(b'\n');
}

fn decode_seconds(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    // `parse` would accept a sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Not in constant time: the expected digest covers the request's own body and is not secret.
fn is_md5_of(digest: &[u8], body: &[u8]) -> bool {
    let mut given = [0_u8; 16];
    // The decoder would skip a leading `0x`, so the length is checked here.
    digest.len() == 2 * given.len()
        && const_hex::decode_to_slice(digest, &mut given).is_ok()
        && Md5::digest(body)[..] == given
}

/// Seconds since 1970 as `2013-09-29T08:46:33Z`; times beyond the year 9999 as the number itself.
struct Rfc3339Second(u64);

impl std::fmt::Display for Rfc3339Second {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = i64::try_from(self.0)
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .and_then(|date| date.format(&Rfc3339).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use ::hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;

    use super::*;
    use crate::app::{AppKey, AppSerial, AppSettings};

    const KEY: &str = "278d425bdf160c739803";
    const SECRET: &str = "7ad3773142a6692b25b8";
    const SENT_S: u64 = 1_353_088_179;
    const BODY: &str = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    const BODY_MD5: &str = "ec365a775a4cd0599faeb73354201b6f";
    const EMPTY_MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn app() -> App {
        App {
            serial: AppSerial(1),
            id: "3".into(),
            name: "".into(),
            enabled: true,
            keys: vec![AppKey::new("older", "older-secret"), AppKey::new(KEY, SECRET)],
            encryption_master_key: None,
            settings: AppSettings::default(),
            webhooks: Default::default(),
        }
    }

    /// Independent signer over a text that the test wrote out itself.
    fn sign(text: &str) -> String {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
        mac.update(text.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    fn verify_at(now_s: u64, prefix: &str, method: &str, target: &str, body: &str) -> Result<usize, SignatureRefusal> {
        let (path, query) = target.split_once('?').expect("a query");
        let signed = Signed { method, path, query, body: SignedBody::Whole(body.as_bytes()) };
        let now = Moment { monotonic_ms: 5, unix_ms: now_s * 1_000 };
        verify_signature(&app(), &signed, prefix, now)
    }

    fn verify(method: &str, target: &str, body: &str) -> Result<usize, SignatureRefusal> {
        verify_at(SENT_S, "", method, target, body)
    }

    /// The parameters that every signed request has, in the order that signing sorts them.
    fn auth() -> String {
        format!("auth_key={KEY}&auth_timestamp={SENT_S}&auth_version=1.0")
    }

    /// The vector's request with the parameters of `auth` and its signature.
    fn post() -> String {
        let query = format!("{}&body_md5={BODY_MD5}", auth());
        let signature = sign(&format!("POST\n/apps/3/events\n{query}"));
        format!("/apps/3/events?{query}&auth_signature={signature}")
    }

    /// P-SIGN-6, P-SIGN-1, P-SIGN-2: the published vector; the key is the app's second.
    #[test]
    fn published_vector() {
        let signature = "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
        let target = format!("/apps/3/events?{}&body_md5={BODY_MD5}&auth_signature={signature}", auth());
        assert_eq!(target, post());
        assert_eq!(verify("POST", &target, BODY), Ok(1));
    }

    /// R-BASE-2: the published vector under `/api/v1`; P-SIGN-5: the same request signed over the shorter path.
    #[test]
    fn published_vector_under_the_second_base() {
        let signature = "66402df180a48cf5b53bfcfd895640573bba96697327e3c40969b2a98e83306f";
        let target = format!("/api/v1/apps/3/channels?{}&auth_signature={signature}", auth());
        assert_eq!(verify("GET", &target, ""), Ok(1));
        let shorter = sign(&format!("GET\n/apps/3/channels\n{}", auth()));
        let target = format!("/api/v1/apps/3/channels?{}&auth_signature={shorter}", auth());
        assert_eq!(verify("GET", &target, ""), Ok(1));
        let target = format!("/apps/3/channels?{}&auth_signature={signature}", auth());
        assert_eq!(verify("GET", &target, ""), Err(SignatureRefusal::SignatureMismatch), "never a longer path");
    }

    /// P-SIGN-5: the text before the signature is used unchanged exactly where it is the other parameters joined.
    #[test]
    fn text_before_the_signature_is_used_where_it_is_as_signed() {
        for (query, before) in [
            ("a=1&b=2&auth_signature=0", Some("a=1&b=2")),
            ("a=1&auth_signature=0", Some("a=1")),
            ("a=1&&b=2&auth_signature=0", None),
            ("a=1&&&b=2&auth_signature=0", None),
            ("&a=1&auth_signature=0", None),
            ("a=1&b&auth_signature=0", None),
            ("a=1&b=&auth_signature=0", None),
            ("a=1&auth_signature=0&b=2", None),
        ] {
            let others: Vec<Parameter<'_>> = query
                .split('&')
                .filter(|pair| !pair.is_empty() && !pair.starts_with("auth_signature="))
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| Parameter { name: name.as_bytes(), value: value.as_bytes() })
                .collect();
            assert_eq!(before_signature(query, &others), before.map(str::as_bytes), "{query}");
        }
    }

    /// Path and query as sent, without the parameters of [`auth`] => path and text as signed.
    const READINGS: &str = "\
/apps/3/channels?info=user_count&filter_by_prefix=p- => /apps/3/channels?filter_by_prefix=p-&info=user_count
/apps/3/channels?Info=A&FILTER=b => /apps/3/channels?filter=b&info=A
/apps/3/channels?info=user_count%2Ccache => /apps/3/channels?info=user_count,cache
/apps/3/channels?info=user_count%2Ccache => /apps/3/channels?info=user_count%2Ccache
/apps/3/channels?b=x+y%2B => /apps/3/channels?b=x+y+
/apps/3/channels?b=x+y => /apps/3/channels?b=x y
/apps/3/channels?b=x;c=1 => /apps/3/channels?b=x;c=1
/apps/3/channels?b=x=1&c&&d= => /apps/3/channels?b=x=1&c=&d=
/apps/3/channels?c&&d=1 => /apps/3/channels?c=&d=1
/apps/3/channels?b=%zz%4 => /apps/3/channels?b=%zz%4
/apps/3/channels?b=%C3%A9 => /apps/3/channels?b=\u{e9}
/apps/3/channels?k[0]=a&k[1]=b => /apps/3/channels?k=a,b
/apps/3/channels?k[0]=a&k[1]=b => /apps/3/channels?k[0]=a&k[1]=b
/apps/3/channels?k[]=a&z=1&k[]=b => /apps/3/channels?k=a,b&z=1
/apps/3/channels?k[]=b&k[]=a => /apps/3/channels?k[]=b&k[]=a
/apps/3/channels?k%5B0%5D=a&k%5B1%5D=b%20c => /apps/3/channels?k=a,b c
/apps/3/channels?k%5B0%5D=a&k%5B1%5D=b%20c => /apps/3/channels?k%5b0%5d=a&k%5b1%5d=b%20c
/apps/3/channels?k[0]=a&k[1]=b%20c => /apps/3/channels?k=a,b%20c
/apps/3/channels?k%5B0%5D=a&k%5B1%5D=b+c => /apps/3/channels?k=a,b c
/apps/3/channels/private-%40x?c=1 => /apps/3/channels/private-@x?c=1
/apps/3/channels/private-%40x?c=%41 => /apps/3/channels/private-@x?c=%41
/apps/3/channels/private-%40x?c=1 => /apps/3/channels/private-%40x?c=1
/api/v1/apps/3/channels?k[]=a+b&k[]=c => /apps/3/channels?k=a b,c
/pre/apps/3/channels?c=1 => /pre/apps/3/channels?c=1
/pre/apps/3/channels?c=1 => /apps/3/channels?c=1
/pre/api/v1/apps/3/channels?c=1 => /apps/3/channels?c=1
/pre/api/v1/apps/3/channels?c=1 => /api/v1/apps/3/channels?c=1";

    /// P-SIGN-2, P-SIGN-4, P-SIGN-5, P-SDK-19, P-SDK-20: the request as sent and the text as signed, for every reading
    /// of values, pairs and paths and for combinations of them. The signed texts are written out by hand.
    #[test]
    fn readings_that_sdks_sign() {
        for row in READINGS.lines() {
            let (sent, signed) = row.split_once(" => ").expect("sent => signed");
            let (path, sent) = sent.split_once('?').expect("a query");
            let (signed_path, signed) = signed.split_once('?').expect("a query");
            let signature = sign(&format!("GET\n{signed_path}\n{}&{signed}", auth()));
            for query in [
                format!("{sent}&auth_signature={signature}&{}", auth()),
                format!("{}&{sent}&auth_signature={signature}", auth()),
            ] {
                assert_eq!(verify_at(SENT_S, "/pre", "GET", &format!("{path}?{query}"), ""), Ok(1), "{row}");
            }
        }
    }

    /// P-SIGN-2, P-SIGN-4: a query in order is signed as pairs, not as its literal text: none of these has a reading
    /// that is its own text.
    #[test]
    fn pairs_are_signed_and_not_the_query() {
        for sent in ["c&&d=1", "c&d=", "c=1&&d=1", "&c=1", "c=1&"] {
            let query = format!("{}&{sent}", auth());
            let signature = sign(&format!("GET\n/apps/3/channels\n{query}"));
            let target = format!("/apps/3/channels?{query}&auth_signature={signature}");
            assert_eq!(verify("GET", &target, ""), Err(SignatureRefusal::SignatureMismatch), "{sent}");
        }
    }

    /// P-SIGN-5: no more than 18 candidates, whatever path and query contain.
    #[test]
    fn candidates_are_bounded() {
        for path in ["/pre/api/v1/apps/3/%41", "/api/v1/apps/3/%41", "/pre/apps/3", "/", "/pre", "/api/v1"] {
            let paths = candidate_paths(path, "/pre");
            assert!((1..=3).contains(&paths.len()), "{path}");
            assert_eq!(*paths[0], *path.as_bytes());
        }
    }

    /// P-SIGN-1, threat T4: accepted up to 600 s off in either direction, refused beyond, with the sentence of
    /// P-STAT-7.
    #[test]
    fn window_of_the_timestamp() {
        for now_s in [SENT_S - 600, SENT_S - 599, SENT_S, SENT_S + 599, SENT_S + 600] {
            assert_eq!(verify_at(now_s, "", "POST", &post(), BODY), Ok(1), "{now_s}");
        }
        for now_s in [0, SENT_S - 601, SENT_S + 601, 4 * SENT_S] {
            let refusal = SignatureRefusal::TimestampExpired { given_s: SENT_S, server_s: now_s };
            assert_eq!(verify_at(now_s, "", "POST", &post(), BODY), Err(refusal), "{now_s}");
        }
        let refusal = SignatureRefusal::TimestampExpired { given_s: 1_380_444_393, server_s: 1_380_445_000 };
        assert_eq!(
            refusal.to_string(),
            "Timestamp expired: Given timestamp (2013-09-29T08:46:33Z) not within 600s of server time (2013-09-29T08:56:40Z)"
        );
    }

    /// P-SIGN-1: a timestamp is whole seconds and nothing else; ones far away get a sentence too.
    #[test]
    fn malformed_timestamps() {
        for text in ["", "-1", "+1353088179", "1353088179.0", "1353088179 ", "0x50", "18446744073709551616", "soon"] {
            let query = format!("auth_key={KEY}&auth_timestamp={text}&auth_version=1.0");
            let target =
                format!("/apps/3/channels?{query}&auth_signature={}", sign(&format!("GET\n/apps/3/channels\n{query}")));
            assert_eq!(verify("GET", &target, ""), Err(SignatureRefusal::TimestampMalformed), "{text:?}");
        }
        let refusal = SignatureRefusal::TimestampExpired { given_s: u64::MAX, server_s: 0 };
        assert!(refusal.to_string().contains("(18446744073709551615)"), "{refusal}");
        assert!(refusal.to_string().contains("(1970-01-01T00:00:00Z)"), "{refusal}");
    }

    /// Threat T4: altered body, method, path, altered, added, removed, renamed and duplicated parameters.
    #[test]
    fn alterations_are_refused() {
        let sent = post();
        assert_eq!(verify("POST", &sent, &BODY.replace("foo", "bar")), Err(SignatureRefusal::BodyMd5Mismatch));
        assert_eq!(verify("POST", &sent, ""), Err(SignatureRefusal::BodyMd5Mismatch));
        for method in ["GET", "PUT", "DELETE"] {
            assert_eq!(verify(method, &sent, BODY), Err(SignatureRefusal::SignatureMismatch), "{method}");
        }
        let altered = [
            sent.replace("/events", "/batch_events"),
            sent.replace("/apps/3", "/apps/4"),
            sent.replace("/apps/3", "//apps/3"),
            sent.replace("auth_version", "extra=1&auth_version"),
            sent.replace("1353088179", "1353088180"),
            sent.replace(KEY, "older"),
            format!("{sent}&socket_id=1.2"),
            format!("{sent}&"),
        ];
        for (index, target) in altered.iter().enumerate() {
            let expected = if index == 7 { Ok(1) } else { Err(SignatureRefusal::SignatureMismatch) };
            assert_eq!(verify("POST", target, BODY), expected, "{target}");
        }
        let renamed = sent.replace("body_md5", "body_md6");
        assert_eq!(verify("POST", &renamed, BODY), Err(SignatureRefusal::Missing("body_md5")));
        let version = sent.replace("=1.0", "=1.1");
        assert_eq!(verify("POST", &version, BODY), Err(SignatureRefusal::Version));
        let foreign = sent.replace(KEY, "unknown");
        assert_eq!(verify("POST", &foreign, BODY), Err(SignatureRefusal::UnknownKey));
    }

    /// Threat T4: each reserved parameter occurs exactly once, in any spelling that reads the same, even when its copy
    /// has the same value and even when the complete query was signed that way.
    #[test]
    fn repeated_and_missing_reserved_parameters() {
        let sent = post();
        let (path, query) = sent.split_once('?').expect("a query");
        for which in Reserved::ALL {
            let name = which.name();
            let pair = query.split('&').find(|pair| pair.starts_with(name)).expect("all five are there");
            let (_, value) = pair.split_once('=').expect("a value");
            let without: Vec<&str> = query.split('&').filter(|other| *other != pair).collect();
            let target = format!("{path}?{}", without.join("&"));
            assert_eq!(verify("POST", &target, BODY), Err(SignatureRefusal::Missing(name)));
            let spellings = [
                name.to_owned(),
                name.to_uppercase(),
                name.replace('_', "%5F"),
                format!("{name}[]"),
                format!("{name}[0]"),
                format!("{name}%5b%5D"),
            ];
            for copy in spellings {
                let target = format!("{sent}&{copy}={value}");
                assert_eq!(verify("POST", &target, BODY), Err(SignatureRefusal::Repeated(name)), "{copy}");
            }
        }
        let twice = format!("auth_key={KEY}&auth_timestamp={SENT_S}&auth_version=1.0&auth_version=1.0");
        let target =
            format!("/apps/3/channels?{twice}&auth_signature={}", sign(&format!("GET\n/apps/3/channels\n{twice}")));
        assert_eq!(verify("GET", &target, ""), Err(SignatureRefusal::Repeated("auth_version")));
    }

    /// Threat T4: a signed `body_md5` cannot be hidden from its check by writing it as an array, which P-SIGN-5 would
    /// sign the same way.
    #[test]
    fn body_md5_cannot_hide_in_an_array() {
        let target = post().replace("body_md5=", "body_md5[]=");
        assert_eq!(verify("POST", &target, ""), Err(SignatureRefusal::Repeated("body_md5")));
    }

    /// P-SDK-18: the MD5 of nothing is accepted on a request without a body, and so is its absence; a wrong one is not.
    #[test]
    fn body_md5_without_a_body() {
        for (extra, expected) in [
            (String::new(), Ok(1)),
            (format!("&body_md5={EMPTY_MD5}"), Ok(1)),
            (format!("&body_md5={BODY_MD5}"), Err(SignatureRefusal::BodyMd5Mismatch)),
            ("&body_md5=".to_owned(), Err(SignatureRefusal::BodyMd5Mismatch)),
        ] {
            let query = format!("{}{extra}", auth());
            let target =
                format!("/apps/3/channels?{query}&auth_signature={}", sign(&format!("GET\n/apps/3/channels\n{query}")));
            assert_eq!(verify("GET", &target, ""), expected, "{extra}");
        }
    }

    /// Threats T1 and T4: every bit flip and every other form of the correct signature is refused.
    #[test]
    fn forged_signatures_are_refused() {
        let sent = post();
        let (rest, signature) = sent.rsplit_once('=').expect("it ends with the signature");
        let tag = hex::decode(signature).expect("hex");
        for bit in 0..256 {
            let mut forged = tag.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let target = format!("{rest}={}", hex::encode(forged));
            assert_eq!(verify("POST", &target, BODY), Err(SignatureRefusal::SignatureMismatch), "bit {bit}");
        }
        for form in ["", &signature[..63], &signature.to_uppercase(), &format!("{signature}0"), "g".repeat(64).as_str()]
        {
            let target = format!("{rest}={form}");
            assert_eq!(verify("POST", &target, BODY), Err(SignatureRefusal::SignatureMalformed), "{form:?}");
        }
    }

    /// P-SIGN-5: many parameters are refused before any of them is sorted or hashed.
    #[test]
    fn parameters_are_bounded() {
        let sign_with = |count: usize| {
            let extra: String = (0..count).map(|_| "&z=1").collect();
            let query = format!("{}{extra}", auth());
            format!("/apps/3/channels?{query}&auth_signature={}", sign(&format!("GET\n/apps/3/channels\n{query}")))
        };
        assert_eq!(verify("GET", &sign_with(SIGNED_PARAMETERS_MAX - 4), ""), Ok(1));
        assert_eq!(verify("GET", &sign_with(SIGNED_PARAMETERS_MAX - 3), ""), Err(SignatureRefusal::TooManyParameters));
    }

    /// The work to verify a request with a wrong signature: the number of texts, and their bytes.
    fn work(path: &str, query: &str) -> (usize, usize) {
        let query = format!("{}&auth_signature={}&{query}", auth(), "0".repeat(64));
        let signed = Signed { method: "GET", path, query: &query, body: SignedBody::Whole(b"") };
        let decoded = SignedQuery::decode(&query).expect("all five are there");
        let mut texts = Vec::new();
        let passed = any_candidate(&signed, &decoded, "/pre", |text| {
            texts.push(text.len());
            false
        });
        assert!(!passed);
        (texts.len(), texts.iter().sum())
    }

    /// P-SIGN-5, threat T6: up to the size that SDKs send there are 18 candidates, beyond it one, and a long query that
    /// would have to be decoded has none; so no query of an unauthenticated client costs more than hashing 16 KiB,
    /// whatever it contains.
    #[test]
    fn work_before_a_refusal_is_bounded() {
        let path = "/pre/api/v1/apps/3/%41";
        let arrays = |count: usize, filler: usize| {
            let pairs: Vec<String> =
                (0..count).map(|index| format!("%41{index}[]=%41+{}", "x".repeat(filler))).collect();
            pairs.join("&")
        };
        let (candidates, bytes) = work(path, &arrays(CANDIDATE_PARAMETERS_MAX - 3, 8));
        assert_eq!(candidates, 18);
        assert!(bytes <= 18 * CANDIDATE_BYTES_MAX, "{bytes}");
        assert_eq!(work(path, &arrays(CANDIDATE_PARAMETERS_MAX - 2, 8)).0, 1, "one parameter more");
        assert_eq!(work(path, &arrays(1, CANDIDATE_BYTES_MAX)).0, 1, "too long");
        assert_eq!(work(path, &"x".repeat(CANDIDATE_BYTES_MAX)).0, 1, "too long, and plain");
        assert_eq!(work(&format!("{path}{}", "%41".repeat(250)), "").0, 1, "a long path");
        let (_, bytes) = work(path, &"x".repeat(7_900));
        assert!(bytes <= 16 * 1024, "{bytes}");
        for name in ["%41", "a[]", "a+", "A"] {
            let query =
                |bytes: usize| format!("{}&auth_signature={}&{name}={}", auth(), "0".repeat(64), "x".repeat(bytes));
            let (fits, too_long) = (query(DECODED_QUERY_BYTES_MAX - 200), query(DECODED_QUERY_BYTES_MAX));
            assert!(SignedQuery::decode(&fits).is_ok(), "{name}");
            assert_eq!(SignedQuery::decode(&too_long).err(), Some(SignatureRefusal::TooLong), "{name}");
        }
        let many = |count: usize| format!("{}&auth_signature={}{}", auth(), "0".repeat(64), "&A=1".repeat(count));
        assert!(SignedQuery::decode(&many(DECODED_PARAMETERS_MAX - 4)).is_ok());
        assert_eq!(SignedQuery::decode(&many(DECODED_PARAMETERS_MAX - 3)).err(), Some(SignatureRefusal::TooLong));
    }

    /// P-SIGN-5: elements of several arrays, plain parameters of the same name between them, in any order: an array is
    /// joined at the position of its first element.
    #[test]
    fn arrays_are_joined_in_place() {
        for (sent, signed) in [
            ("b[]=1&a[]=2&b[]=3&a[1]=4", "a=2,4&b=1,3"),
            ("a=0&a[]=1&a=2&a[]=3", "a=0&a=1,3&a=2"),
            ("a[]=&a[]=&z=", "a=,&z="),
        ] {
            let signature = sign(&format!("GET\n/apps/3/channels\n{}", merged(signed)));
            let target = format!("/apps/3/channels?{sent}&{}&auth_signature={signature}", auth());
            assert_eq!(verify("GET", &target, ""), Ok(1), "{sent}");
        }
    }

    /// Parameters that are sorted already, with those of `auth` among them: all of these sort after `a` and before `b`.
    fn merged(sorted: &str) -> String {
        let (before, after): (Vec<&str>, Vec<&str>) = sorted.split('&').partition(|pair| pair.starts_with("a="));
        before.into_iter().chain([&*auth()]).chain(after).collect::<Vec<_>>().join("&")
    }

    /// R-AUTH-4: any part of a signature makes a request a signed one, in any spelling; other parameters do not.
    #[test]
    fn signed_requests_are_recognized() {
        for query in ["auth_key=a", "x=1&auth_signature=", "AUTH_KEY=a", "auth%5fversion=1.0", "auth_timestamp[]=1"] {
            assert!(is_signed(query), "{query}");
        }
        for query in ["", "body_md5=a", "auth=1", "auth[private-a]=k:h", "key=auth_key", "auth_keys=1"] {
            assert!(!is_signed(query), "{query}");
        }
    }

    /// R-AUTH-7: no refusal quotes the request, except for the timestamp.
    #[test]
    fn refusals_quote_nothing_secret() {
        let sent = post();
        let (_, signature) = sent.rsplit_once('=').expect("it ends with the signature");
        for (method, target) in
            [("GET", sent.clone()), ("POST", sent.replace(KEY, "unknown")), ("POST", format!("{sent}&auth_key=1"))]
        {
            let text = verify(method, &target, BODY).expect_err("altered").to_string();
            assert!(!text.contains(signature) && !text.contains(SECRET) && !text.contains("unknown"), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// P-SIGN-2, P-SDK-19, R-AUTH-3: agreement with an independent signer as the SDKs have it: lower-cased names
        /// sorted by bytes, values unescaped; sent percent-encoded or, where nothing needs it, raw, and shuffled.
        #[test]
        fn agrees_with_an_independent_signer(
            extras in proptest::collection::btree_map("[a-z][a-z_]{0,8}", "[ -~\u{e9}\u{20ac}]{0,20}", 0..6),
            body in "[ -~]{0,40}",
            rotation in 0_usize..8,
            is_plain in any::<bool>(),
        ) {
            let needs_no_escape = |one: &char| one.is_ascii_alphanumeric() || "-._~".contains(*one);
            let mut parameters: Vec<(String, String)> = extras
                .into_iter()
                .filter(|(name, _)| Reserved::of(name.as_bytes()).is_none())
                .map(|(name, value)| (name, value.chars().filter(|one| !is_plain || needs_no_escape(one)).collect()))
                .collect();
            parameters.push(("auth_key".into(), KEY.into()));
            parameters.push(("auth_timestamp".into(), SENT_S.to_string()));
            parameters.push(("auth_version".into(), "1.0".into()));
            if !body.is_empty() {
                parameters.push(("body_md5".into(), hex::encode(Md5::digest(body.as_bytes()))));
            }
            parameters.sort();
            let signed: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let signature = sign(&format!("POST\n/apps/3/events\n{}", signed.join("&")));
            parameters.push(("auth_signature".into(), signature));
            let turn = rotation % parameters.len();
            parameters.rotate_left(turn);
            let escape = |text: &str| -> String {
                text.bytes()
                    .map(|byte| if is_plain || byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
                    .collect()
            };
            let sent: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
            let target = format!("/apps/3/events?{}", sent.join("&"));
            prop_assert_eq!(verify("POST", &target, &body), Ok(1));
        }

        /// Threat T4: no query makes verification panic or pass.
        #[test]
        fn any_query_gets_an_answer(noise in "[a-z0-9%&=+;\\[\\],]{0,80}", path in "/[a-z%0-9/]{0,30}") {
            let query = format!("{}&auth_signature={}&{noise}", auth(), "0".repeat(64));
            let target = format!("{path}?{query}");
            prop_assert!(verify_at(SENT_S, "/pre", "GET", &target, "").is_err());
        }
    }
}
