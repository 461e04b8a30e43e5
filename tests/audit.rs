//! The audit log and the credentials of operators in a real store (R-ADMIN rules): entries if and only if changes,
//! bounds, what is never recorded.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use relay::app::AppSettings;
use relay::app::actor::{Actor, ActorKind};
use relay::app::webhook::NewWebhook;
use relay::auth::token::token_hash;
use relay::limits;
use relay::store::audit::{AuditAction, AuditEntry, AuditQuery};
use relay::store::record::{AppRecord, TokenRecord};
use relay::store::{
    Batch, Idempotency, KeyItems, Missing, NewAdminToken, NewApp, NewPassword, NewToken, Role, Store, StoreError,
    unix_ms,
};
use serde_json::{Value, json};

const EVERYTHING: AuditQuery<'static> = AuditQuery { before: None, app: None, limit: usize::MAX };

fn cli() -> Actor {
    Actor::cli(1_000)
}

fn with_key(key: &str) -> Actor {
    Actor::new(ActorKind::AppKey, key, Some(IpAddr::from([192, 0, 2, 7])))
}

fn open(directory: &Path) -> Store {
    Store::open(directory, Missing::Create).expect("opens")
}

/// A store with the app `1` and its key `k`.
fn store_with_app() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    create_app(&store, "1", "k");
    (directory, store)
}

fn create_app(store: &Store, id: &str, key: &str) {
    let new = NewApp { id: Some(id.into()), key: Some(key.into()), ..NewApp::default() };
    store.create_app(&cli(), new).expect("app");
}

fn token(app: &str, name: &str) -> NewToken {
    NewToken { app: app.into(), name: name.into(), scopes: Vec::new(), expires_at_ms: None }
}

fn webhook(url: &str) -> NewWebhook {
    NewWebhook { url: url.into(), ..NewWebhook::default() }
}

fn admin(name: &str, role: Role, expires_at_ms: Option<u64>) -> NewAdminToken {
    NewAdminToken { name: name.into(), role, expires_at_ms }
}

fn set_connections(store: &Store, number: u32) {
    let change = |app: &mut AppRecord| {
        app.settings.max_connections = number;
        Ok(())
    };
    store.change_app(&cli(), "1", change).expect("set");
}

fn entries(store: &Store) -> Vec<AuditEntry> {
    store.audit(EVERYTHING).expect("reads")
}

