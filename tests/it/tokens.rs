//! Tokens that end, are refused, or cannot be renewed just now: one renewal each, whatever happens at the same time.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Answer, FakeProvider, FakeTool, Gate, Gateway, PATIENCE, Person, Place, Protected, Reply, ask, calls,
    settings, text, with,
};

/// Requests at the same time.
const MANY: usize = 200;

/// A model that calls the tool once and then says `done`.
async fn model() -> FakeProvider {
    FakeProvider::answering(|request| {
        let body = request.json();
        let answered = body["messages"].as_array().unwrap().iter().any(|message| message["role"] == "tool");
        if answered { text("done") } else { calls(&[("call_1", "s_t", json!({}))]) }
    })
    .await
}

/// Ann is logged in, and her gateway can be stopped and started again.
struct House {
    mcp: Protected,
    provider: FakeProvider,
    place: Place,
    gateway: Gateway,
}

impl House {
    async fn new() -> House {
        let (mcp, provider) = (Protected::start(vec![FakeTool::text("t", "x")]).await, model().await);
        let place = Place::new().await;
        let mut chosen = settings(&provider);
        place.give_to(&mut chosen);
        let gateway = Gateway::start(chosen, toolgate::egress::system_lookup()).await;
        let house = House { mcp, provider, place, gateway };
        house.log_in().await;
        house
    }

    async fn log_in(&self) {
        let page = Person::new().log_in(&link(&self.chat().await)).await;
        assert_eq!(page.status, 200, "{}", page.text);
    }

    /// Starts the gateway again, where it was, the access token being over meanwhile.
    async fn grow_old(self) -> House {
        self.after("UPDATE connection_secrets SET issued_at = 1, expires_at = 2".to_owned()).await
    }

    /// Starts the gateway again, where it was, and changes the store in between.
    async fn after(mut self, statement: String) -> House {
        let mut chosen = settings(&self.provider);
        self.place.give_to(&mut chosen);
        chosen.listen = self.gateway.address;
        self.gateway.stop().await;
        let store = self.place.store().await;
        let statement: &'static str = statement.leak();
        assert_eq!(store.execute(statement, Vec::new()).await.unwrap(), 1);
        store.close().await;
        self.gateway = Gateway::start(chosen, toolgate::egress::system_lookup()).await;
        self
    }

    fn body(&self) -> Value {
        with(ask(&[self.mcp.entry("s")]), json!({ "user": "ann" }))
    }

    async fn chat(&self) -> Answer {
        self.gateway.client.chat(&self.body()).await
    }

    async fn chats(&self, count: usize) -> Vec<Answer> {
        let chats = (0..count).map(|_| {
            let (client, body) = (self.gateway.client.clone(), self.body());
            tokio::spawn(async move { client.chat(&body).await })
        });
        let mut answers = Vec::new();
        for chat in chats.collect::<Vec<_>>() {
            answers.push(chat.await.unwrap());
        }
        answers
    }

    /// `status` and `reason` of the connection, and the generation of its tokens.
    async fn state(&self) -> (String, Option<String>, i64) {
        let store = self.place.store().await;
        let sql = "SELECT status, reason, generation FROM connections
                   JOIN connection_secrets ON connection_secrets.connection = connections.id";
        let rows = store.rows(sql, Vec::new()).await.unwrap();
        store.close().await;
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        (row.text("status").unwrap(), row.opt_text("reason").unwrap(), row.int("generation").unwrap())
    }

    /// Lets the pause after a failure be over.
    async fn end_pause(&self) {
        let store = self.place.store().await;
        store.execute("UPDATE connection_secrets SET retry_at = 0", Vec::new()).await.unwrap();
        store.close().await;
    }
}

fn link(answer: &Answer) -> String {
    let json = answer.json();
    let link = &json["toolgate"]["authorization_required"][0]["connect_url"];
    link.as_str().unwrap_or_else(|| panic!("a link: {json}")).to_owned()
}

fn is_done(answer: &Answer) -> bool {
    answer.status == 200 && answer.content().ends_with("done")
}

