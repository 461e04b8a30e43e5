//! Bodies of publishes and replays: a second reader of JSON finds the same contents in every accepted body, and refuses
//! the same bodies (P-HTTP-12 to P-HTTP-14, P-LIM-1 to P-LIM-5, R-REPLAY-1).

use relay::api::batch_events::decode_batch_events;
use relay::api::events::{Publish, PublishRules, decode_events};
use relay::api::replay::{Replay, decode_replay};
use relay::app::AppSettings;
use relay::channel::name::NameRules;

use crate::input::Input;
use crate::json::{Json, Kind};

/// Name, text of `data`, channels, the text of `socket_id`.
type Event = (String, String, Vec<String>, Option<String>);

/// Ids, target_channel, target_app_id, declassify.
type Ids = (Vec<String>, Option<String>, Option<String>, bool);

/// The app of the requests.
const APP: &str = "17";

/// P-HTTP-1, P-HTTP-2, P-HTTP-12 to P-HTTP-14, P-SDK-21, R-REPLAY-1, threats T10, T11.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let settings = AppSettings {
        max_event_data_bytes: *input.pick(&[10, 10_240, 1_000]),
        max_channels_per_event: *input.pick(&[3, 100, 1]),
        max_batch_events: *input.pick(&[2, 10, 1]),
        ..AppSettings::default()
    };
    let rules = PublishRules { settings: &settings, names: NameRules::Default };
    let body = input.rest();
    let text = std::str::from_utf8(body).ok();
    if text.is_some_and(Json::is_beyond) {
        return;
    }
    let json = text.and_then(Json::parse);
    let one = json.as_ref().and_then(|json| read_events(json, &settings));
    assert_eq!(decode_events(body, &rules).ok().map(own), one);
    let batch = json.as_ref().and_then(|json| read_batch(json, &settings));
    assert_eq!(decode_batch_events(body, &rules).ok().map(own), batch);
    let replay = json.as_ref().filter(|_| body.len() <= 16_384).and_then(read_replay);
    assert_eq!(decode_replay(APP, body, NameRules::Default).ok().map(own_ids), replay);
    let replay = decode_replay(APP, body, NameRules::Default).err();
    let refusals = [decode_events(body, &rules).err(), decode_batch_events(body, &rules).err(), replay];
    for refusal in refusals.into_iter().flatten() {
        assert!(matches!(refusal.status, 400 | 403 | 413), "{refusal:?}");
        assert!(!refusal.message.contains(['\n', '\r']), "an answer is one line: {refusal:?}");
    }
}

fn own(publish: Publish<'_>) -> Vec<Event> {
    let own = |event: relay::api::events::PublishEvent<'_>| {
        let Some(Json { kind: Kind::Text { text: data, whole: true }, .. }) = Json::parse(&event.data_literal) else {
            panic!("what goes into a frame is a string: {}", event.data_literal)
        };
        let channels = event.channels.into_iter().map(std::borrow::Cow::into_owned).collect();
        (event.name.into_owned(), data, channels, event.exclude.map(|id| id.to_text()))
    };
    publish.events.into_iter().map(own).collect()
}

fn read_events(json: &Json<'_>, settings: &AppSettings) -> Option<Vec<Event>> {
    let members = json.members(["name", "data", "channel", "channels", "socket_id", "info"])?.map(present);
    let channels = match (members[2], members[3]) {
        (Some(channel), None) => vec![read_channel(channel)?],
        (None, Some(Json { kind: Kind::Array(names), .. })) => {
            let mut channels: Vec<String> = Vec::new();
            for name in names {
                let name = read_channel(name)?;
                if !channels.contains(&name) {
                    channels.push(name);
                }
            }
            (1..=settings.max_channels_per_event as usize).contains(&channels.len()).then_some(channels)?
        }
        _ => return None,
    };
    Some(vec![read_event(members, channels, settings)?])
}

fn read_batch(json: &Json<'_>, settings: &AppSettings) -> Option<Vec<Event>> {
    let [batch] = json.members(["batch"])?.map(present);
    let Some(Json { kind: Kind::Array(elements), .. }) = batch else { return None };
    if !(1..=settings.max_batch_events as usize).contains(&elements.len()) {
        return None;
    }
    let read = |element: &Json<'_>| {
        let members = element.members(["name", "data", "channel", "channels", "socket_id", "info"])?.map(present);
        if members[3].is_some() {
            return None;
        }
        let channels = vec![read_channel(members[2]?)?];
        read_event(members, channels, settings)
    };
    elements.iter().map(read).collect()
}

