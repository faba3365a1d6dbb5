//! The keyring: made, refused, exchanged while gateways run.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use toolgate::config::{Secret, Settings};
use toolgate::crypto::{KeySet, key_id_of};
use toolgate::keys::KEYRING_FILE;
use toolgate::store::{META_VALUE, PROJECT_WEBHOOK_SECRET};

use crate::support::{FakeProvider, Gateway, Place, Program, ask, on_postgres, settings, text, whole};

/// A gateway that is not local, which keeps everything in `place`.
async fn shared(provider: &FakeProvider, place: &Place) -> Gateway {
    let mut settings = settings(provider);
    settings.public_url = Some("https://gateway.example".to_owned());
    settings.pass_through.enabled = Some(true);
    place.give_to(&mut settings);
    Gateway::start(settings, toolgate::egress::system_lookup()).await
}

#[tokio::test]
async fn outside_local_mode_nothing_starts_and_nothing_is_made_without_a_keyring() {
    let place = Place::new().await;
    let program = Program::at(&place).with("TOOLGATE_PUBLIC_URL", "https://gateway.example");
    fs::remove_file(place.folder().join(KEYRING_FILE)).unwrap();
    let refused = program.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("error: there is no keyring at `"), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: `toolgate init` makes one"), "{}", refused.stderr);
    assert_eq!(fs::read_dir(place.folder()).unwrap().count(), 0, "nothing was written");
}

#[tokio::test]
async fn init_makes_what_a_gateway_needs_for_its_owner_alone_and_changes_nothing_the_second_time() {
    let place = Place::new().await;
    let program = Program::at(&place).with("TOOLGATE_PUBLIC_URL", "https://gateway.example");
    let folder = place.folder().join("new");
    let folder_text = folder.to_str().unwrap();
    let made = program.run(&["init", "--data", folder_text]).await;
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert!(made.stdout.contains(&format!("{folder_text}/keyring.toml")), "{}", made.stdout);
    assert!(made.stderr.contains("Keep a copy of the keyring now"), "{}", made.stderr);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for file in fs::read_dir(&folder).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    let keyring = fs::read_to_string(folder.join(KEYRING_FILE)).unwrap();
    let again = program.run(&["init", "--data", folder_text]).await;
    assert_eq!((again.code, again.stdout), (0, made.stdout));
    assert_eq!(fs::read_to_string(folder.join(KEYRING_FILE)).unwrap(), keyring);
}

#[tokio::test]
async fn a_keyring_that_others_can_read_is_refused_with_what_to_do() {
    let place = Place::new().await;
    let file = place.folder().join(KEYRING_FILE);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = Program::at(&place).run(&["keys", "add"]).await;
    assert_eq!(refused.code, 2);
    let expect = format!("error: others can read the keyring `{0}`\nhint: `chmod 600 {0}`", file.display());
    assert_eq!(refused.stderr.trim_end(), expect);
}

#[tokio::test]
async fn a_keyring_of_another_database_is_refused_before_anything_is_written() {
    let place = Place::new().await;
    let program = Program::at(&place);
    assert_eq!(program.with_sign_in().run(&["project", "create", "shop"]).await.code, 0);
    let file = place.folder().join(KEYRING_FILE);
    let own = fs::read_to_string(&file).unwrap();
    let own_id = KeySet::parse(&own).unwrap().active_id().to_owned();
    let store = place.store().await;
    let before = store.list_sealed(&META_VALUE, None, 100).await.unwrap();
    for foreign in [
        KeySet::of_one("key_other", &[7; 32]).unwrap(),
        // The same name with other bytes.
        KeySet::of_one(&own_id, &[7; 32]).unwrap(),
    ] {
        fs::write(&file, foreign.to_text().as_bytes()).unwrap();
        for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["project", "create", "other"]] {
            let refused = program.run(arguments).await;
            assert_eq!(refused.code, 2, "{arguments:?}");
            assert!(
                refused.stderr.contains("this keyring does not belong to this database"),
                "{}",
                refused.stderr
            );
        }
    }
    assert_eq!(store.list_sealed(&META_VALUE, None, 100).await.unwrap(), before);
    assert_eq!(store.list_projects().await.unwrap().len(), 1);
    // A lost keyring is not replaced by a new one, which could open nothing.
    fs::remove_file(&file).unwrap();
    let lost = program.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert!(lost.stderr.contains("put the saved one back"), "{}", lost.stderr);
    assert!(!file.exists());
    fs::write(&file, own).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(program.run(&["project", "list"]).await.code, 0);
}

#[tokio::test]
async fn the_keyring_may_be_in_a_variable_and_is_then_not_changed() {
    let place = Place::new().await;
    let file = place.folder().join(KEYRING_FILE);
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let program = Program::at(&place).with("TOOLGATE_KEYRING", &lines.join(";"));
    assert_eq!(program.run(&["init"]).await.stdout.lines().next(), Some("keyring   TOOLGATE_KEYRING"));
    let refused = program.run(&["keys", "add"]).await;
    assert!(
        refused.code == 2 && refused.stderr.contains("in the variable TOOLGATE_KEYRING"),
        "{}",
        refused.stderr
    );
    let bad =
        Program::at(&place).with("TOOLGATE_KEYRING", "active = secret-canary").run(&["keys", "list"]).await;
    assert!(bad.code == 2 && !bad.stderr.contains("canary"), "{}", bad.stderr);
}

