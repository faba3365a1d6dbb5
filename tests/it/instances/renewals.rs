//! Renewals: one for all requests of all processes, and a crash or a pause of one loses nothing.

use std::time::Duration;

use serde_json::json;

use super::house::{House, active, in_doubt, is_done, link};
use crate::support::{Gate, Person, Reply, on_postgres};

#[tokio::test]
async fn many_requests_on_both_with_an_expired_token_renew_it_once() {
    if !on_postgres() {
        return;
    }
    let mut house = House::new().await;
    house.grow_old().await;
    let chats: Vec<_> = (0..100)
        .flat_map(|_| [&house.first, house.second()])
        .map(|process| house.chat(&process.client))
        .collect();
    for chat in chats {
        let answer = chat.await.unwrap();
        assert!(is_done(&answer), "{}", answer.text());
    }
    assert_eq!(house.mcp.renewals().len(), 1);
    let callers = house.mcp.callers();
    assert_eq!(callers.len(), 200);
    assert!(callers.iter().all(|caller| *caller == callers[0]), "all with the new token");
    assert_eq!(house.state().await, active(2));
}

#[tokio::test]
async fn a_crash_before_the_token_was_spent_loses_nothing() {
    if !on_postgres() {
        return;
    }
    let mut house = House::new().await;
    house.grow_old().await;
    house.mcp.at_renewal(|_| Reply::Silence);
    house.crash_when_renewing().await;
    house.end_lease().await;
    house.assert_done(&house.first.client).await;
    let renewals = house.mcp.renewals();
    assert_eq!((renewals.len(), house.state().await), (2, active(2)));
    assert_eq!(renewals[0], renewals[1]);
    house.start_second().await;
    house.assert_done(&house.second().client).await;
    assert_eq!(house.mcp.renewals().len(), 2);
}

#[tokio::test]
async fn a_crash_after_the_token_was_spent_ends_in_one_more_attempt_and_a_login() {
    if !on_postgres() {
        return;
    }
    let mut house = House::new().await;
    house.grow_old().await;
    house.mcp.at_renewal(|renew| {
        renew();
        Reply::Silence
    });
    house.crash_when_renewing().await;
    house.end_lease().await;
    let chats: Vec<_> = (0..20).map(|_| house.chat(&house.first.client)).collect();
    for chat in chats {
        link(&chat.await.unwrap());
    }
    assert_eq!((house.mcp.renewals().len(), house.state().await), (2, in_doubt()));
    house.start_second().await;
    link(&house.chat(&house.second().client).await.unwrap());
    assert_eq!(house.mcp.renewals().len(), 2, "it is not tried again");
    house.log_in().await;
    house.assert_done(&house.first.client).await;
    house.soon(&house.second().client, is_done).await;
}

#[tokio::test]
async fn a_crash_while_the_new_tokens_come_back_keeps_them_or_says_that_they_are_lost() {
    if !on_postgres() {
        return;
    }
    let mut house = House::new().await;
    for round in 0..6 {
        house.grow_old().await;
        let (before, (_, _, generation)) = (house.mcp.renewals().len(), house.state().await);
        let asking = house.chat(&house.second().client);
        house.mcp.until_renewals(before + 1).await;
        // At another moment each time.
        tokio::time::sleep(Duration::from_millis(round * 2)).await;
        house.second_mut().kill();
        asking.abort();
        let (status, _, now) = house.state().await;
        assert_eq!(status, "active");
        let stored = now == generation + 1;
        if !stored {
            assert_eq!(now, generation);
            house.end_lease().await;
        }
        let answer = house.chat(&house.first.client).await.unwrap();
        let attempts = house.mcp.renewals().len() - before;
        if stored {
            assert!(is_done(&answer), "{}", answer.text());
            assert_eq!(attempts, 1);
        } else {
            assert_eq!(attempts, 2);
            let (status, reason, _) = house.state().await;
            assert_eq!((status.as_str(), reason.as_deref()), ("needs_reauth", Some("in_doubt")));
            let page = Person::new().log_in(&link(&answer)).await;
            assert_eq!(page.status, 200, "{}", page.text);
        }
    }
}

#[tokio::test]
async fn who_slept_through_a_renewal_takes_the_tokens_of_who_did_it_meanwhile() {
    if !on_postgres() {
        return;
    }
    let mut house = House::new().await;
    house.grow_old().await;
    let gate = Gate::new();
    let opened = gate.clone();
    // The second's request reaches the server only after the first's.
    house.mcp.at_renewal(move |_| Reply::Json(400, json!({ "error": "invalid_grant" })).after(&gate));
    let sleeping = house.chat(&house.second().client);
    house.mcp.until_renewals(1).await;
    house.put_second_to_sleep().await;
    house.assert_done(&house.first.client).await;
    opened.open();
    house.second().resume();
    let answer = sleeping.await.unwrap();
    assert!(is_done(&answer), "{}", answer.text());
    house.assert_done(&house.first.client).await;
    assert_eq!((house.mcp.renewals().len(), house.state().await), (2, active(2)));
    let callers = house.mcp.callers();
    assert!(callers.iter().all(|caller| *caller == callers[0]), "{callers:?}");
}

