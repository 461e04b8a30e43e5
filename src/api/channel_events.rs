//! `POST /channels/{c}/events`, the deprecated way to publish (P-HTTP-7): name and `socket_id` in the query, `data` as
//! the raw body.

use std::borrow::Cow;

use super::events::{
    Publish, PublishEvent, PublishForm, PublishRules, check_channel, check_event_name, check_socket_id,
};
use super::literal::encode_string;
use super::refusal::Refusal;
use crate::wire::query::Query;

/// Decodes and checks the complete request. An empty body is an empty string.
///
/// # Errors
/// 400 or 413 that names the limit or the expected form.
pub fn decode_channel_event<'a>(
    channel: Cow<'a, str>,
    query: Query<'a>,
    body: &[u8],
    rules: &PublishRules<'_>,
) -> Result<Publish<'a>, Refusal> {
    check_channel(&channel, rules.names)?;
    let name = query
        .value("name")?
        .ok_or_else(|| Refusal::bad_request("The query parameter name is missing: the event's name."))?;
    check_event_name(&name)?;
    let data = simdutf8::basic::from_utf8(body).map_err(|_| Refusal::bad_request("The body must be valid UTF-8."))?;
    let data_bytes_max = rules.settings.max_event_data_bytes as usize;
    if data.len() > data_bytes_max {
        return Err(Refusal::data_too_large(data_bytes_max));
    }
    let exclude = match query.value("socket_id")? {
        Some(text) => check_socket_id(&text)?,
        None => None,
    };
    let data_literal = Cow::Owned(encode_string(data));
    let event = PublishEvent { name, data_literal, channels: vec![channel], exclude, info: None };
    Ok(Publish { events: vec![event], form: PublishForm::Channel })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppSettings;
    use crate::channel::name::NameRules;
    use crate::protocol::socket_id::SocketId;

    fn decode<'a>(channel: &'a str, query: &'a str, body: &[u8]) -> Result<Publish<'a>, Refusal> {
        let settings = AppSettings { max_event_data_bytes: 10, ..AppSettings::default() };
        let rules = PublishRules { settings: &settings, names: NameRules::Default };
        decode_channel_event(channel.into(), Query::new(Some(query)), body, &rules)
    }

    /// P-HTTP-7: the body is the data unchanged, whatever it looks like.
    #[test]
    fn the_body_is_the_data() {
        for (body, literal) in [("", r#""""#), (r#"{"a":1}"#, r#""{\"a\":1}""#), ("[", r#""[""#), ("é", r#""é""#)] {
            let publish = decode("a", "auth_key=k&name=my%20event&socket_id=1.2", body.as_bytes()).expect(body);
            assert_eq!(publish.form, PublishForm::Channel);
            let [event] = <[PublishEvent<'_>; 1]>::try_from(publish.events).expect("one event");
            assert_eq!((&*event.name, &*event.data_literal, event.info), ("my event", literal, None));
            assert_eq!((event.channels, event.exclude), (vec![Cow::Borrowed("a")], SocketId::parse("1.2")));
        }
    }

    /// P-HTTP-7, P-HTTP-13, P-LIM-1, P-LIM-2, P-LIM-3, P-CHAN-2: the rules of publishing apply here too.
    #[test]
    fn the_rules_of_publishing_hold() {
        assert!(decode("a", "name=e", b"1234567890").is_ok());
        for (channel, query, body, status) in [
            ("a b", "name=e", &b""[..], 400),
            ("a", "", b"", 400),
            ("a", "name=", b"", 400),
            ("a", "name=pusher:x", b"", 400),
            ("a", "name=e&socket_id=1", b"", 400),
            ("a", "name=e", b"\xff", 400),
            ("a", "name=e", b"12345678901", 413),
        ] {
            let refusal = decode(channel, query, body).expect_err(query);
            assert_eq!(refusal.status, status, "{query}: {}", refusal.message);
        }
    }
}