#[tokio::test]
async fn in_local_mode_a_keyring_is_made_and_without_a_place_for_files_everything_is_in_memory() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let place = Place::new().await;
    fs::remove_file(place.folder().join(KEYRING_FILE)).unwrap();
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    assert_eq!(gateway.client.chat(&ask(&[])).await.status, 200);
    let mode = fs::metadata(place.folder().join(KEYRING_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let nowhere = Program::nowhere().run(&["project", "list"]).await;
    assert_eq!(
        nowhere.stderr.trim_end(),
        "error: there is no place for files\nhint: give a directory with `--data DIR`"
    );
}

#[tokio::test]
async fn two_that_start_at_once_with_nothing_agree_on_one_keyring_and_one_database() {
    if !on_postgres() {
        return;
    }
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let place = Place::new().await;
    fs::remove_file(place.folder().join(KEYRING_FILE)).unwrap();
    let start = || Gateway::configured(&provider, |settings| place.give_to(settings));
    let (one, other) = tokio::join!(start(), start());
    for gateway in [&one, &other] {
        assert_eq!(gateway.client.get("/readyz").await.status, 200);
    }
    assert_eq!(
        fs::read_dir(place.folder())
            .unwrap()
            .filter(|file| { file.as_ref().unwrap().file_name().to_string_lossy().starts_with("keyring") })
            .count(),
        1
    );
}

/// What is sealed, by the key that sealed it.
async fn sealed_with(place: &Place) -> Vec<String> {
    let store = place.store().await;
    let mut found = Vec::new();
    for column in [&META_VALUE, &PROJECT_WEBHOOK_SECRET] {
        for value in store.list_sealed(column, None, 1000).await.unwrap() {
            found.push(key_id_of(&value.sealed).unwrap().to_owned());
        }
    }
    store.close().await;
    found
}

#[tokio::test]
async fn keys_are_exchanged_while_gateways_run_and_a_key_in_use_cannot_be_retired() {
    if !on_postgres() {
        return;
    }
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let place = Place::new().await;
    let program = Program::at(&place).with("TOOLGATE_PUBLIC_URL", "https://gateway.example");
    let (one, two) = (shared(&provider, &place).await, shared(&provider, &place).await);
    for name in ["a", "b", "c"] {
        let made = program
            .with_sign_in()
            .run(&["project", "create", name, "--webhook-url", "https://app.example/hook"])
            .await;
        assert!(made.code == 0 && made.stdout.starts_with("whsec_"), "{}", made.stderr);
    }
    // The key of webhooks for a caller without a project is made with the pepper, and so is the caller's namespace.
    let made_with_the_pepper = async |gateway: &Gateway, key: &str| {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        let answer = whole(gateway.client.send("GET", "/v1/webhooks/secret", &headers, "").await).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["secret"].as_str().unwrap().to_owned()
    };
    let before = made_with_the_pepper(&one, "sk-1").await;
    assert_eq!(made_with_the_pepper(&two, "sk-1").await, before);
    assert_ne!(made_with_the_pepper(&one, "sk-2").await, before);
    let old = sealed_with(&place).await;
    assert_eq!(old.len(), 5, "canary, pepper and three webhook secrets");
    let old_id = old[0].clone();

    let new_id = program.run(&["keys", "add"]).await.stdout.trim_end().to_owned();
    assert!(new_id.starts_with("key_") && new_id != old_id);
    let refused = program.run(&["keys", "retire", &old_id, "--now"]).await;
    assert!(refused.stderr.contains("is the active key"), "{}", refused.stderr);
    assert_eq!(program.run(&["keys", "activate", &new_id]).await.code, 0);
    // Sealed with the new key before the running gateways could have noticed it: they ask for it when they meet it.
    program
        .with_sign_in()
        .run(&["project", "create", "d", "--webhook-url", "https://app.example/hook"])
        .await;
    let refused = program.run(&["keys", "retire", &old_id, "--now"]).await;
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains(&format!(
            "`{old_id}` is still in use: 2 in meta.sealed_value, 3 in projects.sealed_webhook_secret"
        )),
        "{}",
        refused.stderr
    );

    // Rotation beside writers.
    let writing = async {
        for number in 0..20 {
            let name = format!("w{number}");
            program
                .with_sign_in()
                .run(&["project", "create", &name, "--webhook-url", "https://app.example/hook"])
                .await;
            program.run(&["project", "update", "a", "--new-webhook-secret"]).await;
        }
    };
    let (rotated, ()) = tokio::join!(program.run(&["keys", "rotate"]), writing);
    assert_eq!(rotated.code, 0, "{}", rotated.stderr);
    assert_eq!(program.run(&["keys", "rotate"]).await.code, 0);
    let all = sealed_with(&place).await;
    assert!(all.len() == 26 && all.iter().all(|id| *id == new_id), "{all:?}");
    let listed: Value = serde_json::from_str(&program.run(&["keys", "list", "--json"]).await.stdout).unwrap();
    let of_new = listed.as_array().unwrap().iter().find(|key| key["id"] == new_id.as_str()).unwrap();
    assert_eq!((&of_new["active"], &of_new["sealed_values"]), (&json!(true), &json!(26)));

    let retired = program.run(&["keys", "retire", &old_id, "--now"]).await;
    assert_eq!(retired.code, 0, "{}", retired.stderr);
    for gateway in [&one, &two] {
        assert_eq!(gateway.client.get("/readyz").await.status, 200);
    }
    // A gateway that starts now knows the new key alone, and the same pepper.
    let three = shared(&provider, &place).await;
    assert_eq!(made_with_the_pepper(&three, "sk-1").await, before);
}