#[tokio::test]
async fn who_slept_with_the_new_tokens_on_their_way_still_brings_them() {
    if !on_postgres() {
        return;
    }
    let mut house = House::new().await;
    house.grow_old().await;
    let gate = Gate::new();
    let opened = gate.clone();
    house.mcp.at_renewal(move |renew| renew().after(&gate));
    let sleeping = house.chat(&house.second().client);
    house.mcp.until_renewals(1).await;
    house.put_second_to_sleep().await;
    link(&house.chat(&house.first.client).await.unwrap());
    assert_eq!(house.state().await, in_doubt());
    opened.open();
    house.second().resume();
    let answer = sleeping.await.unwrap();
    assert!(is_done(&answer), "{}", answer.text());
    assert_eq!(house.state().await, active(2));
    house.soon(&house.first.client, is_done).await;
    assert_eq!(house.mcp.renewals().len(), 2);
}

#[tokio::test]
async fn where_both_renewals_succeed_the_one_that_was_stored_first_stays() {
    if !on_postgres() {
        return;
    }
    let mut house = House::new().await;
    house.grow_old().await;
    house.mcp.keep_refresh_tokens();
    let gate = Gate::new();
    let opened = gate.clone();
    house.mcp.at_renewal(move |renew| renew().after(&gate));
    let sleeping = house.chat(&house.second().client);
    house.mcp.until_renewals(1).await;
    house.put_second_to_sleep().await;
    house.assert_done(&house.first.client).await;
    opened.open();
    house.second().resume();
    let answer = sleeping.await.unwrap();
    assert!(is_done(&answer), "{}", answer.text());
    assert_eq!((house.mcp.renewals().len(), house.state().await), (2, active(2)));
    let callers = house.mcp.callers();
    assert!(callers.iter().all(|caller| *caller == callers[0]), "{callers:?}");
}

#[tokio::test]
async fn a_crash_with_the_new_tokens_in_hand_before_they_are_stored_ends_in_a_login_and_no_double_use() {
    if !on_postgres() {
        return;
    }
    let mut house = House::new().await;
    house.grow_old().await;
    let gate = Gate::new();
    let opened = gate.clone();
    house.mcp.at_renewal(move |renew| renew().after(&gate));
    let asking = house.chat(&house.second().client);
    house.mcp.until_renewals(1).await;
    // What is read can be read, but nothing can be stored.
    let store = house.place.store().await;
    let mut held = store.begin().await.unwrap();
    let locked = "UPDATE connection_secrets SET failures = failures";
    assert_eq!(held.execute(locked, Vec::new()).await.unwrap(), 1);
    opened.open();
    if house.place.is_shared() {
        house.until_blocked(1).await;
    }
    house.second_mut().kill();
    asking.abort();
    held.commit().await.unwrap();
    store.close().await;
    assert_eq!(house.state().await, active(1));
    house.end_lease().await;
    link(&house.chat(&house.first.client).await.unwrap());
    assert_eq!((house.mcp.renewals().len(), house.state().await), (2, in_doubt()));
    house.log_in().await;
    house.assert_done(&house.first.client).await;
}

#[tokio::test]
async fn a_renewal_of_a_process_that_was_declared_dead_is_anybody_s_at_once() {
    if !on_postgres() {
        return;
    }
    let mut house = House::new().await;
    house.grow_old().await;
    house.mcp.at_renewal(|_| Reply::Silence);
    house.crash_when_renewing().await;
    // Who lives shows it soon; the other one is missed now, and not when the time for its renewal is over.
    house.change("UPDATE instances SET seen_at = 1").await;
    house.assert_done(&house.first.client).await;
    assert_eq!((house.mcp.renewals().len(), house.state().await), (2, active(2)));
}

#[tokio::test]
async fn a_renewal_that_a_crash_interrupted_waits_for_nobody_when_the_same_instance_is_back() {
    if on_postgres() {
        return;
    }
    let mut house = House::alone().await;
    house.change("UPDATE connection_secrets SET issued_at = 1, expires_at = 2").await;
    house.restart_first().await;
    house.mcp.at_renewal(|_| Reply::Silence);
    let asking = house.chat(&house.first.client);
    house.mcp.until_renewals(1).await;
    house.restart_first().await;
    asking.abort();
    let done = house.assert_done(&house.first.client);
    tokio::time::timeout(Duration::from_secs(15), done).await.expect("nothing is waited for");
    assert_eq!((house.mcp.renewals().len(), house.state().await), (2, active(2)));
}
