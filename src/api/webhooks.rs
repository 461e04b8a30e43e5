//! `GET, POST /webhooks`, `DELETE /webhooks/{id}` and `POST /webhooks/verify` (R-HOOK-7, R-HOOK-8).

use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::Refusal;
use crate::app::App;
use crate::app::outgoing_url::Reach;
use crate::app::webhook::{Batching, CountName, NewWebhook, WebhookEndpoint, WebhookFormat};
use crate::label::Label;
use crate::limits;
use crate::wire::json::check_depth;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebhook {
    url: String,
    #[serde(default)]
    events: Vec<String>,
    format: Option<String>,
    #[serde(default)]
    batch: bool,
    #[serde(default)]
    count_changed: bool,
    #[serde(default)]
    allow_private: bool,
}

/// Decodes an endpoint to be created. Properties that the store checks, such as the URL, are not checked here.
///
/// # Errors
/// 400 that names the expected form; 403 for a permission that only an operator can grant (threat T19).
pub fn decode_webhook(body: &[u8]) -> Result<NewWebhook, Refusal> {
    let raw: RawWebhook = decode(body)?;
    if raw.allow_private {
        return Err(Refusal::forbidden(
            "Webhooks to private addresses can be permitted only on the command line: relay webhook add --allow-private.",
        ));
    }
    let format = raw.format.as_deref().map_or(Some(WebhookFormat::Pusher), WebhookFormat::of_label);
    Ok(NewWebhook {
        url: raw.url,
        events: raw.events,
        format: format.ok_or_else(|| Refusal::bad_request("format must be pusher or relay."))?,
        batching: if raw.batch { Batching::Batched } else { Batching::Single },
        reach: Reach::Public,
        count_name: if raw.count_changed { CountName::Changed } else { CountName::Pusher },
    })
}

/// The endpoints of an app, without their secrets.
pub fn encode_webhooks(app: &App) -> Vec<u8> {
    let webhooks: Vec<Value> = app.webhooks.endpoints().iter().map(webhook_json).collect();
    json!({ "webhooks": webhooks }).to_string().into_bytes()
}

/// An endpoint that was just created: the only time that its secret is shown.
pub fn encode_new_webhook(endpoint: &WebhookEndpoint) -> Vec<u8> {
    let mut json = webhook_json(endpoint);
    json["secret"] = endpoint.secret.expose().into();
    json.to_string().into_bytes()
}

fn webhook_json(endpoint: &WebhookEndpoint) -> Value {
    let events: Vec<&str> = endpoint.kinds.kinds().map(|kind| kind.label()).collect();
    json!({
        "id": endpoint.id,
        "url": endpoint.url,
        "events": events,
        "format": endpoint.format.label(),
        "batch": endpoint.batching == Batching::Batched,
        "count_changed": endpoint.count_name == CountName::Changed,
        "allow_private": endpoint.reach == Reach::Anywhere,
        "enabled": endpoint.enabled,
    })
}

#[derive(Deserialize)]
struct RawProof {
    payload: String,
    signature: String,
    webhook_id: Option<String>,
}

/// Checks whether a signature is that of an endpoint, or of the app if the request names no endpoint (R-HOOK-7).
///
/// # Errors
/// 400 for a body of another form, 404 for an endpoint that the app does not have.
pub fn verify_webhook(app: &App, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let proof: RawProof = decode(body)?;
    let payload = proof.payload.as_bytes();
    let mut tag = [0; 32];
    let well_formed = const_hex::decode_to_slice(&proof.signature, &mut tag).is_ok();
    let by_app = || app.keys.iter().any(|pair| pair.secret.verifies(payload, &tag));
    let by_endpoint = |endpoint: &WebhookEndpoint| endpoint.secret.verifies(payload, &tag);
    let matches = match &proof.webhook_id {
        Some(id) => {
            let unknown = || Refusal::not_found("This app has no such webhook.");
            let endpoint = app.webhooks.endpoint(id).ok_or_else(unknown)?;
            match endpoint.format {
                WebhookFormat::Pusher => by_app(),
                WebhookFormat::Relay => by_endpoint(endpoint),
            }
        }
        None => by_app() || app.webhooks.endpoints().iter().any(by_endpoint),
    };
    Ok(json!({ "valid": well_formed && matches }).to_string().into_bytes())
}

fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    check_depth(body, limits::JSON_DEPTH_MAX).map_err(|_| Refusal::bad_request("The body is nested too deeply."))?;
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    serde_json::from_slice(body).map_err(|error| Refusal::bad_request(format!("The body is invalid: {error}.")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::webhook::{WebhookKinds, Webhooks};
    use crate::app::{AppKey, AppSerial, Secret};

    fn app(format: WebhookFormat) -> App {
        App {
            serial: AppSerial(1),
            id: "1".into(),
            name: "".into(),
            enabled: true,
            keys: vec![AppKey::new("k1", "secret-1"), AppKey::new("k2", "secret-2")],
            encryption_master_key: None,
            settings: Default::default(),
            webhooks: Webhooks::new(vec![WebhookEndpoint {
                id: "wh_1".into(),
                url: "https://example.com/".into(),
                secret: Secret::new("whs_test"),
                kinds: WebhookKinds::all(),
                format,
                batching: Batching::Single,
                reach: Reach::Public,
                count_name: CountName::Pusher,
                enabled: true,
            }]),
        }
    }

    fn sign(secret: &str, text: &str) -> String {
        use ::hmac::{Hmac, KeyInit, Mac};
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
        mac.update(text.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    /// R-HOOK-7: with an id, the secret that its format signs with; without one, any of the app's; the check of
    /// R-HOOK-3.
    #[test]
    fn signatures_are_verified() {
        let valid = |app: &App, payload: &str, signature: &str, id: Option<&str>| {
            let body = json!({"payload": payload, "signature": signature, "webhook_id": id}).to_string();
            let answer = verify_webhook(app, body.as_bytes()).expect("200");
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            answer["valid"].as_bool().expect("a bool")
        };
        let (relay, pusher) = (app(WebhookFormat::Relay), app(WebhookFormat::Pusher));
        let text = r#"{"event":"channel.occupied","data":{"channel":"chat-room-42","subscription_count":1},"timestamp":1712300000}"#;
        let signature = "d908346b320d8e6b4dfd76e946de2194c07a1d2be214ebb5ba69c57e35d0f3d1";
        assert!(valid(&relay, text, signature, None) && valid(&relay, text, signature, Some("wh_1")));
        assert!(!valid(&pusher, text, signature, Some("wh_1")), "Pusher's format is signed with the app's secret");
        for secret in ["secret-1", "secret-2"] {
            assert!(
                valid(&pusher, text, &sign(secret, text), Some("wh_1"))
                    && valid(&pusher, text, &sign(secret, text), None)
            );
        }
        for wrong in ["", "d9", &sign("secret-3", text), &signature.replace('d', "e"), &format!("{signature}00"), "zz"]
        {
            assert!(!valid(&relay, text, wrong, None), "{wrong}");
        }
        assert!(!valid(&relay, &format!("{text} "), signature, None));
        let unknown = br#"{"payload":"","signature":"","webhook_id":"wh_2"}"#;
        assert_eq!(verify_webhook(&relay, unknown).expect_err("unknown").status, 404);
        for body in ["", "[]", r#"{"payload":"x"}"#, r#"{"payload":1,"signature":"x"}"#] {
            assert_eq!(verify_webhook(&relay, body.as_bytes()).expect_err(body).status, 400);
        }
    }

    /// R-HOOK-8, threat T19: the members of an endpoint; a tenant cannot grant permission for private addresses.
    #[test]
    fn endpoints_are_decoded() {
        let new = decode_webhook(br#"{"url":"https://example.com/"}"#).expect("defaults");
        assert_eq!(new, NewWebhook { url: "https://example.com/".into(), ..NewWebhook::default() });
        let new = decode_webhook(
            br#"{"url":"u","events":["cache_miss"],"format":"pusher","batch":true,"count_changed":true}"#,
        );
        let new = new.expect("all of it");
        assert_eq!((new.batching, new.count_name, new.events.len()), (Batching::Batched, CountName::Changed, 1));
        for (body, status) in [
            (r#"{"url":"u","allow_private":true}"#, 403),
            (r#"{"url":"u","format":"xml"}"#, 400),
            (r#"{"url":"u","evnts":[]}"#, 400),
            (r#"{"events":[]}"#, 400),
            (r#"{"url":7}"#, 400),
            ("", 400),
        ] {
            assert_eq!(decode_webhook(body.as_bytes()).expect_err(body).status, status, "{body}");
        }
    }

    /// R-HOOK-1, R-HOOK-8: the secret is shown when an endpoint is created and never again.
    #[test]
    fn secrets_are_shown_once() {
        let app = app(WebhookFormat::Relay);
        let list = String::from_utf8(encode_webhooks(&app)).expect("UTF-8");
        assert!(list.contains("wh_1") && !list.contains("whs_test"), "{list}");
        let made = String::from_utf8(encode_new_webhook(&app.webhooks.endpoints()[0])).expect("UTF-8");
        assert!(made.contains(r#""secret":"whs_test""#), "{made}");
    }
}