fn own_ids(replay: Replay) -> Ids {
    let Replay { events, target_channel, target_app_id, declassify } = replay;
    for (text, id) in &events {
        assert!(id.is_none_or(|id| id.to_text() == **text), "each id has one text: {text}");
    }
    let own = |text: Option<Box<str>>| text.map(String::from);
    (events.into_iter().map(|(text, _)| text.into()).collect(), own(target_channel), own(target_app_id), declassify)
}

fn read_replay(json: &Json<'_>) -> Option<Ids> {
    let names = ["event_ids", "target_channel", "target_app_id", "declassify"];
    let [ids, channel, app, declassify] = json.members(names)?;
    let Kind::Object(all) = &json.kind else { return None };
    let is_known = |name: &Option<String>| name.as_ref().is_some_and(|name| names.contains(&name.as_str()));
    let Kind::Array(ids) = &ids?.kind else { return None };
    if !all.iter().all(|(name, _)| is_known(name)) || !(1..=100).contains(&ids.len()) {
        return None;
    }
    let is_id = |text: &str| {
        let mut rest = text.strip_prefix("evt_").unwrap_or_default().bytes();
        text.len() == 28 && rest.len() == 24 && rest.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let ids = ids.iter().map(|id| read_whole(id).filter(|text| is_id(text))).collect::<Option<Vec<String>>>()?;
    let channel = match present(channel) {
        Some(channel) => Some(read_whole(channel).and_then(|_| read_channel(channel))?),
        None => None,
    };
    let app = match present(app) {
        Some(app) => Some(read_whole(app).filter(|app| app == APP)?),
        None => None,
    };
    let declassify = match declassify.map(|json| json.raw) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return None,
    };
    Some((ids, channel, app, declassify))
}

/// A string without half of a surrogate pair.
fn read_whole(json: &Json<'_>) -> Option<String> {
    match &json.kind {
        Kind::Text { text, whole: true } => Some(text.clone()),
        _ => None,
    }
}

/// `null` is treated as an absent member.
fn present<'j, 'a>(member: Option<&'j Json<'a>>) -> Option<&'j Json<'a>> {
    member.filter(|json| !matches!(json.kind, Kind::Null))
}

fn read_string(json: &Json<'_>) -> Option<String> {
    match &json.kind {
        Kind::Text { text, .. } => Some(text.clone()),
        _ => None,
    }
}

fn read_event(members: [Option<&Json<'_>>; 6], channels: Vec<String>, settings: &AppSettings) -> Option<Event> {
    let [name, data, _, _, socket_id, info] = members;
    let name = read_string(name?)?;
    let is_reserved = name.starts_with("pusher:") || name.starts_with("pusher_internal:");
    if name.is_empty() || name.len() > 200 || is_reserved || name.chars().any(char::is_control) {
        return None;
    }
    let data = match data? {
        Json { kind: Kind::Text { text, .. }, .. } => text.clone(),
        Json { kind: Kind::Array(_) | Kind::Object(_), raw } => (*raw).to_owned(),
        Json { kind: Kind::Null | Kind::Scalar, .. } => return None,
    };
    if data.len() > settings.max_event_data_bytes as usize {
        return None;
    }
    if let Some(info) = info {
        read_string(info)?;
    }
    let socket_id = match socket_id {
        None => None,
        Some(json) => read_socket_id(&read_string(json)?)?,
    };
    Some((name, data, channels, socket_id))
}

/// The outer `None` is a refusal; the inner one is an id that no connection has.
fn read_socket_id(text: &str) -> Option<Option<String>> {
    let (high, low) = text.split_once('.')?;
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(high) || !is_number(low) {
        return None;
    }
    let canonical = |part: &str| part.parse::<u64>().is_ok_and(|number| number.to_string() == part);
    Some((canonical(high) && canonical(low)).then(|| text.to_owned()))
}

/// P-CHAN-2.
fn read_channel(json: &Json<'_>) -> Option<String> {
    let name = read_string(json)?;
    let checked = name.strip_prefix("#server-to-user-").or_else(|| (!name.starts_with('#')).then_some(&*name))?;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=@,.;:#".contains(&byte);
    ((1..=200).contains(&name.len()) && !checked.is_empty() && checked.bytes().all(is_good)).then_some(name)
}