fn active(generation: i64) -> (String, Option<String>, i64) {
    ("active".to_owned(), None, generation)
}

#[tokio::test]
async fn many_requests_with_an_expired_token_renew_it_once_and_all_succeed() {
    let house = House::new().await.grow_old().await;
    for answer in house.chats(MANY).await {
        assert!(is_done(&answer), "{}", answer.text());
    }
    assert_eq!(house.mcp.renewals().len(), 1);
    let callers = house.mcp.callers();
    assert_eq!(callers.len(), MANY);
    assert!(callers.iter().all(|caller| *caller == callers[0]), "all with the new token");
    assert_eq!(house.state().await, active(2));
}

#[tokio::test]
async fn many_requests_whose_token_is_refused_renew_it_once_and_all_succeed() {
    let house = House::new().await;
    assert!(is_done(&house.chat().await));
    house.mcp.expire();
    for answer in house.chats(MANY).await {
        assert!(is_done(&answer), "{}", answer.text());
    }
    assert_eq!(house.mcp.renewals().len(), 1);
    assert_eq!(house.state().await, active(2));
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_again_needs_a_login_and_is_not_renewed_for_ever() {
    let house = House::new().await;
    // Its tokens are good for nothing from now on.
    for _ in 0..10 {
        house.mcp.at_renewal(|renew| {
            let Reply::Json(status, mut answer) = renew() else { panic!("a renewal is answered in JSON") };
            answer["access_token"] = json!("worthless");
            Reply::Json(status, answer)
        });
    }
    house.mcp.expire();
    for answer in house.chats(20).await {
        link(&answer);
    }
    assert_eq!(house.mcp.renewals().len(), 1, "{:?}", house.mcp.renewals());
    assert_eq!(house.state().await, ("needs_reauth".to_owned(), Some("refused".to_owned()), 2));
    link(&house.chat().await);
    assert_eq!(house.mcp.renewals().len(), 1);
    house.log_in().await;
    assert!(is_done(&house.chat().await));
}

#[tokio::test]
async fn a_refusal_is_remembered_when_the_connection_is_read_anew() {
    let house = House::new().await;
    for _ in 0..10 {
        house.mcp.at_renewal(|renew| {
            let Reply::Json(status, mut answer) = renew() else { panic!("a renewal is answered in JSON") };
            answer["access_token"] = json!("worthless");
            Reply::Json(status, answer)
        });
    }
    house.mcp.expire();
    // Every login of the same user makes the gateway forget what it keeps of them.
    let other = Protected::start(vec![FakeTool::text("t", "x")]).await;
    for _ in 0..3 {
        link(&house.chat().await);
        let body = with(ask(&[other.entry("o")]), json!({ "user": "ann" }));
        house.gateway.client.chat(&body).await;
    }
    assert_eq!(house.mcp.renewals().len(), 1, "{:?}", house.mcp.renewals());
}

#[tokio::test]
async fn a_token_endpoint_that_is_out_of_order_does_not_end_the_connection() {
    let mut house = House::new().await;
    let page = "<html>Sorry!</html>";
    let html = [("content-type", "text/html")];
    for (index, turn) in [
        Reply::with_headers(503, &[("retry-after", "1")], ""),
        Reply::with_headers(500, &html, page),
        Reply::with_headers(429, &[], ""),
        Reply::with_headers(408, &[], ""),
        Reply::Hangup,
        Reply::Json(400, json!({ "error": "temporarily_unavailable" })),
    ]
    .into_iter()
    .enumerate()
    {
        house = house.grow_old().await;
        house.mcp.at_renewal(|_| turn);
        let before = house.mcp.renewals().len();
        let answer = house.chat().await;
        assert!(!answer.text().contains("connect_url"), "turn {index}: {}", answer.text());
        assert!(!is_done(&answer) || !answer.text().contains("Sorry"), "turn {index}");
        assert_eq!(house.mcp.renewals().len(), before + 1, "turn {index}: it is asked once");
        house.chat().await;
        assert_eq!(house.mcp.renewals().len(), before + 1, "turn {index}: and not again at once");
        let generation = i64::try_from(index).unwrap() + 1;
        assert_eq!(house.state().await, active(generation), "turn {index}");
        house.end_pause().await;
        assert!(is_done(&house.chat().await), "turn {index}: afterwards all is well");
        assert_eq!(house.state().await, active(generation + 1), "turn {index}");
    }
}

#[tokio::test]
async fn a_renewal_that_is_refused_in_any_words_offers_a_login_and_keeps_what_there_is() {
    let mut house = House::new().await;
    let page = "<html>Sorry!</html>";
    let html = [("content-type", "text/html")];
    let error = |status, code: &str| Reply::Json(status, json!({ "error": code }));
    let refusals = vec![
        error(400, "invalid_request"),
        error(401, "invalid_token"),
        error(400, "expired_token"),
        error(400, "bad_refresh_token"),
        error(401, "token_expired"),
        error(400, "unauthorized_client"),
        error(403, "access_denied"),
        error(400, "invalid_target"),
        Reply::Json(400, json!({ "error": { "code": "token_expired" } })),
        Reply::Json(400, json!({ "message": "Refresh token has been used" })),
        Reply::Json(200, json!({ "ok": false, "error": "invalid_refresh_token" })),
        Reply::Json(200, json!({ "token_type": "Bearer" })),
        Reply::with_headers(200, &html, page),
        Reply::with_headers(400, &html, page),
        Reply::with_headers(404, &html, page),
        Reply::with_headers(410, &[], ""),
    ];
    for (index, refusal) in refusals.into_iter().enumerate() {
        house = house.grow_old().await;
        house.mcp.at_renewal(|_| refusal);
        let before = house.mcp.renewals().len();
        let first = house.chat().await;
        assert!(first.text().contains("connect_url"), "refusal {index}: {}", first.text());
        link(&house.chat().await);
        assert_eq!(house.mcp.renewals().len(), before + 1, "refusal {index}: it is not asked again at once");
        let generation = i64::try_from(index).unwrap() + 1;
        assert_eq!(house.state().await, active(generation), "refusal {index}: nothing is thrown away");
        house.end_pause().await;
        assert!(is_done(&house.chat().await), "refusal {index}: a link that nobody opened disappears");
        assert_eq!(house.state().await, active(generation + 1), "refusal {index}");
    }
    // And the link is good for what it says.
    house = house.grow_old().await;
    house.mcp.at_renewal(|_| Reply::Json(400, json!({ "error": "invalid_request" })));
    house.log_in().await;
    assert!(is_done(&house.chat().await));
}

#[tokio::test]
async fn an_authorization_server_that_stays_broken_leads_to_a_login_too() {
    let house = House::new().await.grow_old().await;
    for failure in 1..=4 {
        house.mcp.at_renewal(|_| Reply::with_headers(503, &[], ""));
        let answer = house.chat().await;
        assert!(!answer.text().contains("connect_url"), "failure {failure}: {}", answer.text());
        house.end_pause().await;
    }
    // Often enough; now also for long enough.
    let house = house.after("UPDATE connection_secrets SET failing_since = 1".to_owned()).await;
    house.mcp.at_renewal(|_| Reply::with_headers(503, &[], ""));
    let given = link(&house.chat().await);
    assert_eq!(house.state().await, active(1), "what there is is kept");
    assert_eq!(Person::new().log_in(&given).await.status, 200);
    assert!(is_done(&house.chat().await));
    assert_eq!(house.state().await, active(2));
}

#[tokio::test]
async fn while_a_refused_token_cannot_be_renewed_nobody_is_asked_to_log_in() {
    let house = House::new().await;
    house.mcp.expire();
    house.mcp.at_renewal(|_| Reply::with_headers(503, &[], ""));
    let answer = house.chat().await;
    assert!(!answer.text().contains("connect_url"), "{}", answer.text());
    assert_eq!(house.state().await, active(1));
    house.end_pause().await;
    assert!(is_done(&house.chat().await));
}

#[tokio::test]
async fn only_a_grant_that_is_not_valid_any_more_ends_the_connection() {
    let house = House::new().await;
    house.mcp.end_grants();
    for answer in house.chats(20).await {
        link(&answer);
    }
    assert_eq!(house.mcp.renewals().len(), 1, "{:?}", house.mcp.renewals());
    assert_eq!(house.state().await, ("needs_reauth".to_owned(), Some("ended".to_owned()), 1));
    house.log_in().await;
    assert!(is_done(&house.chat().await));
    assert_eq!(house.state().await, active(2));
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_keeps_the_old_one() {
    let mut house = House::new().await;
    house.mcp.keep_refresh_tokens();
    for _ in 0..3 {
        house = house.grow_old().await;
        assert!(is_done(&house.chat().await));
    }
    let renewals = house.mcp.renewals();
    assert_eq!(renewals.len(), 3);
    assert!(renewals.iter().all(|token| *token == renewals[0]), "{renewals:?}");
    assert_eq!(house.state().await, active(4));
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_lose_the_renewed_tokens() {
    let house = House::new().await.grow_old().await;
    let gate = crate::support::Gate::new();
    let opened = gate.clone();
    house.mcp.at_renewal(move |renew| renew().after(&gate));
    let connection = house.gateway.client.connect(&house.body()).await;
    house.mcp.until_renewals(1).await;
    drop(connection);
    opened.open();
    assert!(is_done(&house.chat().await));
    assert_eq!((house.mcp.renewals().len(), house.state().await), (1, active(2)));
}

#[tokio::test]
async fn a_token_does_not_follow_a_redirect_beyond_what_it_is_for() {
    let house = House::new().await;
    house.mcp.disguise(307, "");
    house.mcp.expire();
    let before = house.mcp.peer.requests().len();
    house.chat().await;
    let asked = house.mcp.peer.requests().split_off(before);
    let led: Vec<_> = asked.iter().filter(|request| request.path == "/login").collect();
    assert!(!led.is_empty(), "the redirect is followed: {asked:?}");
    assert!(led.iter().all(|request| request.header("authorization").is_none()), "{led:?}");
    assert!(asked.iter().any(|request| request.header("authorization").is_some()), "to the server it goes");
}

#[tokio::test]
async fn the_refusal_of_an_old_token_that_comes_late_is_not_taken_for_that_of_the_new_one() {
    let house = House::new().await;
    house.mcp.expire();
    let asked = house.mcp.peer.requests().len();
    let gate = Gate::new();
    house.mcp.hold_next("/mcp", &gate);
    let (client, body) = (house.gateway.client.clone(), house.body());
    let late = tokio::spawn(async move { client.chat(&body).await });
    house.mcp.peer.until_requests(asked + 1).await;
    // Another request of the same person meets the refusal and renews.
    let mut entry = house.mcp.entry("s");
    entry["headers"] = json!({ "x-other": "list" });
    let renewed = house.gateway.client.chat(&with(ask(&[entry]), json!({ "user": "ann" }))).await;
    assert!(renewed.content().ends_with("done"), "{}", renewed.text());
    let with_new = tokio::time::timeout(PATIENCE, house.chat()).await.expect("it waits for nobody");
    assert!(with_new.content().ends_with("done"), "{}", with_new.text());
    gate.open();
    let answer = late.await.unwrap();
    assert!(answer.content().ends_with("done"), "{}", answer.text());
    assert_eq!(house.mcp.refreshes(), 1);
}

#[tokio::test]
async fn a_token_near_its_end_is_renewed_beside_the_request_that_still_uses_it() {
    let house = House::new().await;
    assert!(is_done(&house.chat().await));
    let old = house.mcp.callers()[0].clone();
    let now = toolgate::clock::Clock::system().unix_milliseconds();
    // A tenth of its hour is left.
    let (issued, end) = (now - 54 * 60_000, now + 6 * 60_000);
    let house =
        house.after(format!("UPDATE connection_secrets SET issued_at = {issued}, expires_at = {end}")).await;
    let before = house.mcp.peer.requests().len();
    assert!(is_done(&house.chat().await));
    let first = house.mcp.peer.requests()[before..]
        .iter()
        .find(|request| request.path.starts_with("/mcp"))
        .and_then(|request| request.header("authorization").map(str::to_owned));
    assert_eq!(first.as_ref(), Some(&old), "it waits for nothing");
    house.mcp.until_renewals(1).await;
    let renewed = async {
        while house.state().await != active(2) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), renewed).await.expect("the new token is stored");
    // It is stored before it is used.
    let used = async {
        while house.mcp.callers().last() == Some(&old) {
            assert!(is_done(&house.chat().await));
        }
    };
    tokio::time::timeout(PATIENCE, used).await.expect("the new token is used");
    assert_eq!(house.mcp.renewals().len(), 1);
}

#[tokio::test]
async fn a_warm_call_asks_the_store_for_nothing() {
    // A login of just now is still to be noticed as a change, and forgotten once.
    let house = House::new().await.after("UPDATE connections SET changed_at = 1".to_owned()).await;
    assert!(is_done(&house.chat().await));
    let store = house.place.store().await;
    for table in ["connections", "connection_secrets", "flows", "registrations"] {
        let away: &'static str = format!("ALTER TABLE {table} RENAME TO {table}_away").leak();
        store.execute(away, Vec::new()).await.unwrap();
    }
    for _ in 0..3 {
        let answer = house.chat().await;
        assert!(is_done(&answer), "{}", answer.text());
    }
    assert_eq!(house.mcp.callers().len(), 4);
}

#[tokio::test]
async fn while_the_store_cannot_be_looked_at_a_login_is_used_for_seconds_only_and_again_when_it_can() {
    let house = House::new().await;
    assert!(is_done(&house.chat().await));
    let store = house.place.store().await;
    store.execute("ALTER TABLE connections RENAME TO connections_away", Vec::new()).await.unwrap();
    let refused = async {
        loop {
            let answer = house.chat().await;
            if !is_done(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("it may have been ended elsewhere");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["error"]["code"], "connections_unavailable");
    let calls = house.mcp.callers().len();
    assert_eq!(house.chat().await.status, 503);
    assert_eq!(house.mcp.callers().len(), calls);
    store.execute("ALTER TABLE connections_away RENAME TO connections", Vec::new()).await.unwrap();
    assert!(is_done(&house.chat().await), "at once");
}

#[tokio::test]
async fn what_nobody_has_used_for_90_days_is_revoked() {
    let house = House::new().await;
    house.mcp.answer_revocations(200);
    let link_before = house.mcp.callers().len();
    let now = toolgate::clock::Clock::system().unix_milliseconds();
    let day = 24 * 3_600_000;
    let house = house.after(format!("UPDATE connections SET last_used_at = {}", now - 89 * day)).await;
    assert!(is_done(&house.chat().await), "used in time");
    assert_eq!(house.mcp.callers().len(), link_before + 1);
    let house = house.after(format!("UPDATE connections SET last_used_at = {}", now - 91 * day)).await;
    let ended = async {
        loop {
            let answer = house.chat().await;
            if !is_done(&answer) {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.expect("it ends");
    assert!(link(&answer).contains("/connect/"), "{}", answer.text());
    let store = house.place.store().await;
    let rows = store.rows("SELECT status, reason FROM connections", Vec::new()).await.unwrap();
    let reason = rows[0].opt_text("reason").unwrap();
    assert_eq!(
        (rows[0].text("status").unwrap().as_str(), reason.as_deref()),
        ("revoked", Some("unused for 90 days"))
    );
}

#[tokio::test]
async fn the_audit_log_tells_the_life_of_a_login() {
    let house = House::new().await.grow_old().await;
    assert!(is_done(&house.chat().await));
    house.gateway.stop().await;
    let store = house.place.store().await;
    let rows = store.rows("SELECT event FROM audit ORDER BY at, event", Vec::new()).await.unwrap();
    let events: Vec<String> = rows.iter().map(|row| row.text("event").unwrap()).collect();
    assert_eq!(events, ["flow.created", "connection.created", "token.refreshed", "connection.used"]);
}