/// R-ADMIN-4, threat T50: every change writes one entry with its actor, action, app and subject; a change without effect
/// and a refused one write none; no secret, token, hash or password is in any entry.
#[test]
fn every_change_has_an_entry() {
    let (_directory, store) = store_with_app();
    let (cli, key) = (cli(), with_key("k"));
    let mut seen = entries(&store).len();
    let mut secrets = vec![store.app("1").expect("app").keys[0].secret.clone()];
    let mut expect = |actions: &[&str]| {
        let all = entries(&store);
        let new: Vec<&str> = all[..all.len() - seen].iter().rev().map(|entry| &*entry.action).collect();
        assert_eq!(new, actions);
        seen = all.len();
    };
    set_connections(&store, 7);
    expect(&["app.change"]);
    set_connections(&store, 7);
    expect(&[]);
    store.change_app(&cli, "1", |_| Err(StoreError::Invalid("no".into()))).expect_err("refused");
    expect(&[]);
    let (_, pair) = store.rotate_app(&cli, "1").expect("rotated");
    secrets.push(pair.secret);
    expect(&["key.create"]);
    store.upsert_app(&cli, "1", "k", "another-secret", AppSettings::default()).expect("upserted");
    secrets.push("another-secret".into());
    expect(&["key.change"]);
    store.upsert_app(&cli, "1", "k", "another-secret", AppSettings::default()).expect("upserted");
    expect(&[]);
    let created = store.create_token(&key, token("1", "ci")).expect("token");
    secrets.extend([created.token, created.record.hash]);
    expect(&["token.create"]);
    let rotated = store.rotate_token(&cli, None, &created.record.id).expect("rotated");
    secrets.extend([rotated.token, rotated.record.hash]);
    expect(&["token.rotate"]);
    for _ in 0..2 {
        store.revoke_token(&key, Some("1"), &rotated.record.id).expect("revoked");
    }
    expect(&["token.revoke"]);
    let added = store.add_webhook(&key, "1", webhook("https://example.com/hook?password=hunter2"), &[]).expect("added");
    secrets.extend([added.secret, "hunter2".into()]);
    expect(&["webhook.create"]);
    for _ in 0..2 {
        store.switch_webhook(&cli, None, &added.id, false).expect("switched");
    }
    expect(&["webhook.change"]);
    store.remove_webhook(&cli, None, &added.id).expect("removed");
    expect(&["webhook.remove"]);
    store.remove_key(&cli, "1", "k", KeyItems::Refuse).expect("removed");
    expect(&["key.remove"]);
    let made = store.create_admin_token(&cli, admin("ops", Role::Viewer, None)).expect("made");
    secrets.extend([made.token, made.record.hash]);
    expect(&["admin_token.create"]);
    for _ in 0..2 {
        store.revoke_admin_token(&cli, &made.record.id).expect("revoked");
    }
    expect(&["admin_token.revoke"]);
    for role in [None, Some(Role::Viewer)] {
        let new = NewPassword { user: "alice".into(), password: "correct horse".into(), role };
        store.set_password(&cli, &new).expect("set");
    }
    secrets.extend(["correct horse".into(), store.users().expect("users")[0].password.clone()]);
    expect(&["user.create", "user.change"]);
    store.remove_user(&cli, "alice").expect("removed");
    expect(&["user.remove"]);
    store.delete_app(&cli, "1").expect("deleted");
    expect(&["app.delete"]);

    let all = entries(&store);
    let text = serde_json::to_string(&all).expect("JSON");
    for secret in secrets {
        assert!(!text.contains(&secret), "{secret} in {text}");
    }
    let by_key: Vec<&AuditEntry> = all.iter().filter(|entry| entry.actor == "app_key").collect();
    assert_eq!(by_key.len(), 3);
    assert!(by_key.iter().all(|entry| entry.actor_id == "k" && entry.address.as_deref() == Some("192.0.2.7")));
    let change = all.iter().find(|entry| entry.action == "app.change").expect("the change");
    assert_eq!(change.changes[0].to_string(), "max_connections: 0 -> 7");
    let user = all.iter().find(|entry| entry.action == "user.change").expect("the change");
    let changes: Vec<String> = user.changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["password: changed", "role: admin -> viewer"]);
    assert!(all.windows(2).all(|pair| pair[0].number > pair[1].number && pair[0].at_ms >= pair[1].at_ms));
}

