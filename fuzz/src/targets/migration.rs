//! Configurations of other servers: every plan can be stored, each name appears once, and planning again gives the same
//! result.

use std::collections::BTreeSet;

use relay::cli::migrate::fuzzing::plan;
use relay::store::check_webhook;
use relay::store::record::{check_id, check_key, check_name, check_secret};

use crate::input::Input;
use crate::json::Json;

/// Threats T10, T19, T24: the file comes from somebody else; R-HOOK-4.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let origin = input.below(4);
    let file = *input.pick(&["apps.json", "apps.toml"]);
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    let planned = plan(origin, text, file);
    let again = plan(origin, text, file);
    assert_eq!(format!("{planned:?}"), format!("{again:?}"));
    let planned = match planned {
        Ok(planned) => planned,
        Err(text) => return assert!(!text.contains('\n'), "a refusal is one line: {text:?}"),
    };
    assert!(file == "apps.toml" || Json::parse(text).is_some(), "what was read is JSON");
    assert!(!planned.is_empty());
    let (mut ids, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for app in &planned {
        assert!(ids.insert(&app.id) && keys.insert(&app.key), "a name is one app's: {app:?}");
        check_id(&app.id).expect("an id that the store takes");
        check_key(&app.key).expect("a key that the store takes");
        check_secret(&app.secret).expect("a secret that the store takes");
        check_name(&app.record.name).expect("a name that the store takes");
        for webhook in &app.webhooks {
            check_webhook(webhook, &[]).expect("a webhook that the store takes");
        }
    }
}
