//! Subscriptions and signins.

use base64::Engine;
use proptest::prelude::*;

use super::*;

/// What one client signs and sends.
#[derive(Clone, Debug)]
struct Sample {
    socket_id: String,
    /// Without its prefix.
    name: String,
    user_id: u32,
    user_name: String,
}

impl Sample {
    fn plain() -> Self {
        Self { socket_id: "1234.5678".into(), name: "orders.7".into(), user_id: 10, user_name: "Zoë </b> 😀".into() }
    }

    fn private(&self) -> String {
        format!("private-{}", self.name)
    }

    fn presence(&self) -> String {
        format!("presence-{}", self.name)
    }

    fn data(&self) -> String {
        serde_json::json!({"user_id": self.user_id, "user_info": {"name": self.user_name, "url": "https://a.test/?a=1&b=2"}})
            .to_string()
    }

    /// The same data with its members in the other order, as `{"user_info":..,"user_id":..}`.
    fn data_reversed(&self) -> String {
        let info = serde_json::json!({"name": self.user_name, "url": "https://a.test/?a=1&b=2"});
        format!(r#"{{"user_info":{info},"user_id":{}}}"#, self.user_id)
    }

    fn user(&self) -> String {
        serde_json::json!({"id": self.user_id.to_string(), "user_info": {"name": self.user_name}}).to_string()
    }

    /// A subscription to the private channel with this signed text.
    fn signed(&self, text: &str) -> Question {
        self.with_auth(format!("{}:{}", NEW.0, sign(NEW.1, text)))
    }

    fn with_auth(&self, auth: String) -> Question {
        Question::Channel { socket_id: self.socket_id.clone(), channel: self.private(), auth, channel_data: None }
    }

    /// The right text under another secret.
    fn with_secret(&self, secret: &[u8]) -> Question {
        self.with_auth(format!("{}:{}", NEW.0, hex::encode(hmac_of(secret, self.text().as_bytes()))))
    }

    fn text(&self) -> String {
        format!("{}:{}", self.socket_id, self.private())
    }

    /// A subscription to the presence channel with these data, for which this was signed.
    fn presence_signed(&self, text: &str) -> Question {
        let auth = format!("{}:{}", NEW.0, sign(NEW.1, text));
        let channel_data = Some(self.data());
        Question::Channel { socket_id: self.socket_id.clone(), channel: self.presence(), auth, channel_data }
    }

    /// The same with other data signed.
    fn data_signed(&self, data: &str) -> Question {
        self.presence_signed(&format!("{}:{}:{data}", self.socket_id, self.presence()))
    }

    fn user_signed(&self, text: &str) -> Question {
        let auth = format!("{}:{}", NEW.0, sign(NEW.1, text));
        Question::User { socket_id: self.socket_id.clone(), user_data: self.user(), auth, channel: None }
    }
}

/// Independent of the code under test: Python's `json.dumps` of the sample's data.
fn python(sample: &Sample) -> String {
    let escaped: String = sample.user_name.encode_utf16().map(|unit| escape(unit, "")).collect();
    format!(
        r#"{{"user_id": {}, "user_info": {{"name": "{escaped}", "url": "https://a.test/?a=1&b=2"}}}}"#,
        sample.user_id
    )
}

/// PHP's `json_encode`.
fn php(sample: &Sample) -> String {
    let escaped: String = sample.user_name.encode_utf16().map(|unit| escape(unit, "/")).collect();
    format!(r#"{{"user_id":{},"user_info":{{"name":"{escaped}","url":"https:\/\/a.test\/?a=1&b=2"}}}}"#, sample.user_id)
}

fn escape(unit: u16, with_backslash: &str) -> String {
    match char::from_u32(unit.into()).filter(char::is_ascii) {
        Some(c) if with_backslash.contains(c) => format!("\\{c}"),
        Some(c) => c.to_string(),
        None => format!("\\u{unit:04x}"),
    }
}

fn text_rows(sample: &Sample) -> Vec<Row> {
    let Sample { socket_id: socket, .. } = sample;
    let (channel, presence, data) = (sample.private(), sample.presence(), sample.data());
    let spaced = data.replacen(':', ": ", 1);
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&data).expect("JSON")).expect("JSON");
    vec![
        ("nothing", Cause::Ok, sample.signed(&sample.text())),
        ("channel:socket_id", Cause::ReversedOrder, sample.signed(&format!("{channel}:{socket}"))),
        (
            "channel:socket_id:channel_data",
            Cause::ReversedOrder,
            sample.presence_signed(&format!("{presence}:{socket}:{data}")),
        ),
        ("socket_id alone", Cause::MissingPart, sample.signed(socket)),
        ("no colon", Cause::WrongSeparator, sample.signed(&format!("{socket}{channel}"))),
        ("a space for the colon", Cause::WrongSeparator, sample.signed(&format!("{socket} {channel}"))),
        ("a line feed after the text", Cause::TrailingNewline, sample.signed(&format!("{}\n", sample.text()))),
        ("channel without private-", Cause::OtherChannelName, sample.signed(&format!("{socket}:{}", sample.name))),
        ("presence- for private-", Cause::OtherChannelName, sample.signed(&format!("{socket}:{presence}"))),
        (
            "channel in upper case",
            Cause::OtherChannelName,
            sample.signed(&format!("{socket}:{}", channel.to_uppercase())),
        ),
        (
            "presence without channel_data",
            Cause::MissingChannelData,
            sample.presence_signed(&format!("{socket}:{presence}")),
        ),
        ("empty channel_data", Cause::OtherData, sample.data_signed("")),
        ("channel_data null", Cause::OtherData, sample.data_signed("null")),
        ("the user id as channel_data", Cause::OtherData, sample.data_signed(&sample.user_id.to_string())),
        ("channel_data as Python writes it", Cause::ReserializedData, sample.data_signed(&python(sample))),
        ("channel_data as PHP writes it", Cause::ReserializedData, sample.data_signed(&php(sample))),
        ("channel_data indented", Cause::ReserializedData, sample.data_signed(&pretty)),
        ("channel_data in another order", Cause::ReserializedData, sample.data_signed(&sample.data_reversed())),
        ("channel_data with white space around", Cause::ReserializedData, {
            let question = sample.data_signed(&data);
            let Question::Channel { socket_id, channel, auth, .. } = question else { unreachable!() };
            Question::Channel { socket_id, channel, auth, channel_data: Some(format!("{data}\n")) }
        }),
        ("the user id as a string", Cause::ReserializedData, {
            sample.data_signed(&data.replacen(&format!(":{}", sample.user_id), &format!(":\"{}\"", sample.user_id), 1))
        }),
        (
            "channel_data as a JSON string",
            Cause::DataEncodedTwice,
            sample.data_signed(&serde_json::to_string(&data).expect("JSON")),
        ),
        ("one space in channel_data", Cause::Unknown, sample.data_signed(&spaced)),
        (
            "a signin signed for a channel",
            Cause::UserAuthForChannel,
            sample.presence_signed(&format!("{socket}::user::{data}")),
        ),
        ("a user signed as user, right", Cause::Ok, sample.user_signed(&format!("{socket}::user::{}", sample.user()))),
        ("a private channel of the user signed for a signin", Cause::ChannelAuthForUser, {
            sample.user_signed(&format!("{socket}:private-user-{}", sample.user_id))
        }),
        ("server-to-user signed for a signin", Cause::ChannelAuthForUser, {
            sample.user_signed(&format!("{socket}:#server-to-user-{}", sample.user_id))
        }),
        ("user data without ::user::", Cause::MissingPart, sample.user_signed(&format!("{socket}:{}", sample.user()))),
        (
            "one colon before user",
            Cause::WrongSeparator,
            sample.user_signed(&format!("{socket}:user:{}", sample.user())),
        ),
        ("user data first", Cause::ReversedOrder, sample.user_signed(&format!("{}::user::{socket}", sample.user()))),
        ("the channel of a user", Cause::UserChannel, {
            let channel = format!("#server-to-user-{}", sample.user_id);
            Question::Channel { socket_id: socket.clone(), channel, auth: String::new(), channel_data: None }
        }),
    ]
}