/// R-ADMIN-4, threat T50: 20,000 changes of settings keep the creation of a token listed; the log stays within its
/// bounds and keeps the newest entries. Pages and the filter by app read the same entries.
#[test]
fn settings_do_not_push_out_credentials() {
    let (_directory, store) = store_with_app();
    let created = store.create_token(&cli(), token("1", "before")).expect("token");
    for round in 0..20 {
        let set = |batch: &mut Batch<'_, '_>| {
            (1..=1_000).try_for_each(|step| {
                let change = |app: &mut AppRecord| {
                    app.settings.max_connections = round * 1_000 + step;
                    Ok(())
                };
                batch.change_app("1", change).map(drop)
            })
        };
        store.change_all(&cli(), set).expect("set");
    }
    let all = entries(&store);
    let changes = all.iter().filter(|entry| entry.action == "app.change").count();
    assert_eq!(changes as u64, limits::AUDIT_ENTRIES_MAX);
    assert_eq!(all[0].changes[0].to_string(), "max_connections: 19999 -> 20000");
    let subject = Some(created.record.id);
    assert!(all.iter().any(|entry| entry.action == "token.create" && entry.subject == subject));

    let (mut paged, mut before) = (Vec::new(), None);
    loop {
        let page = store.audit(AuditQuery { before, app: Some("1"), limit: 999 }).expect("a page");
        let Some(last) = page.last() else { break };
        before = Some(last.number);
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert!(store.audit(AuditQuery { app: Some("2"), ..EVERYTHING }).expect("reads").is_empty());
}

/// Threat T50: an app that floods the log with its own key loses its own oldest entries, and neither those of another
/// app nor those of operators.
#[test]
fn an_app_pushes_out_only_itself() {
    let (_directory, store) = store_with_app();
    create_app(&store, "2", "k2");
    let quiet = store.create_token(&with_key("k2"), token("2", "quiet")).expect("token");
    let most = limits::AUDIT_APP_ENTRIES_MAX as usize;
    for _ in 0..=most / 1_000 {
        let flood = |batch: &mut Batch<'_, '_>| {
            (0..500).try_for_each(|_| {
                let created = batch.create_token(token("1", "flood"))?;
                batch.revoke_token(Some("1"), &created.record.id).map(drop)
            })
        };
        store.change_all(&with_key("k"), flood).expect("flood");
    }
    let all = entries(&store);
    let of =
        |app: &str| all.iter().filter(|entry| entry.actor == "app_key" && entry.app.as_deref() == Some(app)).count();
    assert_eq!((of("2"), of("1")), (1, most - 1));
    assert!(all.iter().any(|entry| entry.subject == Some(quiet.record.id.clone())));
    assert_eq!(all.iter().filter(|entry| entry.action == "app.create").count(), 2);
    assert_eq!(store.tokens(Some("1")).expect("tokens").len(), limits::TOKENS_PER_APP_MAX);
}

/// Threats T50, T27: names with line breaks, escape sequences and characters that change the direction of text are
/// escaped in entries, and long values are cut.
#[test]
fn entries_are_plain_text() {
    let (_directory, store) = store_with_app();
    let hostile = "evil\u{1b}[2J\n2026-01-01 token.create\u{202e}";
    store.note(&Actor::new(ActorKind::User, hostile, None), AuditAction::SecretReveal, "1", hostile).expect("noted");
    let long = "x".repeat(5_000);
    store.note(&cli(), AuditAction::EventsPublish, "1", &long).expect("noted");
    let all = entries(&store);
    for entry in &all[..2] {
        let texts = [Some(&entry.actor_id), entry.subject.as_ref()];
        for text in texts.into_iter().flatten() {
            assert!(text.chars().all(|character| !character.is_control() && character != '\u{202e}'), "{text:?}");
            assert!(text.len() < 300, "{}", text.len());
        }
    }
    let actor = &all[1].actor_id;
    assert!(actor.contains("\\u{1b}[2J\\u{a}2026") && actor.ends_with("\\u{202e}"), "{actor}");
}

/// R-ADMIN-4: an import of apps is one commit with one entry, which counts what it did; one without effect writes none.
#[test]
fn an_import_is_one_entry() {
    let (_directory, store) = store_with_app();
    let version = store.version().expect("version");
    let import = || {
        store.import(&cli(), "soketi", |batch| {
            (2..102).try_for_each(|number| {
                let id = number.to_string();
                batch.upsert_app(&id, &format!("key-{id}"), "secret", AppSettings::default())?;
                batch.upsert_webhook(&id, webhook("https://example.com/"), &[]).map(drop)
            })
        })
    };
    for _ in 0..2 {
        import().expect("imported");
        let all = entries(&store);
        assert_eq!(all.len(), 2);
        assert_eq!((&*all[0].action, all[0].subject.as_deref()), ("apps.import", Some("soketi")));
        let changes: Vec<String> = all[0].changes.iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["app.create: 100", "webhook.create: 100"]);
        assert_eq!(store.version().expect("version"), version + 1);
    }
}

