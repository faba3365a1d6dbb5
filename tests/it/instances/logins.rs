//! Logins and their end: what one process shows, stores or ends is so for the other.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::house::{House, SOON, is_done, link, wants_login};
use crate::support::{Gate, Person, on_postgres, whole, with};

#[tokio::test]
async fn a_login_at_one_wakes_a_request_that_waits_at_the_other() {
    if !on_postgres() {
        return;
    }
    let house = House::new().await;
    let body = with(house.body("bob"), json!({ "toolgate": { "on_auth": "wait" } }));
    let mut stream = house.second().client.stream(&body).await;
    let shown = stream.until(|chunk| chunk["toolgate"]["event"] == "authorization_required").await;
    let url = shown["toolgate"]["connect_url"].as_str().unwrap().to_owned();
    stream.until(|chunk| chunk["toolgate"]["event"] == "waiting").await;
    Person::new().log_in(&url).await;
    let woken = stream.until(|chunk| chunk["toolgate"]["event"] == "authorized");
    tokio::time::timeout(SOON, woken).await.expect("it wakes in time");
    assert_eq!(stream.read_to_end().await.finish_reason(), Some("stop"));
}

#[tokio::test]
async fn a_connection_that_is_ended_at_one_is_soon_not_used_at_the_other() {
    if !on_postgres() {
        return;
    }
    let house = House::new().await;
    house.assert_done(&house.second().client).await;
    let list = house.first.client.get("/v1/connections?user=ann").await.json();
    let path = format!("/v1/connections/{}", list["data"][0]["id"].as_str().unwrap());
    let ended = whole(house.first.client.send("DELETE", &path, &[], "").await).await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    assert!(wants_login(&house.chat(&house.first.client).await.unwrap()), "at once where it was ended");
    house.soon(&house.second().client, wants_login).await;
    let calls = house.mcp.callers().len();
    assert!(wants_login(&house.chat(&house.second().client).await.unwrap()));
    assert_eq!(house.mcp.callers().len(), calls);
}

#[tokio::test]
async fn what_was_ended_or_finished_while_one_process_stood_still_for_18_s_is_so_for_it_within_three_seconds()
{
    if !on_postgres() {
        return;
    }
    let house = House::new().await;
    house.assert_done(&house.second().client).await;
    let wait = json!({ "toolgate": { "on_auth": "wait", "wait_seconds": 120 } });
    let mut stream = house.second().client.stream(&with(house.body("bob"), wait)).await;
    let shown = stream.until(|chunk| chunk["toolgate"]["event"] == "authorization_required").await;
    stream.until(|chunk| chunk["toolgate"]["event"] == "waiting").await;
    let list = house.first.client.get("/v1/connections?user=ann").await.json();
    let path = format!("/v1/connections/{}", list["data"][0]["id"].as_str().unwrap());

    house.stop_second("UPDATE connection_secrets SET failures = failures").await;
    let page = Person::new().log_in(shown["toolgate"]["connect_url"].as_str().unwrap()).await;
    assert_eq!(page.status, 200, "{}", page.text);
    let ended = whole(house.first.client.send("DELETE", &path, &[], "").await).await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    // Longer than clocks of instances may differ: a look that goes back by that alone would miss both.
    tokio::time::sleep(Duration::from_secs(18)).await;
    let calls = house.mcp.callers();
    house.second().resume();
    assert!(
        wants_login(&house.chat(&house.second().client).await.unwrap()),
        "at once: it knows that it is behind"
    );
    let woken = stream.until(|chunk| chunk["toolgate"]["event"] == "authorized");
    tokio::time::timeout(SOON, woken).await.expect("it wakes in time");
    assert_eq!(stream.read_to_end().await.finish_reason(), Some("stop"));
    assert!(
        wants_login(&house.chat(&house.second().client).await.unwrap()),
        "and it has forgotten what it knew"
    );
    let since = house.mcp.callers().split_off(calls.len());
    assert!(since.iter().all(|token| !calls.contains(token)), "nothing is called with what was ended");
}

#[tokio::test]
async fn requests_that_miss_a_login_at_both_in_one_moment_show_one_link() {
    const AT_EACH: usize = 10;
    if !on_postgres() {
        return;
    }
    let house = House::new().await;
    let metadata = "/.well-known/oauth-protected-resource";
    let before =
        house.mcp.peer.requests().iter().filter(|request| request.path.starts_with(metadata)).count();
    let gate = Gate::new();
    house.mcp.hold(metadata, &gate);
    let chats: Vec<_> = (0..AT_EACH)
        .flat_map(|_| [&house.first, house.second()])
        .map(|process| house.chat_as("bob", &process.client))
        .collect();
    house.mcp.until_asked_for(metadata, before + 2 * AT_EACH).await;
    gate.open();
    let mut links = BTreeSet::new();
    for chat in chats {
        links.insert(link(&chat.await.unwrap()));
    }
    assert_eq!(links.len(), 1, "{links:?}");
    let created = "SELECT COUNT(*) AS number FROM audit WHERE event = 'flow.created'";
    assert_eq!(house.number(created).await, 2, "ann's and bob's");
    let page = Person::new().log_in(links.first().unwrap()).await;
    assert_eq!(page.status, 200, "{}", page.text);
    let answer = house.chat_as("bob", &house.second().client).await.unwrap();
    assert!(is_done(&answer), "{}", answer.text());
}

#[tokio::test]
async fn two_that_register_at_the_same_time_use_one_client() {
    if !on_postgres() {
        return;
    }
    let house = House::new().await;
    house.change("DELETE FROM registrations").await;
    let links = [
        link(&house.chat_as("bob", &house.first.client).await.unwrap()),
        // As a load balancer would, their request reaches the other process.
        link(&house.chat_as("cleo", &house.second().client).await.unwrap())
            .replace(&house.addresses[0].to_string(), &house.addresses[1].to_string()),
    ];
    let gate = Gate::new();
    house.mcp.hold("/register", &gate);
    let [bob, cleo] = links.map(|link| tokio::spawn(async move { Person::new().leave(&link).await }));
    house.mcp.until_asked_for("/register", 3).await;
    gate.open();
    let client = |address: String| {
        address.split(['?', '&']).find(|pair| pair.starts_with("client_id=")).unwrap().to_owned()
    };
    assert_eq!(client(bob.await.unwrap()), client(cleo.await.unwrap()));
    assert_eq!(house.number("SELECT COUNT(*) AS number FROM registrations").await, 1);
}

#[tokio::test]
async fn tokens_that_come_when_their_connection_was_ended_meanwhile_are_revoked() {
    if !on_postgres() {
        return;
    }
    let mut house = House::new().await;
    house.mcp.answer_revocations(200);
    house.log_in_as("bob").await;
    house.grow_old().await;
    let gate = Gate::new();
    let opened = gate.clone();
    house.mcp.at_renewal(move |renew| renew().after(&gate));
    let renewing = house.chat_as("bob", &house.second().client);
    house.mcp.until_renewals(1).await;
    let list = house.first.client.get("/v1/connections?user=bob").await.json();
    let path = format!("/v1/connections/{}", list["data"][0]["id"].as_str().unwrap());
    let ended = whole(house.first.client.send("DELETE", &path, &[], "").await).await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    opened.open();
    assert!(wants_login(&renewing.await.unwrap()));
    house.mcp.until_asked_for("/revoke", 4).await;
    let revoked = house.mcp.revoked();
    assert_eq!(revoked.len(), 4, "both tokens of before, and both that came late: {revoked:?}");
}