fn secret_rows(sample: &Sample) -> Vec<Row> {
    let text = sample.text();
    let right = sign(NEW.1, &text);
    let auth = |key: &str, signature: &str| sample.with_auth(format!("{key}:{signature}"));
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    vec![
        ("key and secret swapped", Cause::SwappedKeyAndSecret, auth(NEW.1, &sign(NEW.0, &text))),
        ("the secret sent as the key", Cause::SwappedKeyAndSecret, auth(NEW.1, &right)),
        ("signed with the key", Cause::SignedWithKey, sample.with_secret(NEW.0.as_bytes())),
        ("signed with the app id", Cause::SignedWithKey, sample.with_secret(b"3")),
        ("secret of the older key", Cause::SecretOfOtherKey, sample.with_secret(OLD.1.as_bytes())),
        ("secret of another app", Cause::SecretOfOtherApp, sample.with_secret(OTHER.1.as_bytes())),
        ("key of another app", Cause::OtherAppKey, auth(OTHER.0, &sign(OTHER.1, &text))),
        ("a removed key", Cause::UnknownKey, auth("0123456789abcdef0123", &sign("gone", &text))),
        ("a removed key, an active secret", Cause::UnknownKey, auth("0123456789abcdef0123", &right)),
        ("quotes around the key", Cause::QuotedKey, auth(&format!("\"{}\"", NEW.0), &right)),
        ("a space before the key", Cause::PaddedKey, auth(&format!(" {}", NEW.0), &right)),
        ("no key", Cause::MissingKey, sample.with_auth(right.clone())),
        ("no auth", Cause::MissingCredential, sample.with_auth(String::new())),
        ("auth as JSON", Cause::MalformedAuth, sample.with_auth(format!("{{\"auth\":\"{}:{right}\"}}", NEW.0))),
        ("auth of words", Cause::MalformedAuth, sample.with_auth("Unauthorized".into())),
        ("a line feed after the secret", Cause::PaddedSecret, sample.with_secret(format!("{}\n", NEW.1).as_bytes())),
        ("a space after the secret", Cause::PaddedSecret, sample.with_secret(format!("{} ", NEW.1).as_bytes())),
        ("quotes around the secret", Cause::QuotedSecret, sample.with_secret(format!("\"{}\"", NEW.1).as_bytes())),
        ("apostrophes around the secret", Cause::QuotedSecret, sample.with_secret(format!("'{}'", NEW.1).as_bytes())),
        ("no secret", Cause::EmptySecret, sample.with_secret(b"")),
        ("undefined as the secret", Cause::EmptySecret, sample.with_secret(b"undefined")),
        ("the secret decoded from hex", Cause::EncodedSecret, sample.with_secret(&hex::decode(NEW.1).expect("hex"))),
        ("the secret in upper case", Cause::EncodedSecret, sample.with_secret(NEW.1.to_uppercase().as_bytes())),
        ("the secret in base64", Cause::EncodedSecret, {
            sample.with_secret(super::super::given::BASE64.encode(NEW.1).as_bytes())
        }),
        ("upper-case hex", Cause::UpperCaseSignature, auth(NEW.0, &right.to_uppercase())),
        ("base64", Cause::Base64Signature, {
            auth(NEW.0, &super::super::given::BASE64.encode(hex::decode(&right).expect("hex")))
        }),
        ("a line feed after the signature", Cause::PaddedSignature, auth(NEW.0, &format!("{right}\n"))),
        ("half a signature", Cause::MalformedSignature, auth(NEW.0, &right[..32])),
        ("HMAC-SHA1", Cause::WrongHash, auth(NEW.0, &hex::encode(other_hmac::<sha1::Sha1>(&text)))),
        ("HMAC-SHA512", Cause::WrongHash, auth(NEW.0, &hex::encode(other_hmac::<sha2::Sha512>(&text)))),
        ("SHA-256 of secret and text", Cause::WrongHash, {
            use sha2::Digest;
            auth(NEW.0, &hex::encode(sha2::Sha256::digest(format!("{}{text}", NEW.1))))
        }),
        ("UTF-16", Cause::WrongEncoding, { auth(NEW.0, &hex::encode(hmac_of(NEW.1.as_bytes(), &utf16(&text)))) }),
        (
            "UTF-16, the secret too",
            Cause::WrongEncoding,
            auth(NEW.0, &hex::encode(hmac_of(&utf16(NEW.1), &utf16(&text)))),
        ),
        ("another socket id", Cause::Unknown, sample.signed(&format!("99.99:{}", sample.private()))),
    ]
}