/// R-ADMIN-4, threat T50: processes that set a value are killed with SIGKILL at random moments, two at a time. Afterwards
/// the entries are a chain from the first value to the present one, so that each change has an entry and each entry a
/// change, and each acknowledged change is in it.
#[test]
fn kill_nine_leaves_entry_and_change_together() {
    let (directory, store) = store_with_app();
    drop(store);
    let seed = u64::from(std::process::id());
    let acknowledged: Vec<u32> = std::thread::scope(|scope| {
        let data = directory.path();
        let workers = [1, 2].map(|worker| scope.spawn(move || set_and_kill(data, (seed << 8) | worker, worker as u32)));
        workers.into_iter().flat_map(|worker| worker.join().expect("worker")).collect()
    });
    let store = open(directory.path());
    let mut value = "0".to_owned();
    let mut chain = Vec::new();
    for entry in entries(&store).iter().rev().filter(|entry| entry.action == "app.change") {
        let change = &entry.changes[0];
        assert_eq!(change.from.as_ref(), Some(&value), "an entry or a change is missing; seed {seed}");
        value = change.to.clone().expect("a value");
        chain.push(value.clone());
    }
    assert_eq!(store.app("1").expect("app").settings.max_connections.to_string(), value, "seed {seed}");
    for value in acknowledged {
        assert!(chain.contains(&value.to_string()), "{value} was acknowledged; seed {seed}");
    }
}

/// Values whose setting was acknowledged, at least 30, while 20 processes were killed.
fn set_and_kill(data: &Path, seed: u64, worker: u32) -> Vec<u32> {
    let (mut acknowledged, mut killed, mut random, mut value) = (Vec::new(), 0, seed | 1, worker);
    while acknowledged.len() < 30 || killed < 20 {
        value += 2;
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        command.args(["app", "set", "1", &format!("max_connections={value}"), "--data"]).arg(data).env_clear();
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if random.is_multiple_of(2) {
            std::thread::sleep(Duration::from_micros(random % 10_000));
            child.kill().expect("killed");
            killed += 1;
        }
        if child.wait().expect("ends").success() {
            acknowledged.push(value);
        }
    }
    acknowledged
}

/// R-ADMIN-2, R-ADMIN-3, threat T42: an admin token is found by its SHA-256 in tables of its own, with its role, until it
/// expires or is revoked; a token of an app is none, and the file contains neither in plain.
#[test]
fn admin_tokens_are_apart() {
    let (directory, store) = store_with_app();
    let now = unix_ms();
    let made = store.create_admin_token(&cli(), admin("ops", Role::Admin, None)).expect("made");
    let viewer = store.create_admin_token(&cli(), admin("board", Role::Viewer, Some(now + 60_000))).expect("made");
    let of_app = store.create_token(&cli(), token("1", "ci")).expect("token");
    assert!(made.token.starts_with("rly_adm_") && made.token.len() == 48 && made.record.id.starts_with("adm_"));
    let caller = |token: &str, at: u64| store.admin_caller(token, at).expect("reads");
    let role = |token: &str, at: u64| caller(token, at).map(|caller| caller.role);
    assert_eq!(role(&made.token, now), Some(Role::Admin));
    assert_eq!(role(&viewer.token, now + 59_999), Some(Role::Viewer));
    assert_eq!(role(&viewer.token, now + 60_000), None, "expired");
    for other in [&*of_app.token, "", "rly_adm_", &made.token[..47], &format!("{}x", made.token), &"a".repeat(600)] {
        assert_eq!(caller(other, now), None, "{other}");
    }
    let shown = store.directory().expect("directory");
    let hash = token_hash;
    assert!(shown.token_by_hash(&hash(&of_app.token)).is_some() && shown.token_by_hash(&hash(&made.token)).is_none());

    let used = || store.admin_tokens().expect("list")[0].last_used_at_ms;
    for (at, expected) in [(now, now), (now + 59_999, now), (now + 60_000, now + 60_000)] {
        store.record_admin_token_use(&made.record.id, at).expect("recorded");
        assert_eq!(used(), Some(expected));
    }
    store.record_admin_token_use("adm_gone", now).expect("nothing to record");
    store.revoke_admin_token(&cli(), &made.record.id).expect("revoked");
    assert_eq!(caller(&made.token, now), None);
    assert!(matches!(store.revoke_admin_token(&cli(), "adm_gone"), Err(StoreError::UnknownAdminToken(_))));
    let bytes = std::fs::read(directory.path().join("data.mdb")).expect("file");
    for token in [&made.token, &viewer.token] {
        let random = &token["rly_adm_".len()..];
        assert!(!bytes.windows(random.len()).any(|window| window == random.as_bytes()));
    }
}

