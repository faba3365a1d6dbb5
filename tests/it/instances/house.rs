//! Two processes of the program on one database.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{
    Answer, Client, FakeProvider, FakeTool, PATIENCE, Person, Place, Program, Protected, Running, ask, calls,
    free_address, text, with,
};

/// What one process does must have reached the other after this, even if nothing is told between them.
pub const SOON: Duration = Duration::from_secs(3);

/// Two processes; people come to the first.
pub struct House {
    pub mcp: Protected,
    _provider: FakeProvider,
    pub place: Place,
    configuration: String,
    programs: [Program; 2],
    pub addresses: [SocketAddr; 2],
    pub first: Running,
    /// Not where a database in a file has one process at a time.
    second: Option<Running>,
}

impl House {
    /// Ann is logged in.
    pub async fn new() -> House {
        let place = Place::new().await;
        let programs = [Program::at(&place), Program::at(&place)];
        House::open(place, programs).await
    }

    /// As [`House::new`], with this place and these programs.
    pub async fn open(place: Place, programs: [Program; 2]) -> House {
        House::open_with(place, programs, true).await
    }

    /// As [`House::new`], with the first process alone.
    pub async fn alone() -> House {
        let place = Place::new().await;
        let programs = [Program::at(&place), Program::at(&place)];
        House::open_with(place, programs, false).await
    }

    async fn open_with(place: Place, programs: [Program; 2], both: bool) -> House {
        let mcp = Protected::start(vec![FakeTool::text("t", "x")]).await;
        let provider = FakeProvider::answering(|request| {
            let body = request.json();
            let messages = body["messages"].as_array().unwrap();
            let answered = messages.iter().any(|message| message["role"] == "tool");
            if answered { text("done") } else { calls(&[("call_1", "s_t", json!({}))]) }
        })
        .await;
        let addresses = [free_address(), free_address()];
        let configuration = format!(
            "public_url = \"http://{}\"\n[[providers]]\nname = \"fake\"\nbase_url = \"{}\"\napi_key = \"k\"\nmodels = [\"m\"]\n",
            addresses[0],
            provider.peer.url("/v1")
        );
        // Both at once: on an empty database, too, that must go well.
        let second = async {
            if both { Some(programs[1].serve(&place, addresses[1], &configuration).await) } else { None }
        };
        let (first, second) = tokio::join!(programs[0].serve(&place, addresses[0], &configuration), second);
        let house =
            House { mcp, _provider: provider, place, configuration, programs, addresses, first, second };
        if both {
            // The second listens, but its tables may have to wait for those of other tests: the lock is the database's.
            assert_eq!(house.second().client.get("/readyz").await.status, 200);
        }
        house.log_in().await;
        house
    }

    /// The second process.
    pub fn second(&self) -> &Running {
        self.second.as_ref().expect("there are two")
    }

    pub fn second_mut(&mut self) -> &mut Running {
        self.second.as_mut().expect("there are two")
    }

    /// The first process is lost, and started again.
    pub async fn restart_first(&mut self) {
        self.first.kill();
        self.first = self.programs[0].serve(&self.place, self.addresses[0], &self.configuration).await;
    }

    /// Starts both again, the access token being over meanwhile.
    pub async fn grow_old(&mut self) {
        self.first.kill();
        self.second_mut().kill();
        self.change("UPDATE connection_secrets SET issued_at = 1, expires_at = 2").await;
        self.start().await;
    }

    pub async fn start(&mut self) {
        self.first = self.programs[0].serve(&self.place, self.addresses[0], &self.configuration).await;
        self.start_second().await;
    }

    pub async fn start_second(&mut self) {
        self.second = Some(self.programs[1].serve(&self.place, self.addresses[1], &self.configuration).await);
    }

    /// Lets the second process ask for a renewal, and ends it at once.
    pub async fn crash_when_renewing(&mut self) {
        let asking = self.chat(&self.second().client);
        self.mcp.until_renewals(1).await;
        self.second_mut().kill();
        asking.abort();
    }

    pub async fn change(&self, statement: &'static str) {
        let store = self.place.store().await;
        assert!(store.execute(statement, Vec::new()).await.unwrap() > 0);
        store.close().await;
    }

    /// Lets the time be over that one process has for a renewal.
    pub async fn end_lease(&self) {
        self.change("UPDATE connection_secrets SET lease_until = 1").await;
    }

