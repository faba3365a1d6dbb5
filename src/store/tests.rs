//! The engine on a real file, and in memory.

use futures_util::FutureExt;

use super::*;

async fn memory() -> Store {
    let store = Store::open(&Location::Memory).await.unwrap();
    store.migrate().await.unwrap();
    store
        .execute("CREATE TABLE things (name TEXT PRIMARY KEY, size INTEGER, data BLOB) STRICT", values![])
        .await
        .unwrap();
    store
}

#[tokio::test]
async fn what_is_put_in_comes_out() {
    let store = memory().await;
    let insert = "INSERT INTO things (name, size, data) VALUES ($1, $2, $3)";
    assert_eq!(store.execute(insert, values!["a", 7, b"\0x"]).await.unwrap(), 1);
    store.execute(insert, values!["b", None::<i64>, None::<Vec<u8>>]).await.unwrap();
    assert!(matches!(store.execute(insert, values!["a", 1, b"y"]).await, Err(Error::Exists)));
    let rows = store.rows("SELECT * FROM things ORDER BY name", values![]).await.unwrap();
    assert_eq!((rows[0].text("name").unwrap(), rows[0].int("size").unwrap()), ("a".to_owned(), 7));
    assert_eq!(rows[0].wide_text("data").unwrap(), "\0x");
    assert_eq!((rows[1].opt_int("size").unwrap(), rows[1].opt_bytes("data").unwrap()), (None, None));
    assert!(matches!(rows[0].text("absent"), Err(Error::Unexpected(_))));
    // A parameter may be used twice, in any order.
    let row = store.row("SELECT $2 || $1 || $2 AS t", values!["a", "b"]).await.unwrap().unwrap();
    assert_eq!(row.text("t").unwrap(), "bab");
}