/// R-ADMIN-3: admin tokens have a bound, at which records of revoked ones make room and active ones are not displaced.
#[test]
fn admin_tokens_have_a_bound() {
    let (_directory, store) = store_with_app();
    let first = store.create_admin_token(&cli(), admin("first", Role::Admin, None)).expect("made");
    let fill = |batch: &mut Batch<'_, '_>| {
        (1..limits::ADMIN_TOKENS_MAX)
            .try_for_each(|_| batch.create_admin_token(admin("", Role::Viewer, None)).map(drop))
    };
    store.change_all(&cli(), fill).expect("up to the bound");
    let error = store.create_admin_token(&cli(), admin("", Role::Admin, None)).map(drop).expect_err("at the bound");
    assert!(matches!(error, StoreError::TooManyAdminTokens), "{error}");
    store.revoke_admin_token(&cli(), &first.record.id).expect("revoked");
    store.create_admin_token(&cli(), admin("", Role::Admin, None)).expect("room again");
    let all = store.admin_tokens().expect("list");
    assert!(all.len() == limits::ADMIN_TOKENS_MAX && all.iter().all(|token| token.id != first.record.id));
}

/// R-ADMIN-3: the promise of 2 seconds: another process sees a new admin token and its revocation at once.
#[test]
fn admin_tokens_take_effect_at_once() {
    let (directory, store) = store_with_app();
    let data = directory.path().to_str().expect("UTF-8");
    let relay = |arguments: &[&str]| -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        let output = command.args(arguments).args(["--data", data, "--json"]).env_clear().output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let made = relay(&["admin", "token", "create", "--read-only", "--name", "board"]);
    let token = made["token"].as_str().expect("a token");
    let caller = store.admin_caller(token, unix_ms()).expect("reads").expect("known");
    assert_eq!((json!(caller.id), &*caller.name, caller.role), (made["id"].clone(), "board", Role::Viewer));
    relay(&["admin", "token", "revoke", &caller.id]);
    assert_eq!(store.admin_caller(token, unix_ms()).expect("reads"), None);
}