    /// Stops the second process where it stands, until the time for its renewal is over.
    pub async fn put_second_to_sleep(&self) {
        self.stop_second("UPDATE connection_secrets SET lease_until = 1").await;
    }

    /// Stops the second process where it stands. Not in the middle of a write: SQLite would let nobody else write
    /// either, such as this statement.
    pub async fn stop_second(&self, statement: &'static str) {
        let store = self.place.store().await;
        loop {
            self.second().pause();
            let end = store.execute(statement, Vec::new());
            if let Ok(ended) = tokio::time::timeout(Duration::from_millis(500), end).await {
                assert_eq!(ended.unwrap(), 1);
                break;
            }
            self.second().resume();
        }
        store.close().await;
    }

    /// `status` and `reason` of the connection, and the generation of its tokens.
    pub async fn state(&self) -> (String, Option<String>, i64) {
        let store = self.place.store().await;
        let sql = "SELECT status, reason, generation FROM connections
                   JOIN connection_secrets ON connection_secrets.connection = connections.id";
        let rows = store.rows(sql, Vec::new()).await.unwrap();
        store.close().await;
        let row = rows.first().expect("there is a connection");
        (row.text("status").unwrap(), row.opt_text("reason").unwrap(), row.int("generation").unwrap())
    }

    /// As [`until_blocked`].
    pub async fn until_blocked(&self, count: i64) {
        until_blocked(&self.place, count).await;
    }

    /// One number that a statement gives.
    pub async fn number(&self, statement: &'static str) -> i64 {
        let store = self.place.store().await;
        let row = store.row(statement, Vec::new()).await.unwrap().unwrap();
        store.close().await;
        row.int("number").unwrap()
    }

    pub fn body(&self, user: &str) -> Value {
        with(ask(&[self.mcp.entry("s")]), json!({ "user": user }))
    }

    pub async fn log_in(&self) {
        self.log_in_as("ann").await;
    }

    pub async fn log_in_as(&self, user: &str) {
        let page = Person::new().log_in(&link(&self.first.client.chat(&self.body(user)).await)).await;
        assert_eq!(page.status, 200, "{}", page.text);
    }

    pub fn chat(&self, client: &Client) -> JoinHandle<Answer> {
        self.chat_as("ann", client)
    }

    pub fn chat_as(&self, user: &str, client: &Client) -> JoinHandle<Answer> {
        let (client, body) = (client.clone(), self.body(user));
        tokio::spawn(async move { client.chat(&body).await })
    }

    pub async fn assert_done(&self, client: &Client) {
        let answer = self.chat(client).await.unwrap();
        assert!(is_done(&answer), "{}\n{}", answer.text(), self.place.log_of(self.addresses[0]));
    }

    /// Asks until the answer `is` as wanted.
    pub async fn soon(&self, client: &Client, is: impl Fn(&Answer) -> bool) {
        let asking = async {
            while !is(&self.chat(client).await.unwrap()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, asking).await.expect("the other process notices");
    }
}

/// Waits until `count` statements wait for rows that the test has locked at `place`. On PostgreSQL only, where that can be
/// seen.
pub async fn until_blocked(place: &Place, count: i64) {
    let store = place.store().await;
    let sql = "SELECT COUNT(*) AS number FROM pg_stat_activity
               WHERE wait_event_type = 'Lock' AND wait_event IN ('transactionid', 'tuple')
               AND application_name = current_setting('application_name')";
    let blocked = async {
        while store.row(sql, Vec::new()).await.unwrap().unwrap().int("number").unwrap() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, blocked).await.expect("they come to wait");
    store.close().await;
}

pub fn link(answer: &Answer) -> String {
    let json = answer.json();
    let link = &json["toolgate"]["authorization_required"][0]["connect_url"];
    link.as_str().unwrap_or_else(|| panic!("a link: {json}")).to_owned()
}

pub fn wants_login(answer: &Answer) -> bool {
    answer.text().contains("/connect/")
}

pub fn is_done(answer: &Answer) -> bool {
    answer.status == 200 && answer.content().ends_with("done")
}

pub fn active(generation: i64) -> (String, Option<String>, i64) {
    ("active".to_owned(), None, generation)
}

pub fn in_doubt() -> (String, Option<String>, i64) {
    ("needs_reauth".to_owned(), Some("in_doubt".to_owned()), 1)
}