#[tokio::test]
async fn what_is_secret_is_nowhere_in_the_database_in_clear() {
    let place = Place::new().await;
    let program = Program::at(&place);
    let made = program
        .with_sign_in()
        .run(&["project", "create", "shop", "--webhook-url", "https://app.example/hook"])
        .await;
    let webhook_secret = made.stdout.trim_end().to_owned();
    let key = program.run(&["key", "create", "--project", "shop"]).await.stdout.trim_end().to_owned();
    assert!(webhook_secret.starts_with("whsec_") && key.starts_with("tgk_"));
    let store = place.store().await;
    let stored =
        format!("{:?} {:?}", store.list_projects().await.unwrap(), store.list_api_keys(None).await.unwrap());
    let mut all: Vec<Vec<u8>> = vec![stored.into_bytes()];
    store.close().await;
    if !place.is_shared() {
        all.extend(
            fs::read_dir(place.folder())
                .unwrap()
                .map(|file| file.unwrap().path())
                .filter(|path| {
                    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("toolgate.db"))
                })
                .map(|path| fs::read(path).unwrap()),
        );
    }
    let keyring = fs::read_to_string(place.folder().join(KEYRING_FILE)).unwrap();
    let sealing_key = keyring.lines().rev().find_map(|line| line.split('"').nth(1)).unwrap();
    for secret in [
        &webhook_secret,
        &key,
        &webhook_secret["whsec_".len()..],
        &key["tgk_".len()..key.len() - 4],
        sealing_key,
    ] {
        for bytes in &all {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
        }
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_said_and_its_password_is_not() {
    let place = Place::new().await;
    // Where nobody listens at all, the gateway waits some seconds for a database that is only starting.
    let hangs_up = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hangs_up.local_addr().unwrap();
    std::thread::spawn(move || hangs_up.incoming().for_each(drop));
    let program =
        Program::at(&place).with("TOOLGATE__STORE__URL", &format!("postgres://u:secret-canary@{address}/d"));
    let refused = program.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.starts_with("error: the store: the database cannot be used: "),
        "{}",
        refused.stderr
    );
    assert!(!refused.stderr.contains("canary"), "{}", refused.stderr);
    let settings = Settings {
        store: toolgate::config::Store { url: Some(Secret::new("postgres://u:secret-canary@h/d")) },
        ..Settings::default()
    };
    assert!(!format!("{settings:?}").contains("canary"));
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_migrating_twice_is_no_harm() {
    let place = Place::new().await;
    let program = Program::at(&place);
    let first = program.run(&["migrate"]).await;
    assert_eq!((first.code, program.run(&["migrate"]).await.stdout), (0, first.stdout));
    let store = place.store().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 SELECT 9999, description, success, checksum, execution_time FROM _sqlx_migrations WHERE version = 1";
    store.execute(newer, Vec::new()).await.unwrap();
    for arguments in [&["migrate"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let refused = program.run(arguments).await;
        assert_eq!(refused.code, 2);
        assert!(refused.stderr.contains("the database cannot be brought up to date"), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("hint: use the version of toolgate that was used last"),
            "{}",
            refused.stderr
        );
    }
}

#[tokio::test]
async fn a_sealed_value_that_was_moved_to_another_project_does_not_open() {
    let place = Place::new().await;
    let program = Program::at(&place);
    for name in ["victim", "attacker"] {
        program
            .with_sign_in()
            .run(&["project", "create", name, "--webhook-url", "https://app.example/hook"])
            .await;
    }
    let store = place.store().await;
    let moved = "UPDATE projects SET sealed_webhook_secret = \
                 (SELECT p.sealed_webhook_secret FROM projects p WHERE p.name = 'victim') WHERE name = 'attacker'";
    assert_eq!(store.execute(moved, Vec::new()).await.unwrap(), 1);
    let id = program.run(&["keys", "add"]).await.stdout;
    program.run(&["keys", "activate", id.trim_end()]).await;
    let refused = program.run(&["keys", "rotate"]).await;
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains("`sealed_webhook_secret` in row `attacker` of `projects`: it does not open"),
        "{}",
        refused.stderr
    );
}
