//! The tables of settings in `docs/`, generated from the tables of the code.

use std::fs;
use std::path::Path;

use super::settings::SERVER_SETTINGS;
use crate::app::settings::APP_SETTINGS;
use crate::setting::{Setting, Takes};

const BEGIN: &str = "<!-- settings: generated -->\n";
const END: &str =
    "<!-- end of settings; regenerate with: RELAY_UPDATE=1 cargo test --lib settings_are_documented -->\n";

/// Goal: the documents list every setting as the code defines it. Method: the generated tables are compared with those
/// of the documents, or written there.
#[test]
fn settings_are_documented() {
    let name = "| `name` | a name for people, at most 100 bytes | empty | Name of the app. |\n";
    for (document, table) in [
        ("docs/configuration.md", rows(SERVER_SETTINGS, String::new())),
        ("docs/cli.md", rows(APP_SETTINGS, name.to_owned())),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        let text = fs::read_to_string(&path).expect(document);
        let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
        let (found, after) = rest.split_once(END).expect("where the table ends");
        if std::env::var_os("RELAY_UPDATE").is_some() {
            fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect(document);
        } else if let Some((found, row)) = found.lines().zip(table.lines()).find(|(found, row)| found != row) {
            panic!(
                "{document} has\n{found}\nbut the code\n{row}\n: RELAY_UPDATE=1 cargo test --lib settings_are_documented"
            );
        } else {
            assert_eq!(found.lines().count(), table.lines().count(), "{document}: rows; RELAY_UPDATE=1 makes them");
        }
    }
}

fn rows<S: Default>(settings: &[Setting<S>], first: String) -> String {
    let head = "| setting | value | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    settings.iter().fold(head + &first, |table, setting| table + &row(setting))
}

fn row<S: Default>(setting: &Setting<S>) -> String {
    let code = |text: &str| format!("`{text}`");
    let value = match setting.takes {
        Takes::Switch => "`true` or `false`".to_owned(),
        Takes::Word(words) => words.iter().map(|word| code(word)).collect::<Vec<_>>().join(", "),
        Takes::Number { .. } | Takes::Form(_) => setting.takes.to_string(),
    };
    let default = setting.default_text(&S::default());
    let default = if setting.notes.default.is_some() { default } else { code(&default) };
    let dev = setting.notes.dev.map(|text| format!("; with `--dev` {}", code(text))).unwrap_or_default();
    let meaning = setting.lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let rules = if setting.notes.rules.is_empty() { String::new() } else { format!(" ({})", setting.notes.rules) };
    format!("| `{}` | {value} | {default}{dev} | {}{rules}. |\n", setting.name, meaning.trim_end_matches('.'))
}

/// Goal: an entry has a summary that works as a line of help, and a default that its own parser accepts.
#[test]
fn entries_are_whole() {
    fn check<S: Default>(settings: &[Setting<S>]) {
        for setting in settings {
            let Setting { name, .. } = setting;
            assert!(setting.lines[0].ends_with('.') && setting.summary().len() < 120, "{name}: {}", setting.summary());
            let mut changed = S::default();
            let default = setting.default_text(&S::default());
            if setting.notes.default.is_none() {
                assert!(
                    (setting.set)(&mut changed, &default).is_some(),
                    "{name} does not accept its default {default}"
                );
                assert_eq!((setting.show)(&changed), (setting.show)(&S::default()), "{name}");
            }
            assert!(setting.notes.dev.is_none_or(|text| (setting.set)(&mut changed, text).is_some()), "{name}");
        }
    }
    check(SERVER_SETTINGS);
    check(APP_SETTINGS);
}
