//! The data file of LMDB, damaged anywhere: it is checked in bounded time, and LMDB can read every file that passes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use relay::app::actor::Actor;
use relay::store::fuzzing::verify_file;
use relay::store::{Missing, NewApp, Store};

use crate::input::Input;

/// A small store with an app, and a folder for damaged copies of it; made once per process.
struct Sample {
    damaged: PathBuf,
    bytes: Vec<u8>,
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let folder = |name: &str| {
            let folder = std::env::temp_dir().join(format!("relay-fuzz-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder of ours");
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).expect("a folder of ours");
            folder
        };
        let made = folder("made");
        let store = Store::open(&made, Missing::Create).expect("a new store");
        let text = |text: &str| Some(text.to_owned());
        let new = NewApp { id: text("7"), key: text("key"), secret: text("secret"), ..NewApp::default() };
        store.create_app(&Actor::cli(0), new).expect("an app");
        drop(store);
        let bytes = std::fs::read(made.join("data.mdb")).expect("the data file");
        std::fs::remove_dir_all(made).expect("a folder of ours");
        Sample { damaged: folder("damaged"), bytes }
    })
}

/// Threat T29: a truncated or overwritten file gives one clear error.
pub fn check(bytes: &[u8]) {
    let sample = sample();
    let mut input = Input::new(bytes);
    let mut file = sample.bytes.clone();
    if input.below(8) == 0 {
        file.truncate(usize::from(input.word()) * 8 % (file.len() + 1));
    }
    let pages = (file.len() / 4_096).max(1);
    while !input.is_empty() && !file.is_empty() {
        let page = input.below(pages.min(256));
        // Headers and entries of a page are at its ends; most of the rest is not checked.
        let at = page * 4_096 + usize::from(input.word() % 4_096);
        for (index, byte) in std::iter::once(input.byte()).chain(input.line().iter().copied()).enumerate() {
            let place = (at + index) % file.len();
            file[place] = byte;
        }
    }
    let path = sample.damaged.join("data.mdb");
    std::fs::write(&path, &file).expect("room for a small file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("our file");
    let looked_over = verify_file(&path);
    let read = Store::open(&sample.damaged, Missing::Refuse).and_then(|store| store.apps());
    for error in [looked_over.as_ref().err(), read.as_ref().err()].into_iter().flatten() {
        let text = error.to_string();
        assert!(!text.contains('\n') && text.len() < 500, "{text}");
    }
    assert!(looked_over.is_ok() || read.is_err(), "what is damaged is not opened");
}