fn other_hmac<D>(text: &str) -> Vec<u8>
where
    D: ::hmac::EagerHash,
{
    let mut mac = Hmac::<D>::new_from_slice(NEW.1.as_bytes()).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// R-EXPLAIN-2: prints the table of mistakes with subscriptions and signins.
#[test]
fn the_table() {
    let (directory, sample) = (directory(), Sample::plain());
    let rows = [text_rows(&sample), secret_rows(&sample)].concat();
    print(&directory, "", &rows);
    check(&directory, "", &rows);
}

/// R-EXPLAIN-2: text in Latin-1, as ISO-8859-1 servers sign it.
#[test]
fn latin_1_is_named() {
    let sample = Sample { user_name: "Zoë".into(), ..Sample::plain() };
    let text = format!("{}:{}:{}", sample.socket_id, sample.presence(), sample.data());
    let latin: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect();
    let auth = format!("{}:{}", NEW.0, hex::encode(hmac_of(NEW.1.as_bytes(), &latin)));
    let channel_data = Some(sample.data());
    let question =
        Question::Channel { socket_id: sample.socket_id.clone(), channel: sample.presence(), auth, channel_data };
    check(&directory(), "", &[("Latin-1", Cause::WrongEncoding, question.clone())]);
    assert_eq!(explain(&state(&directory(), ""), &question).about, "Latin-1");
}

/// R-EXPLAIN-3: both texts are shown, and another app is named: to admins.
#[test]
fn admins_see_both_texts() {
    let (directory, sample) = (directory(), Sample::plain());
    let reversed = sample.signed(&format!("{}:{}", sample.private(), sample.socket_id));
    let answer = explain(&state(&directory, ""), &reversed);
    assert_eq!(answer.expected.as_deref(), Some("1234.5678:private-orders.7"));
    assert_eq!(answer.signed.as_deref(), Some("private-orders.7:1234.5678"));
    let foreign = explain(&state(&directory, ""), &sample.with_secret(OTHER.1.as_bytes()));
    assert_eq!(foreign.other_app.as_deref(), Some("17"));
    let php = explain(&state(&directory, ""), &sample.data_signed(&php(&sample)));
    assert!(php.hint(Reader::Admin).contains("PHP's json_encode"), "{php:?}");
}

/// R-EXPLAIN-2: what the server accepts is not explained away: private channels with and without data, public ones,
/// and both keys.
#[test]
fn what_is_accepted_is_ok() {
    let (directory, sample) = (directory(), Sample::plain());
    let text = format!("{}:{}", sample.text(), sample.data());
    let with_data = |text: &str| {
        let auth = format!("{}:{}", OLD.0, sign(OLD.1, text));
        let channel_data = Some(sample.data());
        Question::Channel { socket_id: sample.socket_id.clone(), channel: sample.private(), auth, channel_data }
    };
    let public =
        Question::Channel { socket_id: "1.2".into(), channel: "news".into(), auth: String::new(), channel_data: None };
    check(
        &directory,
        "",
        &[
            ("data signed", Cause::Ok, with_data(&text)),
            ("data sent", Cause::Ok, with_data(&sample.text())),
            ("public", Cause::Ok, public),
        ],
    );
}

/// R-EXPLAIN-2: a disabled app refuses everything, however it is signed.
#[test]
fn a_disabled_app_is_named() {
    let mut disabled = app(1, "3", &[NEW]);
    disabled.enabled = false;
    let directory = Directory::new(1, vec![disabled], Vec::new());
    let sample = Sample::plain();
    check(
        &directory,
        "",
        &[
            ("a channel", Cause::AppDisabled, sample.signed(&sample.text())),
            ("a user", Cause::AppDisabled, sample.user_signed("x")),
        ],
    );
}

fn samples() -> impl Strategy<Value = Sample> {
    let socket = (1_u64..1 << 33, 0_u64..1 << 33);
    let name = "[A-Za-z][A-Za-z0-9_=@,;.-]{0,30}";
    (socket, name, 1_u32..1_000_000, "[a-zA-Z0-9 <>/&'+äß€😀_-]{1,20}").prop_map(
        |(socket, name, user_id, user_name)| Sample {
            socket_id: format!("{}.{}", socket.0, socket.1),
            name,
            user_id,
            user_name,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// R-EXPLAIN-2, T53: each mistake is named for any names and data, and no answer has a digest or a secret.
    #[test]
    fn each_mistake_is_named(sample in samples()) {
        // A name that begins with a prefix is another channel without it.
        prop_assume!(!sample.name.starts_with("cache-") && !sample.name.starts_with("encrypted-"));
        prop_assume!(sample.name.to_lowercase() != sample.name.to_uppercase());
        check(&directory(), "", &[text_rows(&sample), secret_rows(&sample)].concat());
    }

    /// T54: nothing that a caller may ask panics or exceeds the bounds.
    #[test]
    fn anything_gets_an_answer(
        channel in "(private-|presence-|#server-to-user-)?.{0,40}",
        data in proptest::option::of("(?s).{0,200}"),
        auth in "(?s).{0,100}",
    ) {
        let directory = directory();
        for auth in [auth.clone(), format!("{}:{}", NEW.0, sign("x", &auth))] {
            let question =
                Question::Channel { socket_id: "1.2".into(), channel: channel.clone(), auth: auth.clone(), channel_data: data.clone() };
            check_harmless(&directory, &question, &explain(&state(&directory, ""), &question));
            let user_data = data.clone().unwrap_or_default();
            let question = Question::User { socket_id: "1.2".into(), user_data, auth, channel: Some(channel.clone()) };
            check_harmless(&directory, &question, &explain(&state(&directory, ""), &question));
        }
    }
}