/// R-ADMIN-5, R-ADMIN-6, threat T43: a key that created tokens and endpoints, itself or with a token, is removed only
/// with a decision about them; refused, nothing is changed. What others created is not touched.
#[test]
fn keys_leave_with_what_they_created() {
    let (_directory, store) = store_with_app();
    store.rotate_app(&cli(), "1").expect("a second key");
    let leaked = with_key("k");
    let tokens: Vec<_> =
        (0..3).map(|_| store.create_token(&leaked, token("1", "stolen")).expect("token").record).collect();
    let with_token = Actor::new(ActorKind::AppToken, &tokens[0].id, None);
    let direct = store.add_webhook(&leaked, "1", webhook("https://a.example/"), &[]).expect("added");
    let indirect = store.add_webhook(&with_token, "1", webhook("https://b.example/"), &[]).expect("added");
    let own = store.create_token(&cli(), token("1", "own")).expect("token").record;
    let own_hook = store.add_webhook(&cli(), "1", webhook("https://c.example/"), &[]).expect("added");
    let creator = indirect.created_by.as_ref().expect("a creator").to_string();
    assert_eq!(creator, format!("app_token {} of key k", tokens[0].id));
    // The record of the token that created the endpoint may be gone.
    store.revoke_token(&leaked, Some("1"), &tokens[0].id).expect("revoked");

    let (app, log) = (store.app("1").expect("app"), entries(&store).len());
    for refused in [
        store.remove_key(&cli(), "1", "k", KeyItems::Refuse).expect_err("refused"),
        store.remove_old_keys(&cli(), "1", KeyItems::Refuse).expect_err("refused"),
    ] {
        let text = refused.to_string();
        assert!(text.contains("--revoke-created") && text.contains("--keep-created"), "{text}");
        let StoreError::KeyCreated { created, .. } = refused else { panic!("{text}") };
        let listed: Vec<&str> = created.iter().map(|item| &*item.id).collect();
        assert_eq!(listed, [&*tokens[1].id, &tokens[2].id, &direct.id, &indirect.id]);
    }
    assert_eq!((store.app("1").expect("app"), entries(&store).len()), (app, log), "nothing was changed");

    let removed = store.remove_old_keys(&cli(), "1", KeyItems::Revoke).expect("removed");
    assert_eq!((removed.removed, removed.created.len()), (vec!["k".to_owned()], 4));
    let active: Vec<String> = store
        .tokens(Some("1"))
        .expect("tokens")
        .into_iter()
        .filter(|token| token.is_active(unix_ms()))
        .map(|token| token.id)
        .collect();
    assert_eq!(active, [own.id]);
    let hooks: Vec<String> =
        store.webhooks(Some("1")).expect("list").into_iter().map(|(_, webhook)| webhook.id).collect();
    assert_eq!(hooks, [own_hook.id]);
    let actions: Vec<String> = entries(&store).into_iter().take(5).map(|entry| entry.action).collect();
    assert_eq!(actions, ["key.remove", "webhook.remove", "webhook.remove", "token.revoke", "token.revoke"]);

    // Kept on request, and refused again when the next key created something.
    let key = store.app("1").expect("app").keys[0].key.clone();
    let kept = store.create_token(&with_key(&key), token("1", "kept")).expect("token").record;
    store.rotate_app(&cli(), "1").expect("a third key");
    store.remove_key(&cli(), "1", &key, KeyItems::Refuse).expect_err("refused");
    let removed = store.remove_key(&cli(), "1", &key, KeyItems::Keep).expect("removed");
    assert_eq!(removed.created.len(), 1);
    assert!(
        store.tokens(Some("1")).expect("tokens").iter().any(|token| token.id == kept.id && token.is_active(unix_ms()))
    );
}

/// R-ADMIN-9, threat T52: 100 concurrent changes and rotations of one app, each with the revision that it read: each is
/// made completely or refused, and no field returns to an old value.
#[test]
fn concurrent_changes_lose_nothing() {
    let (_directory, store) = store_with_app();
    let counts: Vec<(u32, u32)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                scope.spawn({
                    let store = store.clone();
                    move || {
                        (0..25).fold((0, 0), |(made, stale), step| match change_once(&store, worker, step) {
                            Ok(()) => (made + 1, stale),
                            Err(StoreError::Stale { .. }) => (made, stale + 1),
                            Err(error) => panic!("{error}"),
                        })
                    }
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("worker")).collect()
    });
    let made: u32 = counts.iter().map(|(made, _)| made).sum();
    let log: Vec<AuditEntry> = entries(&store);
    assert_eq!(log.len() as u32, made + 1, "one entry for each change, and the creation");
    let app = store.app("1").expect("app");
    let total = app.settings.max_connections + app.settings.messages_per_day;
    let rotations = log.iter().filter(|entry| entry.action.starts_with("key.")).count() as u32;
    assert_eq!(total + rotations, made, "each setting counts its own changes up, and no change undid another");
}

/// Counts one of two settings up, or adds or removes a key, if nobody changed the app meanwhile.
fn change_once(store: &Store, worker: u32, step: u32) -> Result<(), StoreError> {
    let app = store.app("1").expect("app");
    store.change_all(&cli(), |batch| {
        batch.expect_revision("1", app.revision)?;
        if step % 5 == 4 && app.keys.len() > 1 {
            batch.remove_old_keys("1", KeyItems::Refuse).map(drop)
        } else if step % 5 == 4 {
            batch.rotate_app("1").map(drop)
        } else {
            let change = |record: &mut AppRecord| {
                if worker.is_multiple_of(2) {
                    record.settings.max_connections = app.settings.max_connections + 1;
                } else {
                    record.settings.messages_per_day = app.settings.messages_per_day + 1;
                }
                Ok(())
            };
            batch.change_app("1", change).map(drop)
        }
    })
}

