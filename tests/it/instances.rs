//! Two processes on one database: renewals, logins and revocations of one reach the other, and a crash or a pause of one
//! loses nothing.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{
    Answer, Client, FakeProvider, FakeTool, Gate, Person, Place, Program, Protected, Reply, Running, ask,
    calls, free_address, text, whole, with,
};

/// What one process does must have reached the other after this, even if nothing is told between them.
const SOON: Duration = Duration::from_secs(3);

/// Two processes; people come to the first.
struct House {
    mcp: Protected,
    _provider: FakeProvider,
    place: Place,
    configuration: String,
    addresses: [SocketAddr; 2],
    first: Running,
    second: Running,
}

impl House {
    /// Ann is logged in.
    async fn new() -> House {
        let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
        let provider = FakeProvider::answering(|request| {
            let body = request.json();
            let messages = body["messages"].as_array().unwrap();
            let answered = messages.iter().any(|message| message["role"] == "tool");
            if answered { text("done") } else { calls(&[("call_1", "s_t", json!({}))]) }
        })
        .await;
        let place = Place::new().await;
        let addresses = [free_address(), free_address()];
        let configuration = format!(
            "public_url = \"http://{}\"\n[[providers]]\nname = \"fake\"\nbase_url = \"{}\"\napi_key = \"k\"\nmodels = [\"m\"]\n",
            addresses[0],
            provider.peer.url("/v1")
        );
        let program = Program::at(&place);
        let first = program.serve(&place, addresses[0], &configuration).await;
        let second = program.serve(&place, addresses[1], &configuration).await;
        let house = House { mcp, _provider: provider, place, configuration, addresses, first, second };
        house.log_in().await;
        house
    }

    /// Starts both again, the access token being over meanwhile.
    async fn grow_old(&mut self) {
        self.first.kill();
        self.second.kill();
        self.change("UPDATE connection_secrets SET issued_at = 1, expires_at = 2").await;
        self.start().await;
    }

    async fn start(&mut self) {
        let program = Program::at(&self.place);
        self.first = program.serve(&self.place, self.addresses[0], &self.configuration).await;
        self.start_second().await;
    }

    async fn start_second(&mut self) {
        let program = Program::at(&self.place);
        self.second = program.serve(&self.place, self.addresses[1], &self.configuration).await;
    }

    /// Lets the second process ask for a renewal, and ends it at once.
    async fn crash_when_renewing(&mut self) {
        let asking = self.chat(&self.second.client);
        self.mcp.until_renewals(1).await;
        self.second.kill();
        asking.abort();
    }

    async fn change(&self, statement: &'static str) {
        let store = self.place.store().await;
        assert_eq!(store.execute(statement, Vec::new()).await.unwrap(), 1);
        store.close().await;
    }

    /// Lets the time be over that one process has for a renewal.
    async fn end_lease(&self) {
        self.change("UPDATE connection_secrets SET lease_until = 1").await;
    }

    /// Stops the second process where it stands, until the time for its renewal is over. Not in the middle of a write:
    /// SQLite would let nobody else write either.
    async fn put_second_to_sleep(&self) {
        let store = self.place.store().await;
        loop {
            self.second.pause();
            let end = store.execute("UPDATE connection_secrets SET lease_until = 1", Vec::new());
            if let Ok(ended) = tokio::time::timeout(Duration::from_millis(500), end).await {
                assert_eq!(ended.unwrap(), 1);
                break;
            }
            self.second.resume();
        }
        store.close().await;
    }

    /// `status` and `reason` of the connection, and the generation of its tokens.
    async fn state(&self) -> (String, Option<String>, i64) {
        let store = self.place.store().await;
        let sql = "SELECT status, reason, generation FROM connections
                   JOIN connection_secrets ON connection_secrets.connection = connections.id";
        let rows = store.rows(sql, Vec::new()).await.unwrap();
        store.close().await;
        let row = rows.first().expect("there is a connection");
        (row.text("status").unwrap(), row.opt_text("reason").unwrap(), row.int("generation").unwrap())
    }

    fn body(&self, user: &str) -> Value {
        with(ask(&[self.mcp.entry("s")]), json!({ "user": user }))
    }

    async fn log_in(&self) {
        let page = Person::new().log_in(&link(&self.first.client.chat(&self.body("ann")).await)).await;
        assert_eq!(page.status, 200, "{}", page.text);
    }

    fn chat(&self, client: &Client) -> JoinHandle<Answer> {
        let (client, body) = (client.clone(), self.body("ann"));
        tokio::spawn(async move { client.chat(&body).await })
    }

    async fn assert_done(&self, client: &Client) {
        let answer = self.chat(client).await.unwrap();
        assert!(is_done(&answer), "{}\n{}", answer.text(), self.place.log_of(self.addresses[0]));
    }

