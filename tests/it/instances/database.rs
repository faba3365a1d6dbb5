//! What only PostgreSQL can show: it is stopped and started, notifications get lost, and two transactions meet.

use serde_json::{Value, json};
use toolgate::store::{OutboxRow, Value as Stored};

use super::house::{House, SOON, is_done, link, until_blocked};
use crate::support::{
    Answer, Cluster, Gate, PATIENCE, Person, Place, Program, Running, ask, on_postgres, whole, with,
};

/// Statements on which a gateway hears of changes.
const LISTENING: &str = "SELECT COUNT(*) AS number FROM pg_stat_activity WHERE query LIKE 'LISTEN %'
    AND application_name = current_setting('application_name')";

/// `body`, waiting for the logins it needs.
fn waiting(body: Value) -> Value {
    with(body, json!({ "toolgate": { "on_auth": "wait" } }))
}

/// What a process answers to somebody new, to who needs no login, and to a load balancer.
async fn said(house: &House, process: &Running) -> (Answer, Answer, Answer) {
    let plain = ask(&[]);
    let (refused, plain, ready) = tokio::join!(
        house.chat_as("dora", &process.client),
        process.client.chat(&plain),
        process.client.get("/readyz")
    );
    (refused.unwrap(), plain, ready)
}

#[tokio::test]
async fn a_database_that_is_stopped_is_said_and_when_it_is_back_everything_goes_on() {
    if !on_postgres() {
        return;
    }
    let cluster = Cluster::start_new();
    let place = Place::at(cluster.url());
    let programs = [Program::at(&place), Program::at(&place)];
    let house = House::open(place, programs).await;
    // One waits at the second process, one is about to come back to the first, one has a link only.
    let mut stream = house.second().client.stream(&waiting(house.body("bob"))).await;
    let shown = stream.until(|chunk| chunk["toolgate"]["event"] == "authorization_required").await;
    let bobs = shown["toolgate"]["connect_url"].as_str().unwrap().to_owned();
    stream.until(|chunk| chunk["toolgate"]["event"] == "waiting").await;
    let cleos = link(&house.chat_as("cleo", &house.first.client).await.unwrap());
    let gate = Gate::new();
    let exchanges = house.mcp.peer.requests().iter().filter(|request| request.path == "/token").count();
    house.mcp.hold("/token", &gate);
    let mut bob = Person::new();
    let away = bob.leave(&bobs).await;
    let coming_back = tokio::spawn(async move { bob.log_in(&away).await });
    house.mcp.until_asked_for("/token", exchanges + 1).await;
    cluster.stop();
    gate.open();

    let mut stranger = Person::new();
    let (one, other, page) =
        tokio::join!(said(&house, &house.first), said(&house, house.second()), stranger.open(&cleos));
    for (refused, plain, ready) in [one, other] {
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(refused.json()["error"]["code"], "connections_unavailable");
        assert!(refused.header("retry-after").is_some());
        assert_eq!(plain.status, 200, "what needs no login goes on: {}", plain.text());
        assert_eq!(ready.status, 503);
    }
    assert_eq!(page.status, 503, "{}", page.text);

    cluster.start();
    let page = coming_back.await.unwrap();
    assert!(page.status == 200 && page.text.contains("authorised"), "nothing is lost: {}", page.text);
    let woken = stream.until(|chunk| chunk["toolgate"]["event"] == "authorized");
    tokio::time::timeout(PATIENCE, woken).await.expect("the request that waited wakes");
    assert_eq!(stream.read_to_end().await.finish_reason(), Some("stop"));
    assert_eq!(Person::new().log_in(&cleos).await.status, 200, "the link is still good");
    for process in [&house.first, house.second()] {
        house.assert_done(&process.client).await;
        assert_eq!(process.client.get("/readyz").await.status, 200);
    }
    let listening = async {
        while house.number(LISTENING).await < 6 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.expect("both listen again");
}

#[tokio::test]
async fn a_login_whose_notification_is_lost_wakes_a_request_at_the_other_all_the_same() {
    if !on_postgres() {
        return;
    }
    // Nobody else's notifications come here.
    let cluster = Cluster::start_new();
    let place = Place::at(cluster.url());
    let store = place.store().await;
    for statement in [
        "CREATE SCHEMA silent",
        "CREATE FUNCTION silent.pg_notify(text, text) RETURNS void LANGUAGE sql AS ''",
    ] {
        store.execute(statement, Vec::new()).await.unwrap();
    }
    let notified = "SELECT pg_notify('a', 'b')";
    assert!(store.row(notified, Vec::new()).await.unwrap().is_some());
    store.close().await;
    let deaf = Program::new(place.variables_with_path("public,silent,pg_catalog"));
    let programs = [deaf, Program::at(&place)];
    let house = House::open(place, programs).await;
    let mut stream = house.second().client.stream(&waiting(house.body("bob"))).await;
    let shown = stream.until(|chunk| chunk["toolgate"]["event"] == "authorization_required").await;
    stream.until(|chunk| chunk["toolgate"]["event"] == "waiting").await;
    Person::new().log_in(shown["toolgate"]["connect_url"].as_str().unwrap()).await;
    let repeated = house.chat_as("bob", &house.second().client).await.unwrap();
    assert!(is_done(&repeated), "who asks anew need not wait: {}", repeated.text());
    let woken = stream.until(|chunk| chunk["toolgate"]["event"] == "authorized");
    tokio::time::timeout(SOON, woken).await.expect("it wakes in time");
    assert_eq!(stream.read_to_end().await.finish_reason(), Some("stop"));
}

#[tokio::test]
async fn who_cannot_listen_any_more_listens_again_and_misses_nothing() {
    if !on_postgres() {
        return;
    }
    let house = House::new().await;
    let mut stream = house.second().client.stream(&waiting(house.body("bob"))).await;
    let shown = stream.until(|chunk| chunk["toolgate"]["event"] == "authorization_required").await;
    stream.until(|chunk| chunk["toolgate"]["event"] == "waiting").await;
    let ended = "SELECT CAST(SUM(CASE WHEN pg_terminate_backend(pid) THEN 1 ELSE 0 END) AS BIGINT) AS number
        FROM pg_stat_activity WHERE query LIKE 'LISTEN %'
        AND application_name = current_setting('application_name')";
    let listening = async {
        while house.number(LISTENING).await < 6 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.expect("both listen");
    assert_eq!(house.number(ended).await, 6, "three for each process");
    Person::new().log_in(shown["toolgate"]["connect_url"].as_str().unwrap()).await;
    let woken = stream.until(|chunk| chunk["toolgate"]["event"] == "authorized");
    tokio::time::timeout(SOON, woken).await.expect("it wakes in time");
    assert_eq!(stream.read_to_end().await.finish_reason(), Some("stop"));
    let listening = async {
        while house.number(LISTENING).await < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.expect("both listen again");
}

#[tokio::test]
async fn a_login_that_meets_the_end_of_its_connection_makes_a_new_one() {
    if !on_postgres() {
        return;
    }
    let house = House::new().await;
    let list = house.first.client.get("/v1/connections?user=ann").await.json();
    let path = format!("/v1/connections/{}", list["data"][0]["id"].as_str().unwrap());
    let anew = house.first.client.post(&format!("{path}/reauthorize"), &[], &json!({})).await.json();
    let link = anew["connect_url"].as_str().expect("a link to log in anew").to_owned();
    let store = house.place.store().await;
    let mut held = store.begin().await.unwrap();
    // Not by a change: who has waited for a row that was changed looks for its new version, and may be overtaken there.
    let locked = "SELECT 1 AS one FROM connection_secrets FOR UPDATE";
    assert!(held.row(locked, Vec::new()).await.unwrap().is_some());
    let client = house.second().client.clone();
    let ending = tokio::spawn(async move { whole(client.send("DELETE", &path, &[], "").await).await });
    house.until_blocked(1).await;
    let logging_in = tokio::spawn(async move { Person::new().log_in(&link).await });
    house.until_blocked(2).await;
    held.commit().await.unwrap();
    store.close().await;
    assert_eq!(ending.await.unwrap().status, 200);
    let page = logging_in.await.unwrap();
    assert!(page.status == 200 && page.text.contains("authorised"), "{}", page.text);
    house.assert_done(&house.first.client).await;
    house.soon(&house.second().client, is_done).await;
    assert_eq!(house.number("SELECT COUNT(*) AS number FROM connections").await, 2);
}

#[tokio::test]
async fn two_logins_of_one_user_at_one_server_that_end_at_once_share_a_connection() {
    if !on_postgres() {
        return;
    }
    let house = House::new().await;
    let mut links = Vec::new();
    for number in 0..3 {
        let callback = format!("http://{}/{number}", house.mcp.peer.host());
        let wanted =
            json!({ "user": "bob", "server_url": house.mcp.url(), "authorization_callback_url": callback });
        let started = house.first.client.post("/v1/connections", &[], &wanted).await.json();
        links.push(started["connect_url"].as_str().unwrap().to_owned());
    }
    assert_ne!(links[0], links[1]);
    let exchanges = house.mcp.peer.requests().iter().filter(|request| request.path == "/token").count();
    let gate = Gate::new();
    house.mcp.hold("/token", &gate);
    let log_in = |link: String| tokio::spawn(async move { Person::new().log_in(&link).await });
    let (one, other) = (log_in(links[0].clone()), log_in(links[1].clone()));
    house.mcp.until_asked_for("/token", exchanges + 2).await;
    // Whoever is first comes as far as the third, which is granted with theirs.
    let store = house.place.store().await;
    let mut held = store.begin().await.unwrap();
    let third = "UPDATE flows SET changed_at = changed_at WHERE callback_url LIKE $1";
    assert_eq!(held.execute(third, vec![Stored::from("%/2")]).await.unwrap(), 1);
    gate.open();
    house.until_blocked(2).await;
    held.commit().await.unwrap();
    store.close().await;
    for page in [one.await.unwrap(), other.await.unwrap()] {
        assert!(page.status == 200 && page.text.contains("authorised"), "{}", page.text);
    }
    assert!(is_done(&house.chat_as("bob", &house.second().client).await.unwrap()));
    assert_eq!(house.number("SELECT COUNT(*) AS number FROM connections").await, 2, "ann's and bob's");
    let generation = "SELECT MAX(generation) AS number FROM connection_secrets";
    assert_eq!(house.number(generation).await, 2, "the second login went into the first one's");
}

#[tokio::test]
async fn a_no_that_comes_when_the_login_is_already_on_its_way_is_not_called_one() {
    if !on_postgres() {
        return;
    }
    let house = House::new().await;
    let link = link(&house.chat_as("bob", &house.first.client).await.unwrap());
    let mut bob = Person::new();
    let away = bob.leave(&link).await;
    let store = house.place.store().await;
    let mut held = store.begin().await.unwrap();
    let locked = "SELECT 1 AS one FROM flows WHERE state = 'started' FOR UPDATE";
    assert!(held.row(locked, Vec::new()).await.unwrap().is_some());
    let coming_back = tokio::spawn(async move { bob.log_in(&away).await });
    house.until_blocked(1).await;
    let declining = tokio::spawn(async move { Person::new().decline(&link).await });
    house.until_blocked(2).await;
    held.commit().await.unwrap();
    store.close().await;
    let page = declining.await.unwrap();
    // Or is there already, when the other one was that fast.
    let told = ["is being connected", "is connected"].iter().any(|words| page.text.contains(words));
    assert!(told, "{}", page.text);
    assert_eq!(coming_back.await.unwrap().status, 200);
    assert!(is_done(&house.chat_as("bob", &house.second().client).await.unwrap()));
    assert_eq!(house.number("SELECT COUNT(*) AS number FROM audit WHERE event = 'flow.declined'").await, 0);
}

#[tokio::test]
async fn webhooks_of_one_stream_that_two_add_at_once_are_both_kept_in_one_order() {
    if !on_postgres() {
        return;
    }
    let place = Place::new().await;
    let (one, other) = (place.store().await, place.store().await);
    one.migrate().await.unwrap();
    let webhook = |id: &str| OutboxRow {
        project: "p".to_owned(),
        id: id.to_owned(),
        url: "https://app.example/hook".to_owned(),
        host: "app.example".to_owned(),
        sealed_key: vec![1],
        sealed_body: vec![1],
        attempts: 0,
    };
    let mut first = one.begin().await.unwrap();
    first.add_webhook(&webhook("b"), "stream", 1).await.unwrap();
    let second = webhook("a");
    let adding = tokio::spawn(async move {
        let mut open = other.begin().await.unwrap();
        open.add_webhook(&second, "stream", 1).await.unwrap();
        open.commit().await.unwrap();
    });
    until_blocked(&place, 1).await;
    first.commit().await.unwrap();
    adding.await.unwrap();
    let rows = one.rows("SELECT id, place FROM outbox ORDER BY place", Vec::new()).await.unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.text("id").unwrap(), row.int("place").unwrap())).collect();
    assert_eq!(rows, [("b".to_owned(), 1), ("a".to_owned(), 2)]);
}

#[tokio::test]
async fn a_process_that_stands_still_in_the_middle_of_a_write_does_not_keep_its_runs() {
    if !on_postgres() {
        return;
    }
    let place = Place::new().await;
    let (one, other) = (place.store().await, place.store().await);
    one.migrate().await.unwrap();
    one.register_instance("one", 1).await.unwrap();
    let mut standing = one.begin().await.unwrap();
    assert!(standing.still_alive("one", 500).await.unwrap());
    let declared = tokio::time::timeout(2 * PATIENCE, async {
        // The first attempts wait for the row in vain; the last one finds it free, and never written.
        while !other.declare_dead("one", Some(400), 600).await.unwrap() {
            tokio::task::yield_now().await;
        }
    });
    declared.await.expect("the database ends what stands still");
    assert!(standing.commit().await.is_err());
    let mut open = one.begin().await.unwrap();
    assert!(!open.still_alive("one", 700).await.unwrap());
}
