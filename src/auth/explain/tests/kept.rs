//! What is kept of a refusal (R-EXPLAIN-6, threat T55).

use super::*;
use crate::auth::subscription::verify_subscription;
use crate::limits::REFUSAL_TEXT_BYTES_MAX;

fn kept_channel(directory: &Directory, text: (&str, &str, Option<&str>), auth: &str) -> Kept {
    let state = state(directory, "");
    let (socket_id, channel, data) = text;
    Kept::of_socket(
        directory,
        state.app,
        (socket_id, Some(channel), data),
        auth,
        (AuthFailure::BadSignature, NOW_S * 1_000),
    )
}

fn kept_request(directory: &Directory, query: &str, failure: AuthFailure) -> Kept {
    let state = state(directory, "");
    Kept::of_request(directory, state.app, ("POST", "/apps/3/events", query), (failure, NOW_S * 1_000))
}

/// R-EXPLAIN-6: eight digits name the same cause as the whole signature, for keys, texts, data and forms.
#[test]
fn eight_digits_name_the_cause() {
    let directory = directory();
    let data = r#"{"user_id":7,"user_info":{"name":"Zoë"}}"#;
    let python = r#"{"user_id": 7, "user_info": {"name": "Zo\u00eb"}}"#;
    let signed = |secret: &str, text: &str| format!("{}:{}", NEW.0, sign(secret, text));
    let rows = [
        (Cause::ReversedOrder, None, signed(NEW.1, "private-a:1.2")),
        (Cause::SecretOfOtherKey, None, signed(OLD.1, "1.2:private-a")),
        (Cause::SecretOfOtherApp, None, signed(OTHER.1, "1.2:private-a")),
        (Cause::PaddedSecret, None, signed(&format!("{}\n", NEW.1), "1.2:private-a")),
        (Cause::SwappedKeyAndSecret, None, format!("{}:{}", NEW.1, sign(NEW.0, "1.2:private-a"))),
        (
            Cause::UpperCaseSignature,
            None,
            signed(NEW.1, "1.2:private-a").to_uppercase().replace(&NEW.0.to_uppercase(), NEW.0),
        ),
        (Cause::OtherAppKey, None, format!("{}:{}", OTHER.0, sign(OTHER.1, "1.2:private-a"))),
        (Cause::UnknownKey, None, format!("gone:{}", sign(NEW.1, "1.2:private-a"))),
        (Cause::MalformedSignature, None, format!("{}:beef", NEW.0)),
        (Cause::MissingChannelData, Some(data), signed(NEW.1, "1.2:presence-a")),
        (Cause::ReserializedData, Some(data), signed(NEW.1, &format!("1.2:presence-a:{python}"))),
    ];
    for (cause, data, auth) in rows {
        let channel = if data.is_some() { "presence-a" } else { "private-a" };
        let kept = kept_channel(&directory, ("1.2", channel, data), &auth);
        let answer = explain_kept(&state(&directory, ""), &kept);
        assert_eq!((answer.cause, answer.verdict), (cause, Verdict::Explained), "{auth} {kept:?}");
        // Nothing of the signature beyond eight digits, and no key that is not public, is in memory.
        let digits = auth.rsplit(':').next().unwrap_or_default();
        let told = format!("{kept:?}{:?}", answer.to_json(Reader::Admin)).to_lowercase();
        assert!(digits.len() < 9 || !told.contains(&digits[..9].to_lowercase()), "{told}");
        assert!(!told.contains(NEW.1) && !told.contains(&OLD.1.to_lowercase()), "{told}");
    }
    let user = Kept::of_socket(
        &directory,
        state(&directory, "").app,
        ("1.2", None, Some(r#"{"id":"7"}"#)),
        &signed(NEW.1, "1.2:#server-to-user-7"),
        (AuthFailure::BadSignature, 0),
    );
    assert_eq!(explain_kept(&state(&directory, ""), &user).cause, Cause::ChannelAuthForUser);
}

/// R-EXPLAIN-6: requests, at the clock of their refusal.
#[test]
fn kept_requests_are_explained() {
    let directory = directory();
    let query = |key: &str, at_s: u64| {
        format!("auth_key={key}&auth_timestamp={at_s}&auth_version=1.0&body_md5={}", "0b".repeat(16))
    };
    let signed = |query: &str, text: &str| format!("{query}&auth_signature={}", sign(NEW.1, text));
    let (fresh, ahead) = (query(NEW.0, NOW_S), query(NEW.0, NOW_S + 700));
    let rows = [
        (Cause::LowerCaseMethod, AuthFailure::BadSignature, signed(&fresh, &format!("post\n/apps/3/events\n{fresh}"))),
        (Cause::ClockSkew, AuthFailure::StaleTimestamp, signed(&ahead, &format!("POST\n/apps/3/events\n{ahead}"))),
        (Cause::OtherBody, AuthFailure::BodyMismatch, signed(&fresh, &format!("POST\n/apps/3/events\n{fresh}"))),
        (Cause::MissingParameter, AuthFailure::Malformed, "auth_key=x&auth_signature=00".into()),
        (Cause::RepeatedParameter, AuthFailure::Malformed, format!("{fresh}&auth_version=1.0")),
        (Cause::SwappedKeyAndSecret, AuthFailure::UnknownKey, signed(&query(NEW.1, NOW_S), "x")),
        (Cause::UnknownKey, AuthFailure::UnknownKey, signed(&query("gone", NOW_S), "x")),
        (Cause::WrongVersion, AuthFailure::Malformed, signed(&fresh.replace("1.0", "2.0"), "x")),
        (Cause::Unknown, AuthFailure::BadSignature, signed(&fresh, "x")),
    ];
    for (cause, failure, query) in rows {
        let kept = kept_request(&directory, &query, failure);
        // A year later the refusal is explained as of its time.
        let later =
            State { now: Moment { monotonic_ms: 0, unix_ms: (NOW_S + 31_536_000) * 1_000 }, ..state(&directory, "") };
        let answer = explain_kept(&later, &kept);
        assert_eq!(answer.cause, cause, "{query}\n{kept:?}");
        let told = format!("{kept:?}{answer:?}");
        assert!(!told.contains(NEW.1), "{told}");
        let signature = query.rsplit_once("auth_signature=").map_or("", |(_, signature)| signature);
        assert!(signature.len() < 9 || !told.contains(&signature[..9]), "{told}");
    }
}

/// T55: a request that is signed correctly and refused because its time has not come cannot be repeated from what is
/// kept: nothing of it is a signature, and every 64 hex digits that can be cut from it are refused.
#[test]
fn nothing_that_is_kept_can_be_replayed() {
    let directory = directory();
    let query = format!("auth_key={}&auth_timestamp={}&auth_version=1.0", NEW.0, NOW_S + 700);
    let signature = sign(NEW.1, &format!("GET\n/apps/3/channels\n{query}"));
    for sent in [
        format!("{query}&auth_signature={signature}"),
        format!("auth_signature={signature}&{query}"),
        format!("{query}&auth%5Fsignature={signature}"),
        format!("{query}&AUTH_SIGNATURE={signature}&auth_signature[]={signature}"),
    ] {
        let state = state(&directory, "");
        let parts = ("GET", "/apps/3/channels", &*sent);
        let kept = Kept::of_request(&directory, state.app, parts, (AuthFailure::StaleTimestamp, NOW_S * 1_000));
        let answer = explain_kept(&state, &kept);
        let memory = format!("{kept:?} {answer:?} {}", answer.to_json(Reader::Admin));
        for at in 0..=64 - 9 {
            assert!(!memory.contains(&signature[at..at + 9]), "{memory}");
        }
    }
    let auth = format!("{}:{}", NEW.0, sign(NEW.1, "1.2:private-a"));
    let kept = kept_channel(&directory, ("1.2", "private-a", None), &auth);
    let told = format!("{kept:?}");
    let runs = told.split(|c: char| !c.is_ascii_hexdigit()).filter(|run| run.len() >= 64);
    for run in runs {
        let forged = format!("{}:{run}", NEW.0);
        assert!(verify_subscription(state(&directory, "").app, "1.2", "private-a", None, &forged).is_err());
    }
}

/// T55: a text of 4 KiB is kept and one of a byte more is not; secrets and tokens in a query are removed.
#[test]
fn texts_are_bounded_and_hold_no_secret() {
    let directory = directory();
    let auth = format!("{}:{}", NEW.0, sign(NEW.1, "x"));
    let data = |bytes: usize| "x".repeat(bytes - "1.2".len() - "presence-a".len());
    let fits = kept_channel(&directory, ("1.2", "presence-a", Some(&data(REFUSAL_TEXT_BYTES_MAX))), &auth);
    assert_eq!(fits.text_bytes(), REFUSAL_TEXT_BYTES_MAX);
    let beyond = kept_channel(&directory, ("1.2", "presence-a", Some(&data(REFUSAL_TEXT_BYTES_MAX + 1))), &auth);
    assert_eq!((&beyond.text, beyond.text_bytes()), (&KeptText::TooLong, 0));
    let answer = explain_kept(&state(&directory, ""), &beyond);
    assert_eq!((answer.verdict, answer.cause), (Verdict::Cut, Cause::Unknown));
    let long = kept_request(&directory, &format!("auth_key=x&{}", "a=1&".repeat(20)), AuthFailure::BadSignature);
    assert_eq!(long.text, KeptText::TooLong);

    let token = format!("rly_{}", "a".repeat(40));
    let query = format!("auth_key={}&token={token}&x={token}&secret={}&auth_signature=00", OLD.1, NEW.1);
    let told = format!("{:?}", kept_request(&directory, &query, AuthFailure::UnknownKey));
    for secret in [&token, OLD.1, NEW.1] {
        assert!(!told.contains(secret), "{told}");
    }
}

/// R-EXPLAIN-6: ids have one text.
#[test]
fn ids_have_one_text() {
    let id = RefusalId([0xA5; 16]);
    assert_eq!(id.to_string(), format!("ref_{}", "a5".repeat(16)));
    assert_eq!(RefusalId::parse(&id.to_string()), Some(id));
    for text in
        ["", "ref_", &"a5".repeat(16), &format!("ref_{}", "A5".repeat(16)), &format!("ref_0x{}", "a5".repeat(15))]
    {
        assert_eq!(RefusalId::parse(text), None, "{text}");
    }
}

/// R-EXPLAIN-6: a refusal that is not about a signature is answered with its reason.
#[test]
fn other_refusals_have_their_reason() {
    for failure in AuthFailure::ALL {
        let answer = explain_reason(*failure);
        assert_eq!(answer.verdict == Verdict::Cut, *failure == AuthFailure::BadSignature, "{answer:?}");
    }
    let answer = explain_other("connection refused", "over_quota");
    assert_eq!(answer.cause, Cause::NotACredential);
    assert!(answer.hint(Reader::Admin).contains("over_quota"));
}