/// R-ADMIN-9: every change of an app gives it another revision, and one without effect does not.
#[test]
fn revisions_follow_changes() {
    let (_directory, store) = store_with_app();
    let mut last = store.app("1").expect("app").revision;
    let mut changes = |what: &str, expected: bool| {
        let now = store.app("1").expect("app").revision;
        assert_eq!(now > last, expected, "{what}: {last} then {now}");
        last = now;
    };
    set_connections(&store, 3);
    changes("a setting", true);
    set_connections(&store, 3);
    changes("the same", false);
    store.rotate_app(&cli(), "1").expect("rotated");
    changes("a key", true);
    store.add_webhook(&cli(), "1", webhook("https://example.com/"), &[]).expect("added");
    changes("a webhook", true);
    store.create_token(&cli(), token("1", "")).expect("token");
    changes("a token is no part of the app", false);
    let error = store.change_all(&cli(), |batch| batch.expect_revision("1", 1)).expect_err("stale");
    assert!(matches!(error, StoreError::Stale { found, .. } if found == last), "{error}");
}

/// R-ADMIN-8, threat T44: a repeat with an `Idempotency-Key` finds the record of the first request, another body is
/// refused, and the key means nothing to another credential or route. The file contains no token.
#[test]
fn idempotency_keys_find_the_first_record() {
    let (directory, store) = store_with_app();
    let create = |credential: &str, route: &str, body: &str| {
        let request = Idempotency { credential, route, key: "key-1", body: body.as_bytes() };
        store.change_all(&cli(), |batch| match batch.repeated(&request)? {
            Some(id) => Ok((id, None)),
            None => {
                let created = batch.create_token(token("1", body))?;
                batch.remember(&request, &created.record.id)?;
                Ok((created.record.id, Some(created.token)))
            }
        })
    };
    let (id, plain) = create("admin_token adm_1", "POST /tokens", "a").expect("first");
    assert_eq!(create("admin_token adm_1", "POST /tokens", "a").expect("repeat"), (id.clone(), None));
    let error = create("admin_token adm_1", "POST /tokens", "b").expect_err("another body");
    assert!(matches!(error, StoreError::KeyReused), "{error}");
    for (credential, route) in [("admin_token adm_2", "POST /tokens"), ("admin_token adm_1", "POST /other")] {
        assert_ne!(create(credential, route, "a").expect("another request").0, id);
    }
    assert_eq!(store.tokens(Some("1")).expect("tokens").len(), 3);
    let bytes = std::fs::read(directory.path().join("data.mdb")).expect("file");
    let plain = plain.expect("shown once");
    assert!(!bytes.windows(plain.len()).any(|window| window == plain.as_bytes()));
}

/// R-ADMIN-8: the keys of one credential have a bound, beyond which its own oldest is forgotten and no other's.
#[test]
fn idempotency_keys_have_a_bound() {
    let (_directory, store) = store_with_app();
    let request = |credential: &'static str, key: &'static str| Idempotency { credential, route: "r", key, body: b"" };
    let keys: Vec<&'static str> =
        (0..=limits::IDEMPOTENCY_KEYS_PER_CREDENTIAL_MAX).map(|number| &*number.to_string().leak()).collect();
    store.change_all(&cli(), |batch| batch.remember(&request("other", "0"), "x")).expect("remembered");
    // The oldest is known by its time.
    store.change_all(&cli(), |batch| batch.remember(&request("a", keys[0]), "x")).expect("remembered");
    let begin = unix_ms();
    while unix_ms() == begin {}
    let rest = |batch: &mut Batch<'_, '_>| keys[1..].iter().try_for_each(|key| batch.remember(&request("a", key), "x"));
    store.change_all(&cli(), rest).expect("remembered");
    let found = |credential, key| {
        store.change_all(&cli(), |batch| batch.repeated(&request(credential, key))).expect("reads").is_some()
    };
    assert!(!found("a", keys[0]) && found("a", keys[1]) && found("a", keys[keys.len() - 1]) && found("other", "0"));
}

