//! Projects and their keys: made on the command line beside a running gateway, and at once in use there.

use serde_json::{Value, json};

use crate::support::{FakeProvider, Gateway, Place, Program, ask, settings, text};

async fn shared(provider: &FakeProvider, place: &Place) -> Gateway {
    let mut settings = settings(provider);
    settings.public_url = Some("https://gateway.example".to_owned());
    settings.pass_through.enabled = Some(false);
    place.give_to(&mut settings);
    Gateway::start(settings, toolgate::egress::system_lookup()).await
}

async fn chat(gateway: &Gateway, key: &str) -> (u16, String) {
    let authorization = format!("Bearer {key}");
    let answer =
        gateway.client.post("/v1/chat/completions", &[("authorization", &authorization)], &ask(&[])).await;
    (answer.status, answer.text())
}

async fn make_key(program: &Program, arguments: &[&str]) -> String {
    let made = program.run(&[&["key", "create", "--project", "shop"], arguments].concat()).await;
    assert_eq!(made.code, 0, "{}", made.stderr);
    made.stdout.trim_end().to_owned()
}

/// The id of the newest key.
async fn newest_id(program: &Program) -> String {
    let list: Value = serde_json::from_str(&program.run(&["key", "list", "--json"]).await.stdout).unwrap();
    list.as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned()
}

/// Waits until the gateway answers a chat with this status, which it does without being told.
async fn until_status(gateway: &Gateway, key: &str, status: u16) {
    let wait = async {
        while chat(gateway, key).await.0 != status {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), wait).await.expect("it is noticed within 5 s");
}

#[tokio::test]
async fn a_key_made_beside_a_running_gateway_works_at_once_and_not_for_long_after_it_is_revoked() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let place = Place::new().await;
    let program = Program::at(&place);
    let gateway = shared(&provider, &place).await;
    assert_eq!(program.with_sign_in().run(&["project", "create", "shop"]).await.code, 0);
    let key = make_key(&program, &[]).await;
    assert_eq!(chat(&gateway, &key).await.0, 200);
    assert_eq!(chat(&gateway, "tgk_0123456789abcdefghjkmnpq").await.0, 401);
    let id = newest_id(&program).await;
    assert_eq!(program.run(&["key", "revoke", &id]).await.code, 0);
    until_status(&gateway, &key, 401).await;
    let again = program.run(&["key", "revoke", &id]).await;
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("there is no key in use with the id"), "{}", again.stderr);
}

#[tokio::test]
async fn the_first_project_ends_pass_through_beside_running_gateways() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let place = Place::new().await;
    let program = Program::at(&place);
    let unset = async || {
        let mut settings = settings(&provider);
        settings.public_url = Some("https://gateway.example".to_owned());
        place.give_to(&mut settings);
        Gateway::start(settings, toolgate::egress::system_lookup()).await
    };
    let mut gateways = vec![unset().await];
    if place.is_shared() {
        gateways.push(unset().await);
    }
    for gateway in &gateways {
        assert_eq!(chat(gateway, "sk-mine").await.0, 200, "there is nobody else's key yet");
    }
    let operator = Program::at(&place).with("TOOLGATE__PUBLIC_URL", "https://gateway.example");
    let made = operator.with_sign_in().run(&["project", "create", "shop"]).await;
    assert!(made.stderr.contains("[pass_through] enabled = true"), "{}", made.stderr);
    for gateway in &gateways {
        until_status(gateway, "sk-mine", 401).await;
    }
    let key = make_key(&program, &[]).await;
    assert_eq!(chat(&gateways[0], &key).await.0, 200);
    for gateway in gateways {
        gateway.stop().await;
    }
    let later = unset().await;
    assert_eq!(chat(&later, "sk-mine").await.0, 401, "from the start");
}

#[tokio::test]
async fn a_known_key_needs_no_store_and_an_unreachable_store_is_not_ready() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let place = Place::new().await;
    let program = Program::at(&place);
    program.with_sign_in().run(&["project", "create", "shop"]).await;
    let key = make_key(&program, &[]).await;
    let gateway = shared(&provider, &place).await;
    assert_eq!(gateway.client.get("/readyz").await.text(), "ready\n");
    let store = place.store().await;
    for table in ["_sqlx_migrations", "revisions", "api_keys"] {
        let statement: &'static str = format!("ALTER TABLE {table} RENAME TO {table}_gone").leak();
        store.execute(statement, Vec::new()).await.unwrap();
    }
    let unready = gateway.client.get("/readyz").await;
    assert_eq!((unready.status, unready.text().as_str()), (503, "the store cannot be reached\n"));
    assert_eq!(gateway.client.get("/healthz").await.status, 200);
    assert_eq!(chat(&gateway, &key).await.0, 200);
    assert_eq!(chat(&gateway, "tgk_0123456789abcdefghjkmnpq").await.0, 401);
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_and_no_more() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let place = Place::new().await;
    let program = Program::at(&place);
    program.with_sign_in().run(&["project", "create", "shop"]).await;
    let narrow = make_key(&program, &["--scope", "connections", "--scope", "tokens"]).await;
    let gateway = shared(&provider, &place).await;
    let (status, body) = chat(&gateway, &narrow).await;
    assert_eq!(status, 403);
    let error: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(error["error"]["code"], "insufficient_scope");
    assert!(body.contains("it lacks the scope `completions`"), "{body}");
    assert_eq!(provider.peer.requests().len(), 0);
    let limited = make_key(&program, &["--requests-per-minute", "1"]).await;
    assert_eq!(chat(&gateway, &limited).await.0, 200);
    assert_eq!(chat(&gateway, &limited).await.0, 429);
}