    /// Asks until the answer `is` as wanted.
    async fn soon(&self, client: &Client, is: impl Fn(&Answer) -> bool) {
        let asking = async {
            while !is(&self.chat(client).await.unwrap()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, asking).await.expect("the other process notices");
    }
}

fn link(answer: &Answer) -> String {
    let json = answer.json();
    let link = &json["toolgate"]["authorization_required"][0]["connect_url"];
    link.as_str().unwrap_or_else(|| panic!("a link: {json}")).to_owned()
}

fn wants_login(answer: &Answer) -> bool {
    answer.text().contains("/connect/")
}

fn is_done(answer: &Answer) -> bool {
    answer.status == 200 && answer.content().ends_with("done")
}

fn active(generation: i64) -> (String, Option<String>, i64) {
    ("active".to_owned(), None, generation)
}

fn in_doubt() -> (String, Option<String>, i64) {
    ("needs_reauth".to_owned(), Some("in_doubt".to_owned()), 1)
}

#[tokio::test]
async fn many_requests_on_both_with_an_expired_token_renew_it_once() {
    let mut house = House::new().await;
    house.grow_old().await;
    let chats: Vec<_> = (0..100)
        .flat_map(|_| [&house.first, &house.second])
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
async fn a_login_at_one_wakes_a_request_that_waits_at_the_other() {
    let house = House::new().await;
    let body = with(house.body("bob"), json!({ "toolgate": { "on_auth": "wait" } }));
    let mut stream = house.second.client.stream(&body).await;
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
    let house = House::new().await;
    house.assert_done(&house.second.client).await;
    let list = house.first.client.get("/v1/connections?user=ann").await.json();
    let path = format!("/v1/connections/{}", list["data"][0]["id"].as_str().unwrap());
    let ended = whole(house.first.client.send("DELETE", &path, &[], "").await).await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    assert!(wants_login(&house.chat(&house.first.client).await.unwrap()), "at once where it was ended");
    house.soon(&house.second.client, wants_login).await;
    let calls = house.mcp.callers().len();
    assert!(wants_login(&house.chat(&house.second.client).await.unwrap()));
    assert_eq!(house.mcp.callers().len(), calls);
}

#[tokio::test]
async fn a_crash_before_the_token_was_spent_loses_nothing() {
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
    house.assert_done(&house.second.client).await;
    assert_eq!(house.mcp.renewals().len(), 2);
}

#[tokio::test]
async fn a_crash_after_the_token_was_spent_ends_in_one_more_attempt_and_a_login() {
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
    link(&house.chat(&house.second.client).await.unwrap());
    assert_eq!(house.mcp.renewals().len(), 2, "it is not tried again");
    house.log_in().await;
    house.assert_done(&house.first.client).await;
    house.soon(&house.second.client, is_done).await;
}

#[tokio::test]
async fn a_crash_while_the_new_tokens_come_back_keeps_them_or_says_that_they_are_lost() {
    let mut house = House::new().await;
    for round in 0..6 {
        house.grow_old().await;
        let (before, (_, _, generation)) = (house.mcp.renewals().len(), house.state().await);
        let asking = house.chat(&house.second.client);
        house.mcp.until_renewals(before + 1).await;
        // At another moment each time.
        tokio::time::sleep(Duration::from_millis(round * 2)).await;
        house.second.kill();
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
    let mut house = House::new().await;
    house.grow_old().await;
    let gate = Gate::new();
    let opened = gate.clone();
    // The second's request reaches the server only after the first's.
    house.mcp.at_renewal(move |_| Reply::Json(400, json!({ "error": "invalid_grant" })).after(&gate));
    let sleeping = house.chat(&house.second.client);
    house.mcp.until_renewals(1).await;
    house.put_second_to_sleep().await;
    house.assert_done(&house.first.client).await;
    opened.open();
    house.second.resume();
    let answer = sleeping.await.unwrap();
    assert!(is_done(&answer), "{}", answer.text());
    house.assert_done(&house.first.client).await;
    assert_eq!((house.mcp.renewals().len(), house.state().await), (2, active(2)));
    let callers = house.mcp.callers();
    assert!(callers.iter().all(|caller| *caller == callers[0]), "{callers:?}");
}

#[tokio::test]
async fn who_slept_with_the_new_tokens_on_their_way_still_brings_them() {
    let mut house = House::new().await;
    house.grow_old().await;
    let gate = Gate::new();
    let opened = gate.clone();
    house.mcp.at_renewal(move |renew| renew().after(&gate));
    let sleeping = house.chat(&house.second.client);
    house.mcp.until_renewals(1).await;
    house.put_second_to_sleep().await;
    link(&house.chat(&house.first.client).await.unwrap());
    assert_eq!(house.state().await, in_doubt());
    opened.open();
    house.second.resume();
    let answer = sleeping.await.unwrap();
    assert!(is_done(&answer), "{}", answer.text());
    assert_eq!(house.state().await, active(2));
    house.soon(&house.first.client, is_done).await;
    assert_eq!(house.mcp.renewals().len(), 2);
}

#[tokio::test]
async fn where_both_renewals_succeed_the_one_that_was_stored_first_stays() {
    let mut house = House::new().await;
    house.grow_old().await;
    house.mcp.keep_refresh_tokens();
    let gate = Gate::new();
    let opened = gate.clone();
    house.mcp.at_renewal(move |renew| renew().after(&gate));
    let sleeping = house.chat(&house.second.client);
    house.mcp.until_renewals(1).await;
    house.put_second_to_sleep().await;
    house.assert_done(&house.first.client).await;
    opened.open();
    house.second.resume();
    let answer = sleeping.await.unwrap();
    assert!(is_done(&answer), "{}", answer.text());
    assert_eq!((house.mcp.renewals().len(), house.state().await), (2, active(2)));
    let callers = house.mcp.callers();
    assert!(callers.iter().all(|caller| *caller == callers[0]), "{callers:?}");
}