/// R-TOKEN-8: a token is replaced by one with the same name, scopes and expiry; the old one is revoked, and cannot be
/// replaced again. A token of another app is unknown.
#[test]
fn tokens_are_rotated() {
    let (_directory, store) = store_with_app();
    create_app(&store, "2", "k2");
    let expires_at_ms = Some(unix_ms() + 60_000);
    let new = NewToken { scopes: vec!["events:publish".into()], expires_at_ms, ..token("1", "ci") };
    let old = store.create_token(&cli(), new).expect("token");
    let unknown = store.rotate_token(&cli(), Some("2"), &old.record.id).map(drop).expect_err("of another app");
    assert!(matches!(unknown, StoreError::UnknownToken(_)), "{unknown}");
    let new = store.rotate_token(&cli(), Some("1"), &old.record.id).expect("rotated");
    assert_ne!(new.token, old.token);
    let shape = |record: &TokenRecord| (record.name.clone(), record.scopes.clone(), record.expires_at_ms, record.app);
    assert_eq!(shape(&new.record), shape(&old.record));
    let shown = store.directory().expect("directory");
    let revoked = |token: &str| shown.token_by_hash(&token_hash(token)).expect("known").revoked;
    assert_eq!((revoked(&old.token), revoked(&new.token)), (true, false));
    let error = store.rotate_token(&cli(), None, &old.record.id).map(drop).expect_err("revoked").to_string();
    assert!(error.contains("create a new one"), "{error}");
    assert_eq!(store.tokens(Some("1")).expect("tokens").len(), 2);
}

/// R-TOKEN-9: an app at its limit of tokens: records of revoked ones make room, active ones are not displaced, a refusal
/// changes nothing, and other apps are not affected.
#[test]
fn tokens_of_an_app_have_a_bound() {
    let (_directory, store) = store_with_app();
    create_app(&store, "2", "k2");
    let first = store.create_token(&cli(), token("1", "first")).expect("token").record.id;
    let fill = |batch: &mut Batch<'_, '_>| {
        (1..limits::TOKENS_PER_APP_MAX).try_for_each(|_| batch.create_token(token("1", "")).map(drop))
    };
    store.change_all(&cli(), fill).expect("up to the bound");
    let (version, log) = (store.version().expect("version"), entries(&store).len());
    let error = store.create_token(&cli(), token("1", "")).map(drop).expect_err("at the bound");
    assert!(matches!(error, StoreError::TooManyTokens(_)) && error.to_string().contains("1000"), "{error}");
    assert_eq!((store.version().expect("version"), entries(&store).len()), (version, log));
    store.create_token(&cli(), token("2", "")).expect("another app");
    store.revoke_token(&cli(), None, &first).expect("revoked");
    store.create_token(&cli(), token("1", "")).expect("room again");
    let all = store.tokens(Some("1")).expect("tokens");
    assert!(all.len() == limits::TOKENS_PER_APP_MAX && all.iter().all(|token| token.id != first));
}

/// Goal: the tokens of an app, without those of others and of its predecessor with the same id.
#[test]
fn tokens_are_listed_by_app() {
    let (_directory, store) = store_with_app();
    create_app(&store, "2", "k2");
    let [one, two] = ["1", "2"].map(|app| store.create_token(&cli(), token(app, "")).expect("token").record.id);
    let ids = |app: &str| -> Vec<String> {
        store.tokens(Some(app)).expect("tokens").into_iter().map(|token| token.id).collect()
    };
    assert_eq!((ids("1"), ids("2")), (vec![one], vec![two]));
    store.delete_app(&cli(), "1").expect("deleted");
    assert_eq!(store.tokens(None).expect("tokens").len(), 1);
    create_app(&store, "1", "k");
    assert!(ids("1").is_empty());
}
