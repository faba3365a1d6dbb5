//! Changing the keys reaches every sealed column of every table, whatever names projects and users have.

use toolgate::crypto::{KeySet, Keyring, Place as SealedPlace};
use toolgate::id::random_bytes;
use toolgate::keys::{count_uses, rotate};
use toolgate::store::{
    CONNECTION_ACCESS, CONNECTION_REFRESH, FLOW_BATCH, FLOW_CALLBACK_KEY, FLOW_LINK, FLOW_TOKENS,
    FLOW_VERIFIER, HIDDEN_TURN_MESSAGES, META_VALUE, OUTBOX_BODY, OUTBOX_KEY, PROJECT_WEBHOOK_SECRET,
    REGISTRATION_SECRET, REVOCATION_ACCESS, REVOCATION_REFRESH, SEALED_COLUMNS, SealedColumn, Store, Value,
};

use crate::support::Place;

/// A project and a user, as unpleasant as they may be.
const PROJECT: &str = "project:sh'op";
const USER: &str = "u\0ser — é%_";

fn keyring(active: &str) -> Keyring {
    let mut set = KeySet::of_one("key_old", &[1; 32]).unwrap();
    set.add("key_new", &[2; 32]).unwrap();
    set.activate(active).unwrap();
    Keyring::new(set)
}

/// What the row of each column is called, and whose it is.
fn place_in(column: &'static SealedColumn) -> SealedPlace<'static> {
    match column.table {
        "meta" => column.place("thing", "", ""),
        "projects" => column.place("shop", "shop", ""),
        "registrations" => {
            column.place("https://as.example https://gateway.example/oauth/callback c", "", "")
        }
        "outbox" => column.place("row", PROJECT, ""),
        _ => column.place("row", PROJECT, USER),
    }
}

/// A sealed value for a column, which says where it belongs.
fn sealed(column: &'static SealedColumn) -> Value {
    let place = place_in(column);
    keyring("key_old").seal(random_bytes(), &place, format!("{place:?}").as_bytes()).into()
}

async fn fill(store: &Store) {
    let user = || Value::from(USER.as_bytes());
    let rows: [(&'static str, Vec<Value>); 9] = [
        ("INSERT INTO meta (name, sealed_value) VALUES ('thing', $1)", vec![sealed(&META_VALUE)]),
        (
            "INSERT INTO projects (name, proof, sealed_webhook_secret, created_at, updated_at)
             VALUES ('shop', 'gateway', $1, 1, 1)",
            vec![sealed(&PROJECT_WEBHOOK_SECRET)],
        ),
        (
            "INSERT INTO connections (project, id, user_name, profile, resource, issuer, client_id, scopes, application,
             endpoints, status, created_at, changed_at, last_used_at)
             VALUES ($1, 'row', $2, $2, 'r', 'i', 'c', '', $2, $2, 'active', 1, 1, 1)",
            vec![PROJECT.into(), user()],
        ),
        (
            "INSERT INTO connection_secrets (project, connection, generation, sealed_access, sealed_refresh, issued_at)
             VALUES ($1, 'row', 1, $2, $3, 1)",
            vec![PROJECT.into(), sealed(&CONNECTION_ACCESS), sealed(&CONNECTION_REFRESH)],
        ),
        (
            "INSERT INTO flows (project, id, link_hash, sealed_link, user_name, profile, resource, server_url,
             server_label, scopes, reason, application, proof, sealed_callback_key, discovered, state, sealed_verifier,
             sealed_tokens, sealed_batch, created_at, expires_at, changed_at)
             VALUES ($1, 'row', $2, $3, $2, $2, 'r', 's', $2, '', 'first_use', $2, 'gateway', $4, $2, 'pending', $5,
             $6, $7, 1, 1, 1)",
            vec![
                PROJECT.into(),
                user(),
                sealed(&FLOW_LINK),
                sealed(&FLOW_CALLBACK_KEY),
                sealed(&FLOW_VERIFIER),
                sealed(&FLOW_TOKENS),
                sealed(&FLOW_BATCH),
            ],
        ),
        (
            "INSERT INTO registrations (issuer, redirect_uri, client_id, sealed_secret, auth_method, scope,
             created_at)
             VALUES ('https://as.example', 'https://gateway.example/oauth/callback', 'c', $1, 'none', '', 1)",
            vec![sealed(&REGISTRATION_SECRET)],
        ),
        (
            "INSERT INTO outbox (project, id, stream, place, url, sealed_key, sealed_body, next_at, state, created_at)
             VALUES ($1, 'row', 's', 1, 'u', $2, $3, 1, 'waiting', 1)",
            vec![PROJECT.into(), sealed(&OUTBOX_KEY), sealed(&OUTBOX_BODY)],
        ),
        (
            "INSERT INTO revocations (project, id, connection, user_name, sealed_refresh, sealed_access, issuer,
             client_id, endpoints, next_at, outcome, created_at, changed_at)
             VALUES ($1, 'row', 'row', $2, $3, $4, 'i', 'c', $2, 1, 'waiting', 1, 1)",
            vec![PROJECT.into(), user(), sealed(&REVOCATION_REFRESH), sealed(&REVOCATION_ACCESS)],
        ),
        (
            "INSERT INTO hidden_turns (project, id, user_name, run, sealed_messages, expires_at)
             VALUES ($1, 'row', $2, 'run_1', $3, 1)",
            vec![PROJECT.into(), user(), sealed(&HIDDEN_TURN_MESSAGES)],
        ),
    ];
    for (statement, values) in rows {
        assert_eq!(store.execute(statement, values).await.expect(statement), 1);
    }
}

#[tokio::test]
async fn every_sealed_column_is_counted_sealed_anew_and_opens_in_its_place_as_before() {
    let place = Place::new().await;
    let store = place.store().await;
    store.migrate().await.unwrap();
    fill(&store).await;
    let keys = keyring("key_new");
    let uses = count_uses(&store, &keys.keys()).await.unwrap();
    assert_eq!(uses.len(), SEALED_COLUMNS.len(), "every column holds one: {uses:?}");
    assert!(uses.iter().all(|used| used.key_id == "key_old" && used.number == 1), "{uses:?}");

    let done = rotate(&store, &keys, |_, _| {}).await.unwrap();
    assert_eq!(done.resealed, SEALED_COLUMNS.len() as u64);
    let new_alone = Keyring::new(KeySet::of_one("key_new", &[2; 32]).unwrap());
    for column in SEALED_COLUMNS {
        let values = store.list_sealed(column, None, 10).await.unwrap();
        let expect = place_in(column);
        assert_eq!(values.len(), 1, "{expect:?}");
        let opened = new_alone.open(&expect, &values[0].sealed).unwrap();
        assert_eq!(opened.as_slice(), format!("{expect:?}").as_bytes());
    }
    assert!(count_uses(&store, &keys.keys()).await.unwrap().iter().all(|used| used.key_id == "key_new"));
}