#[tokio::test]
async fn in_local_mode_too_a_project_s_key_speaks_for_the_project() {
    let provider = FakeProvider::answering(|_| text("hi")).await;
    let place = Place::new().await;
    let program = Program::at(&place);
    program.with_sign_in().run(&["project", "create", "shop"]).await;
    let limited = make_key(&program, &["--requests-per-minute", "1"]).await;
    let gateway = Gateway::configured(&provider, |settings| place.give_to(settings)).await;
    assert_eq!(chat(&gateway, &limited).await.0, 200);
    assert_eq!(chat(&gateway, &limited).await.0, 429, "the project's own limit holds");
    assert_eq!(gateway.client.chat(&ask(&[])).await.status, 200, "the person at the machine has none");
    assert_eq!(chat(&gateway, "tgk_0123456789abcdefghjkmnpq").await.0, 401);
}

#[tokio::test]
async fn projects_are_made_shown_changed_and_deleted() {
    let place = Place::new().await;
    let program = Program::at(&place);
    let empty = program.run(&["project", "list", "--json"]).await;
    assert_eq!((empty.code, empty.stdout.as_str()), (0, "[]\n"));
    assert_eq!(
        program.with_sign_in().run(&["project", "create", "shop"]).await.stdout,
        "",
        "no secret is needed yet"
    );
    let twice = program.with_sign_in().run(&["project", "create", "shop"]).await;
    assert!(twice.stderr.contains("hint: `toolgate project update shop` changes it"), "{}", twice.stderr);
    let changed = program
        .run(&["project", "update", "shop", "--proof", "app", "--verifier-url", "https://app.example/verify"])
        .await;
    assert_eq!((changed.code, changed.stdout.as_str()), (0, ""));
    let hook = program.run(&["project", "update", "shop", "--webhook-url", "https://app.example/hook"]).await;
    let moved =
        program.run(&["project", "update", "shop", "--webhook-url", "https://app.example/hook2"]).await;
    assert!(hook.stdout.starts_with("whsec_"), "{}", hook.stdout);
    assert_eq!(moved.stdout, "", "the secret stays");
    let renewed = program.run(&["project", "update", "shop", "--new-webhook-secret"]).await;
    assert!(renewed.stdout.starts_with("whsec_") && renewed.stdout != hook.stdout);
    make_key(&program, &["--name", "web"]).await;
    let shown: Value =
        serde_json::from_str(&program.run(&["project", "show", "shop", "--json"]).await.stdout).unwrap();
    assert_eq!(shown["proof"], "app");
    assert_eq!(shown["verifier_url"], "https://app.example/verify");
    assert_eq!(shown["webhook_url"], "https://app.example/hook2");
    assert_eq!(shown["keys"][0]["name"], "web");
    assert_eq!(shown["keys"][0]["scopes"], json!(["completions", "connections"]));
    assert!(!shown.to_string().contains("whsec") && !shown.to_string().contains("tgk_"));
    let table = program.run(&["project", "list"]).await.stdout;
    assert_eq!(table, "shop  app  https://app.example/verify  https://app.example/hook2\n");
    let off = ["project", "update", "shop", "--no-webhook", "--proof", "gateway"];
    let off = program.with_sign_in().run(&off).await;
    assert_eq!(off.code, 0, "{}", off.stderr);
    assert_eq!(program.run(&["project", "list"]).await.stdout, "shop  gateway  -  -\n");
    assert_eq!(program.run(&["project", "delete", "shop"]).await.code, 0);
    assert_eq!(program.run(&["key", "list", "--json"]).await.stdout, "[]\n", "its keys went with it");
}

#[tokio::test]
async fn mistakes_about_projects_and_keys_say_what_to_do() {
    let place = Place::new().await;
    let program = Program::at(&place).with_sign_in();
    program.run(&["project", "create", "shop"]).await;
    for (arguments, expect) in [
        (&["project", "create", "a b"][..], "a name must be up to 64 letters"),
        (&["project", "create", "a", "--proof", "app"], "give its address with `--verifier-url URL`"),
        (
            &["project", "create", "a", "--verifier-url", "https://x.example"],
            "no effect without `--proof app`",
        ),
        (
            &["project", "create", "a", "--webhook-url", "http://x.example"],
            "must be an address that begins with https://",
        ),
        (
            &["project", "create", "a", "--webhook-url", "https://u:p@x.example"],
            "must be an address that begins with https://",
        ),
        (&["project", "create", "a", "--proof", "local"], "it is one of gateway, app"),
        (&["project", "update", "b"], "there is no project `b` in the store"),
        (&["project", "update", "shop", "--new-webhook-secret"], "give it one with `--webhook-url URL`"),
        (&["project", "show", "b"], "there is no project `b` in the store"),
        (&["project", "delete", "b"], "there is no project `b` in the store"),
        (&["key", "create", "--project", "b"], "`toolgate project create b` adds it"),
        (
            &["key", "create", "--project", "shop", "--scope", "all"],
            "it is one of completions, connections, tokens",
        ),
        (&["key", "list", "--project", "b"], "there is no project `b` in the store"),
        (&["key", "revoke", "ak_x"], "`toolgate key list` shows the ids"),
        (&["keys", "activate", "key_x"], "`toolgate keys list` shows the keys"),
        (&["keys", "retire", "key_x"], "`toolgate keys list` shows the keys"),
    ] {
        let refused = program.run(arguments).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(
            refused.stderr.starts_with("error: ") && refused.stderr.contains(expect),
            "{arguments:?}: {}",
            refused.stderr
        );
    }
}
