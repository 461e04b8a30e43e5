//! Creates that are repeated with the same `Idempotency-Key`.

use serde_json::{Value, json};

use super::server;
use crate::common::admin::Admin;
use crate::common::http::Response;

fn create(admin: &Admin, path: &str, key: &str, body: &Value) -> Response {
    admin.ask_with("POST", path, &[("Idempotency-Key", key)], body.to_string().as_bytes())
}

fn count(admin: &Admin, list: &str) -> usize {
    admin.get(list)["items"].as_array().expect("a list").len()
}

/// R-ADMIN-8, R-ADMIN-17, T44: a repeat returns the same record without its secret; another body is 409; another route
/// and another credential are requests of their own. Nothing is created twice, and the store keeps no plain token.
#[test]
fn a_repeat_creates_nothing() {
    let server = server();
    let (admin, other) = (Admin::of(&server, &[]), Admin::of(&server, &[]));
    let app = &server.app().id;
    let creates = [
        ("/apps".to_owned(), json!({"name": "Shop"}), "secret"),
        (format!("/apps/{app}/tokens"), json!({"name": "ci"}), "token"),
        (format!("/apps/{app}/webhooks"), json!({"url": "https://example.com/"}), "secret"),
        ("/admin-tokens".to_owned(), json!({"name": "ci"}), "token"),
    ];
    let mut secrets = Vec::new();
    for (path, body, secret) in &creates {
        let before = count(&admin, path);
        let first = create(&admin, path, "key-1", body).expect(201).json();
        secrets.push(first[*secret].as_str().expect("a secret").to_owned());
        for _ in 0..3 {
            let mut repeat = create(&admin, path, "key-1", body).expect(200).json();
            assert!(
                repeat.get(*secret).is_none() && !repeat.to_string().contains(&secrets[secrets.len() - 1]),
                "{repeat}"
            );
            repeat[*secret] = first[*secret].clone();
            assert_eq!(repeat, first);
        }
        let mut changed = body.clone();
        changed["name"] = json!("Store");
        if path.ends_with("webhooks") {
            changed = json!({"url": "https://example.com/other"});
        }
        let refused = create(&admin, path, "key-1", &changed).expect(409).json();
        assert_eq!(refused["error"], "conflict");
        assert_eq!(count(&admin, path), before + 1);
        let theirs = create(&other, path, "key-1", body).expect(201).json();
        assert_ne!(theirs["id"], first["id"], "another credential");
        assert_ne!(create(&admin, path, "key-2", body).expect(201).json()["id"], first["id"], "another key");
    }
    let id = admin.create(&creates[1].0, &json!({}))["id"].as_str().expect("id").to_owned();
    let rotate = format!("/apps/{app}/tokens/{id}/rotate");
    let first = create(&admin, &rotate, "key-1", &json!({})).expect(201).json();
    let repeat = create(&admin, &rotate, "key-1", &json!({})).expect(200).json();
    assert_eq!((&repeat["id"], repeat.get("token")), (&first["id"], None));

    let file = std::fs::read(server.data.join("data.mdb")).expect("the store");
    let holds = |text: &str| file.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!holds(&secrets[1]) && !holds(&secrets[3]) && !holds("key-1"), "neither tokens nor keys in plain text");
    assert!(holds(app), "the search finds what is there");
}

/// R-ADMIN-17, T44: keys survive a restart; a record that was deleted since is named; bad keys are refused.
#[test]
fn keys_are_kept_and_checked() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let first = create(&admin, "/apps", "key-1", &json!({})).expect(201).json();
    let (key, longest) = (first["id"].as_str().expect("id").to_owned(), "x".repeat(128));
    create(&admin, "/apps", &longest, &json!({})).expect(201);
    for bad in [&format!("{longest}x"), "a b", ""] {
        let answer = create(&admin, "/apps", bad, &json!({})).expect(400).json();
        assert!(answer["message"].as_str().expect("text").contains("Idempotency-Key"), "{answer}");
    }
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")];
    admin.ask_with("POST", "/apps", &twice, b"{}").expect(400);
    let server = server.restart(&["--admin-listen", "127.0.0.1:0"]);
    let admin = Admin { address: server.admin.expect("an address"), ..admin };
    assert_eq!(create(&admin, "/apps", "key-1", &json!({})).expect(200).json()["id"], key.as_str());
    admin.ask("DELETE", &format!("/apps/{key}"), None).expect(200);
    let gone = create(&admin, "/apps", "key-1", &json!({})).expect(409).json();
    assert!(gone["message"].as_str().expect("text").contains("deleted"), "{gone}");
}

/// T44: many repeats at the same time create one record, and one of them has the secret.
#[test]
fn racing_repeats_create_one() {
    let server = server();
    let admin = Admin::of(&server, &[]);
    let before = count(&admin, "/apps");
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let racing: Vec<_> =
            (0..10).map(|_| scope.spawn(|| create(&admin, "/apps", "race", &json!({"name": "one"})))).collect();
        racing.into_iter().map(|it| it.join().expect("no panic")).collect()
    });
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 201)));
    assert_eq!(answers.iter().filter(|answer| answer.json().get("secret").is_some()).count(), 1);
    assert_eq!(count(&admin, "/apps"), before + 1);
}
