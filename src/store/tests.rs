//! The engine on a real file, and in memory.

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
