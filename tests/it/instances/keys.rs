//! The keyring: one for all, and exchanged while both processes serve.

use serde_json::Value;
use toolgate::crypto::KeySet;
use toolgate::keys::KEYRING_FILE;

use super::house::{House, is_done};
use crate::support::{Place, Program, on_postgres};

#[tokio::test]
async fn many_that_begin_at_once_with_an_empty_database_agree_on_it() {
    let place = Place::new().await;
    let program = Program::at(&place);
    let arguments: [&[&str]; 6] =
        [&["migrate"], &["init"], &["project", "list"], &["migrate"], &["keys", "list"], &["init"]];
    let runs = arguments.map(|arguments| program.run(arguments));
    for ended in futures_util::future::join_all(runs).await {
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
    let store = place.store().await;
    let kept = store.row("SELECT COUNT(*) AS number FROM meta", Vec::new()).await.unwrap().unwrap();
    assert_eq!(kept.int("number").unwrap(), 2, "one canary and one pepper");
}

#[tokio::test]
async fn of_two_keyrings_that_meet_an_empty_database_at_once_one_is_refused() {
    let place = Place::new().await;
    let own = std::fs::read_to_string(place.folder().join(KEYRING_FILE)).unwrap();
    let other = KeySet::of_one("key_other", &[7; 32]).unwrap().to_text().to_string();
    let programs = [own, other].map(|keyring| {
        let lines: Vec<&str> = keyring.lines().filter(|line| !line.starts_with('#')).collect();
        Program::at(&place).with("TOOLGATE_KEYRING", &lines.join(";"))
    });
    let [one, two] = &programs;
    let runs = [one, two, one, two].map(|program| program.run(&["init"]));
    let ended = futures_util::future::join_all(runs).await;
    let codes: Vec<i32> = ended.iter().map(|ended| ended.code).collect();
    assert!(codes == [0, 2, 0, 2] || codes == [2, 0, 2, 0], "{codes:?}: {ended:?}");
    let refused = ended.iter().find(|ended| ended.code == 2).unwrap();
    assert!(refused.stderr.contains("does not belong to this database"), "{}", refused.stderr);
}

#[tokio::test]
async fn the_keys_are_exchanged_while_both_serve_and_tokens_are_used_and_renewed() {
    const ROUNDS: usize = 8;
    const USERS: usize = 3;
    const REQUESTS: usize = 24;
    let name = |round: usize, number: usize| format!("user {round}.{}", number % USERS);
    if !on_postgres() {
        return;
    }
    let house = House::new().await;
    for round in 0..ROUNDS {
        for number in 0..USERS {
            house.log_in_as(&name(round, number)).await;
        }
    }
    let play = async |round: usize| {
        house.mcp.expire();
        let chats = (0..REQUESTS).map(|number| {
            // Every user at both.
            let process = if (number / USERS).is_multiple_of(2) { &house.first } else { house.second() };
            house.chat_as(&name(round, number), &process.client)
        });
        for answer in futures_util::future::join_all(chats).await {
            let answer = answer.unwrap();
            assert!(is_done(&answer), "round {round}: {}", answer.text());
        }
    };
    let program = Program::at(&house.place);
    let exchange = async {
        let new = program.run(&["keys", "add"]).await.stdout.trim_end().to_owned();
        assert_eq!(program.run(&["keys", "activate", &new]).await.code, 0);
        for _ in 0..2 {
            let rotated = program.run(&["keys", "rotate"]).await;
            assert_eq!(rotated.code, 0, "{}", rotated.stderr);
        }
        new
    };
    let load = async {
        for round in 0..ROUNDS - 1 {
            play(round).await;
            // Sealed beside it: new logins, too.
            house.log_in_as(&format!("new {round}")).await;
        }
    };
    let (new, ()) = tokio::join!(exchange, load);
    assert_eq!(house.mcp.refreshes(), (ROUNDS - 1) * USERS, "one renewal for each user and round");
    let listed = program.run(&["keys", "list", "--json"]).await.stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let old = listed.as_array().unwrap().iter().find(|key| key["id"] != new.as_str()).unwrap();
    assert_eq!(program.run(&["keys", "rotate"]).await.code, 0);
    let retired = program.run(&["keys", "retire", old["id"].as_str().unwrap()]).await;
    assert_eq!(retired.code, 0, "{}", retired.stderr);
    play(ROUNDS - 1).await;
}
