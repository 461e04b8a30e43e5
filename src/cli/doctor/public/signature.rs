//! The mistake behind a signature that does not hold, where the app's secrets are known (R-PIT-2).

use ring::hmac;
use serde_json::Value;

use crate::app::AppKey;

/// An authorization as an endpoint gave it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) socket_id: &'a str,
    pub(super) channel: &'a str,
    pub(super) channel_data: Option<&'a str>,
    pub(super) auth: &'a str,
}

/// What is wrong, and the fix; `None` if the signature is right.
pub(super) fn cause(pairs: &[AppKey], signed: &Signed<'_>) -> Option<(String, String)> {
    let (key, signature) = signed.auth.rsplit_once(':').unwrap_or((signed.auth, ""));
    let say = |found: &str, fix: &str| Some((found.to_owned(), fix.to_owned()));
    let Some(pair) = pairs.iter().find(|pair| &*pair.key == key) else {
        if pairs.iter().any(|pair| pair.secret.expose() == key) {
            return say(
                "`auth` begins with the secret: key and secret are swapped",
                "swap them in the application, and rotate the pair: every client has seen the secret",
            );
        }
        return say(
            "the key in `auth` is not one of this app's",
            "use the key and secret of this app: compare with `relay app show ID`",
        );
    };
    let Signed { socket_id, channel, channel_data, .. } = *signed;
    let data = channel_data.map_or_else(String::new, |data| format!(":{data}"));
    let right = format!("{socket_id}:{channel}{data}");
    let lower = signature.to_ascii_lowercase();
    let matches = |secret: &str, text: &str| hex(secret, text) == lower;
    let secret = pair.secret.expose();
    if matches(secret, &right) {
        return (signature != lower).then(|| {
            ("the signature is in upper-case hex".to_owned(), "write the digest in lower-case hex".to_owned())
        });
    }
    let order = "sign socket_id, then a colon, then channel_name";
    let texts: [(String, &str, &str); 6] = [
        (format!("{channel}:{socket_id}{data}"), "signed in the wrong order: channel_name before socket_id", order),
        (channel.to_owned(), "signed is the channel alone", order),
        (format!("{socket_id}{channel}"), "signed without the colon", order),
        (format!("{socket_id}:{channel}"), "signed without channel_data", "sign socket_id:channel_name:channel_data"),
        (format!("{socket_id}::user::{}", channel_data.unwrap_or_default()), "signed as user authentication", order),
        (format!("{right}\n"), "signed with a line break at the end", "remove it (echo -n)"),
    ];
    if let Some((_, found, fix)) = texts.iter().find(|(text, ..)| matches(secret, text)) {
        return say(found, fix);
    }
    if let Some(data) = channel_data
        && reserialised(data).iter().any(|data| matches(secret, &format!("{socket_id}:{channel}:{data}")))
    {
        return say(
            "channel_data was encoded again after it was signed",
            "answer the very string that was signed: encode it once and use that twice",
        );
    }
    if pairs.iter().any(|other| other.key != pair.key && matches(other.secret.expose(), &right)) {
        return say("signed with the secret of another key of this app", "use the secret that belongs to the key");
    }
    let spoilt = [
        format!("{secret}\n"),
        format!("\"{secret}\""),
        format!("'{secret}'"),
        format!(" {secret}"),
        format!("{secret} "),
    ];
    if spoilt.iter().any(|secret| matches(secret, &right)) {
        return say("the secret has quotes, a space or a line break around it", "remove them from the env file");
    }
    if matches(key, &right) {
        return say("signed with the key instead of the secret", "use the app's secret");
    }
    if signature.len() == 44 || signature.len() == 43 {
        return say("the signature has the length of base64", "write the digest in lower-case hex");
    }
    say(
        "the signature is not that of the key's secret over socket_id:channel_name",
        "compare the secret with `relay app show ID --secrets`; sign the socket_id and the channel of this request",
    )
}

fn hex(secret: &str, text: &str) -> String {
    const_hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes()))
}

