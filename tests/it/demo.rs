//! The built-in demo through the gateway: what the first lines of the README promise.

use serde_json::{Value, json};

use toolgate::config::Settings;
use toolgate::egress::system_lookup;

use crate::support::{Gateway, Page, Peer, Person, Reply, with};

fn whoami(gateway: &Gateway, more: Value) -> Value {
    let server = format!("http://{}/demo/private/mcp", gateway.address);
    with(
        json!({
            "model": "demo",
            "messages": [{"role": "user", "content": "Who am I?"}],
            "tools": [{"type": "mcp", "server_label": "demo", "server_url": server}],
        }),
        more,
    )
}

async fn gateway() -> Gateway {
    let settings = Settings { listen: ([127, 0, 0, 1], 0).into(), ..Settings::default() };
    Gateway::start(settings, system_lookup()).await
}

/// Follows a login link to the demo's page, types a name there and presses a button.
async fn answer(person: &mut Person, link: &str, name: &str, button: &str) -> Page {
    let page = person.log_in(link).await;
    assert!(page.text.contains("Who do you want to be here?"), "{}", page.text);
    let id = page.text.split("name=\"page\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let address = page.address.split('?').next().unwrap();
    let back = person.submit(address, &format!("page={id}&name={name}&answer={button}")).await;
    person.open(&back.location.expect("the way back")).await
}

async fn link(gateway: &Gateway, more: Value) -> String {
    let answer = gateway.client.chat(&whoami(gateway, more)).await.json();
    let url = answer["toolgate"]["authorization_required"][0]["connect_url"].as_str();
    url.unwrap_or_else(|| panic!("no link: {answer}")).to_owned()
}

#[tokio::test]
async fn the_link_leads_to_a_login_and_the_same_request_then_answers_with_the_name() {
    let gateway = gateway().await;
    let mut person = Person::new();
    let page = answer(&mut person, &link(&gateway, json!({})).await, "Robin", "allow").await;
    assert!(page.status == 200 && page.text.contains("Connected as Robin"), "{}", page.text);
    let said = gateway.client.chat(&whoami(&gateway, json!({}))).await.content();
    assert!(said.contains("You are Robin"), "{said}");

    // Another user of the same application has a login of their own.
    let other = link(&gateway, json!({"user": "second"})).await;
    answer(&mut person, &other, "Kim", "allow").await;
    for (user, name) in [("local", "Robin"), ("second", "Kim")] {
        let said = gateway.client.chat(&whoami(&gateway, json!({"user": user}))).await.content();
        assert!(said.contains(&format!("You are {name}")), "{said}");
    }

    let listed = gateway.client.get("/v1/connections?user=local").await.json();
    let id = listed["data"][0]["id"].as_str().expect("a connection").to_owned();
    assert_eq!(listed["data"][0]["account"], "Robin");
    let path = format!("/v1/connections/{id}");
    let ended = gateway.client.send("DELETE", &path, &[], "").await;
    assert_eq!(ended.status(), 200);
    link(&gateway, json!({})).await;
}

#[tokio::test]
async fn a_request_that_waits_goes_on_after_the_login_or_the_no() {
    for (button, told) in [("allow", "You are Robin"), ("deny", "declined")] {
        let gateway = gateway().await;
        let waiting = json!({"stream": true, "toolgate": {"on_auth": "wait"}});
        let mut stream = gateway.client.stream(&whoami(&gateway, waiting)).await;
        let chunk = stream.until(|chunk| chunk["toolgate"]["event"] == "authorization_required").await;
        let url = chunk["toolgate"]["connect_url"].as_str().unwrap().to_owned();
        stream.until(|chunk| chunk["toolgate"]["event"] == "waiting").await;
        answer(&mut Person::new(), &url, "Robin", button).await;
        let content = stream.read_to_end().await.content();
        assert!(content.contains(told), "{content}");
    }
}

#[tokio::test]
async fn a_client_is_known_by_the_document_at_its_own_address() {
    let gateway = gateway().await;
    let back = "http://localhost:3000/back";
    let changes = [
        ("/client.json", json!({})),
        ("/other.json", json!({"client_id": "http://127.0.0.1:1/client.json"})),
        ("/secret.json", json!({"token_endpoint_auth_method": "client_secret_post"})),
        ("/astray.json", json!({"redirect_uris": ["https://evil.example/"]})),
        ("/huge.json", json!({"client_uri": "x".repeat(6000)})),
    ];
    let documents = Peer::start(move |request| {
        if request.path == "/moved.json" {
            return Reply::with_headers(302, &[("location", "/client.json")], "");
        }
        let (path, change) = changes.iter().find(|(path, _)| *path == request.path).expect("a known path");
        let host = request.header("host").expect("a host");
        let id = format!("http://{host}{path}");
        let document = json!({"client_id": id, "client_name": "reader", "redirect_uris": [back]});
        let document = with(document, change.clone()).to_string();
        Reply::with_headers(200, &[("content-type", "application/json")], &document)
    })
    .await;
    for (path, status) in [
        ("/client.json", 200),
        ("/other.json", 400),
        ("/secret.json", 400),
        ("/astray.json", 400),
        ("/huge.json", 400),
        ("/moved.json", 400),
    ] {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("response_type", "code"),
                ("client_id", &documents.url(path)),
                ("redirect_uri", back),
                ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
                ("code_challenge_method", "S256"),
                ("resource", &format!("http://{}/demo/private/mcp", gateway.address)),
            ])
            .finish();
        let page = gateway.client.get(&format!("/demo/oauth/authorize?{query}")).await;
        assert_eq!(page.status, status, "{path}: {}", page.text());
        assert!(page.header("location").is_none(), "{path}");
    }
    assert_eq!(
        documents.requests().iter().filter(|one| one.path == "/client.json").count(),
        1,
        "no redirects"
    );
}