#[tokio::test]
async fn a_transaction_that_is_dropped_never_happened() {
    let store = memory().await;
    let mut open = store.begin().await.unwrap();
    open.execute("INSERT INTO things (name) VALUES ($1)", values!["x"]).await.unwrap();
    drop(open);
    assert!(store.row("SELECT name FROM things", values![]).await.unwrap().is_none());
    let mut open = store.begin().await.unwrap();
    open.execute("INSERT INTO things (name) VALUES ($1)", values!["y"]).await.unwrap();
    open.commit().await.unwrap();
    assert!(store.row("SELECT name FROM things", values![]).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_open_and_migrate_a_new_database_at_once() {
    let directory = std::env::temp_dir().join(crate::id::random_id("toolgate-store-"));
    std::fs::create_dir(&directory).unwrap();
    let location = Location::File(directory.join("toolgate.db"));
    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let location = location.clone();
            tokio::spawn(async move {
                let store = Store::open(&location).await?;
                let number = store.migrate().await?;
                assert!(store.is_migrated().await?);
                store.close().await;
                Ok::<i64, Error>(number)
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().unwrap() > 0);
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_listener_hears_what_is_told() {
    let store = memory().await;
    let mut listener = store.listen().await.unwrap();
    store.notify("flow_1").await;
    assert_eq!(listener.next().await.as_deref(), Some("flow_1"));
}

/// A database in a folder of its own, with a table of things.
async fn in_file() -> (Store, std::path::PathBuf) {
    let directory = std::env::temp_dir().join(crate::id::random_id("toolgate-store-"));
    std::fs::create_dir(&directory).unwrap();
    let store = Store::open(&Location::File(directory.join("toolgate.db"))).await.unwrap();
    store.migrate().await.unwrap();
    let table = "CREATE TABLE things (name TEXT PRIMARY KEY, data BLOB) STRICT";
    store.execute(table, values![]).await.unwrap();
    (store, directory)
}

const INSERT: &str = "INSERT INTO things (name, data) VALUES ($1, $2)";
/// Larger than what is left of a database that may not grow.
static LARGE: [u8; 200_000] = [7; 200_000];

/// Lets the database grow no more, as a full disk does, on the one connection that writes.
async fn fill(store: &Store) {
    store.change("PRAGMA max_page_count = 1", values![]).await.unwrap();
}

/// Whether things can be written as at first, alone and together.
async fn assert_writes(store: &Store, name: &str) {
    store.execute(INSERT, values![name, &LARGE]).await.unwrap();
    let mut open = store.begin().await.unwrap();
    open.execute(INSERT, values![format!("{name} again"), &LARGE]).await.unwrap();
    open.commit().await.unwrap();
    let found = store.rows("SELECT name FROM things WHERE name LIKE $1", values![format!("{name}%")]).await;
    assert_eq!(found.unwrap().len(), 2);
}

#[tokio::test]
async fn a_write_that_finds_the_disk_full_spoils_no_later_one() {
    let (store, directory) = in_file().await;
    fill(&store).await;
    let alone = store.execute(INSERT, values!["lost", &LARGE]).await;
    assert!(matches!(alone, Err(Error::Unavailable(_))), "{alone:?}");
    assert_writes(&store, "a statement").await;

    fill(&store).await;
    let returned = "INSERT INTO things (name, data) VALUES ($1, $2) RETURNING name";
    assert!(matches!(store.change(returned, values!["lost", &LARGE]).await, Err(Error::Unavailable(_))));
    assert_writes(&store, "one that returns").await;

    fill(&store).await;
    let mut open = store.begin().await.unwrap();
    assert!(matches!(open.execute(INSERT, values!["lost", &LARGE]).await, Err(Error::Unavailable(_))));
    drop(open);
    assert_writes(&store, "a transaction").await;

    fill(&store).await;
    let mut open = store.begin().await.unwrap();
    open.execute(INSERT, values!["small", b"x"]).await.unwrap();
    assert!(open.execute(INSERT, values!["lost", &LARGE]).await.is_err());
    // What came before the failure may be undone already; saying that it is to last must not break anything.
    let _ = open.commit().await;
    assert_writes(&store, "a commit all the same").await;

    assert!(store.row("SELECT name FROM things WHERE name = 'lost'", values![]).await.unwrap().is_none());
    store.close().await;
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_by_itself_spoils_no_later_one() {
    let (store, directory) = in_file().await;
    for (number, end) in ["ROLLBACK", "COMMIT"].into_iter().enumerate() {
        for (place, is_committed) in [false, true].into_iter().enumerate() {
            let mut open = store.begin().await.unwrap();
            // SQLite is outside the transaction now, and sqlx does not know.
            open.execute(end, values![]).await.unwrap();
            if is_committed {
                assert!(open.commit().await.is_err());
            } else {
                drop(open);
            }
            assert_writes(&store, &format!("{number}.{place}")).await;
        }
    }
    store.close().await;
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_transaction_whose_future_is_dropped_anywhere_spoils_no_later_one() {
    let (store, directory) = in_file().await;
    for steps in 0..60 {
        let writing = async {
            let mut open = store.begin().await?;
            open.execute(INSERT, values![format!("half {steps}"), b"x"]).await?;
            open.execute("DELETE FROM things WHERE name LIKE 'half%'", values![]).await?;
            open.commit().await
        };
        let mut writing = Box::pin(writing.fuse());
        for _ in 0..steps {
            let _: std::task::Poll<Result<(), Error>> = futures_util::poll!(&mut writing);
            // Gives the connection's thread time for more, or less, than one thing.
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
        }
        drop(writing);
        store.execute("DELETE FROM things", values![]).await.unwrap();
        assert_writes(&store, "after").await;
        store.execute("DELETE FROM things", values![]).await.unwrap();
    }
    store.close().await;
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_database_file_that_is_gone_is_not_made_anew() {
    let (store, directory) = in_file().await;
    fill(&store).await;
    for name in ["toolgate.db", "toolgate.db-wal", "toolgate.db-shm"] {
        let _ = std::fs::remove_file(directory.join(name));
    }
    assert!(store.execute(INSERT, values!["lost", &LARGE]).await.is_err());
    assert!(matches!(store.execute(INSERT, values!["next", b"x"]).await, Err(Error::Unavailable(_))));
    assert!(!directory.join("toolgate.db").exists());
    store.close().await;
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_probe_finds_out_that_writes_fail_and_that_they_succeed_again() {
    let (brief, long) = (std::time::Duration::from_millis(5), std::time::Duration::from_secs(3600));
    let metrics = crate::telemetry::Metrics::default();
    let has = |line: &str| metrics.encode().lines().any(|written| written == line);
    // Every few moments in the one, only when something fails in the other.
    for every in [brief, long] {
        let store = memory().await;
        store.health.report_to(metrics.store());
        let probed = store.clone();
        let probing = tokio::spawn(async move { probed.probe_every(every, brief).await });
        let until = async |reason: Option<&str>| {
            while store.outage() != reason {
                tokio::task::yield_now().await;
            }
        };
        for _ in 0..3 {
            store.change("PRAGMA query_only = ON", values![]).await.unwrap();
            if every == long {
                assert!(store.execute("DELETE FROM things", values![]).await.is_err());
            }
            until(Some("it is read-only")).await;
            assert!(has("toolgate_store_healthy 0"));
            store.change("PRAGMA query_only = OFF", values![]).await.unwrap();
            until(None).await;
            assert!(has("toolgate_store_healthy 1"));
        }
        probing.abort();
    }
    assert!(!has("toolgate_store_failures_total 0"), "{}", metrics.encode());
}

#[tokio::test]
async fn probes_do_not_make_the_database_grow() {
    let (store, directory) = in_file().await;
    let pages = async || {
        let row = store.change("PRAGMA page_count", values![]).await.unwrap().remove(0);
        row.int("page_count").unwrap()
    };
    for bytes in [0, 64 << 10] {
        store.probe(bytes).await.unwrap();
    }
    let before = pages().await;
    for number in 0..100 {
        store.probe(if number % 3 == 0 { 64 << 10 } else { 0 }).await.unwrap();
    }
    assert_eq!(pages().await, before);
    assert_eq!(store.rows("SELECT name FROM store_probes", values![]).await.unwrap().len(), 1);
    store.close().await;
    std::fs::remove_dir_all(directory).unwrap();
}