/// The forms that JSON libraries give the same data.
fn reserialised(data: &str) -> Vec<String> {
    let Ok(value) = serde_json::from_str::<Value>(data) else { return Vec::new() };
    let compact = value.to_string();
    let spaced = spaced(&value);
    let ascii = |text: &str| -> String {
        let escape = |character: char| match character {
            character if character.is_ascii() => character.to_string(),
            character => character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        };
        text.chars().map(escape).collect()
    };
    let slashes = |text: &str| text.replace('/', "\\/");
    let mut forms = vec![compact.clone(), spaced.clone()];
    forms.extend([ascii(&compact), ascii(&spaced), slashes(&compact), slashes(&ascii(&compact))]);
    forms
}

/// With a space after each colon and comma, as Python writes it.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{}: {}", Value::from(name.as_str()), spaced(value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use ::hmac::{Hmac, KeyInit, Mac};

    use super::*;

    /// An independent signer.
    fn sign(secret: &str, text: &str) -> String {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
        mac.update(text.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    /// R-DIAG-3, R-PIT-2: each mistake is named, and a right signature is not blamed.
    #[test]
    fn mistakes_are_named() {
        let pairs = [AppKey::new("key-1", "secret-1"), AppKey::new("key-2", "secret-2")];
        let data = r#"{"user_id":"7","user_info":{"name":"Grüße/"}}"#;
        let (id, private, presence) = ("1.2", "private-a", "presence-a");
        let named = |auth: &str, channel: &str, channel_data: Option<&str>| {
            cause(&pairs, &Signed { socket_id: id, channel, channel_data, auth }).map(|(found, _)| found)
        };
        let right = sign("secret-1", "1.2:private-a");
        assert_eq!(named(&format!("key-1:{right}"), private, None), None);
        let with_data = sign("secret-2", &format!("1.2:presence-a:{data}"));
        assert_eq!(named(&format!("key-2:{with_data}"), presence, Some(data)), None);
        let python = "{\"user_id\": \"7\", \"user_info\": {\"name\": \"Gr\\u00fc\\u00dfe/\"}}";
        let php = r#"{"user_id":"7","user_info":{"name":"Gr\u00fc\u00dfe\/"}}"#;
        let cases = [
            ("secret-1", "private-a:1.2".to_owned(), private, None, "wrong order"),
            ("secret-1", "private-a".to_owned(), private, None, "channel alone"),
            ("secret-1", "1.2private-a".to_owned(), private, None, "without the colon"),
            ("secret-1", "1.2:presence-a".to_owned(), presence, Some(data), "without channel_data"),
            ("secret-1", format!("1.2::user::{data}"), presence, Some(data), "user authentication"),
            ("secret-1", "1.2:private-a\n".to_owned(), private, None, "line break at the end"),
            ("secret-1", format!("1.2:presence-a:{python}"), presence, Some(data), "encoded again"),
            ("secret-1", format!("1.2:presence-a:{php}"), presence, Some(data), "encoded again"),
            ("secret-2", "1.2:private-a".to_owned(), private, None, "another key"),
            ("secret-1\n", "1.2:private-a".to_owned(), private, None, "around it"),
            ("\"secret-1\"", "1.2:private-a".to_owned(), private, None, "around it"),
            ("key-1", "1.2:private-a".to_owned(), private, None, "key instead of the secret"),
            ("unknown", "1.2:private-a".to_owned(), private, None, "not that of the key's secret"),
        ];
        for (secret, text, channel, data, part) in cases {
            let found = named(&format!("key-1:{}", sign(secret, &text)), channel, data).expect(part);
            assert!(found.contains(part), "{text:?} with {secret:?}: {found}");
        }
        for (auth, part) in [
            (format!("key-1:{}", right.to_uppercase()), "upper-case"),
            (format!("secret-1:{right}"), "swapped"),
            (format!("key-9:{right}"), "not one of this app's"),
            ("key-1:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=".to_owned(), "base64"),
        ] {
            let found = named(&auth, private, None).expect(part);
            assert!(found.contains(part), "{auth}: {found}");
        }
    }
}
