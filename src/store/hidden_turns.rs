//! Turns that callers did not see. They belong to a person's conversation: sealed, kept for a while, and gone with their
//! run and their project.

use super::{Error, Row, Store, Transaction, values};

/// Most turns that one question finds. There is one text for every number of them.
pub const MOST_FOUND: usize = 64;

/// The turns of one run, under one thing that its caller saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenTurnsRow {
    pub project: String,
    /// Hex of the digest of whose they are and what was seen.
    pub id: String,
    /// Empty when the request named nobody.
    pub user: String,
    pub run: Option<String>,
    pub sealed_messages: Vec<u8>,
    /// Milliseconds since 1970.
    pub expires_at: i64,
}

impl Store {
    /// Stores all of `rows`, or none. What stands there under the same id is replaced.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn keep_hidden_turns(&self, mut rows: Vec<HiddenTurnsRow>) -> Result<(), Error> {
        let sql = "INSERT INTO hidden_turns (project, id, user_name, run, sealed_messages, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (project, id) DO UPDATE SET user_name = excluded.user_name, run = excluded.run,
                sealed_messages = excluded.sealed_messages, expires_at = excluded.expires_at";
        // In one order everywhere, so that two instances never wait for each other.
        rows.sort_by(|one, other| (&one.project, &one.id).cmp(&(&other.project, &other.id)));
        let mut open = self.begin().await?;
        for row in rows {
            let HiddenTurnsRow { project, id, user, run, sealed_messages, expires_at } = row;
            let values = values![project, id, user.into_bytes(), run, sealed_messages, expires_at];
            open.execute(sql, values).await?;
        }
        open.commit().await
    }

    /// Those of `ids` that are there at `now`. Of ids, the first [`MOST_FOUND`] count; of what they find, the newest that
    /// have at most `bytes` together.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_hidden_turns(
        &self,
        project: &str,
        ids: &[String],
        now: i64,
        bytes: i64,
    ) -> Result<Vec<HiddenTurnsRow>, Error> {
        let sql = "SELECT * FROM (
                SELECT project, id, user_name, run, sealed_messages, expires_at,
                    SUM(length(sealed_messages)) OVER (ORDER BY expires_at DESC, id) AS so_far
                FROM hidden_turns WHERE project = $1 AND expires_at > $2 AND id IN (
                    $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                    $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35,
                    $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, $51,
                    $52, $53, $54, $55, $56, $57, $58, $59, $60, $61, $62, $63, $64, $65, $66, $67)
            ) found WHERE so_far <= $3";
        let mut values = values![project, now, bytes];
        values.extend((0..MOST_FOUND).map(|place| ids.get(place).map_or("", String::as_str).into()));
        let rows = self.rows(sql, values).await?;
        rows.iter().map(HiddenTurnsRow::read).collect()
    }
}

impl HiddenTurnsRow {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(HiddenTurnsRow {
            project: row.text("project")?,
            id: row.text("id")?,
            user: row.wide_text("user_name")?,
            run: row.opt_text("run")?,
            sealed_messages: row.bytes("sealed_messages")?,
            expires_at: row.int("expires_at")?,
        })
    }
}

impl Transaction {
    /// Forgets the hidden turns of a run, and says how many there were.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_hidden_turns(&mut self, project: &str, run: &str) -> Result<u64, Error> {
        let sql = "DELETE FROM hidden_turns WHERE project = $1 AND run = $2";
        self.execute(sql, values![project, run]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{DeletedProject, FlowRow, Location, Old, Project, ProjectProof};

    fn row(project: &str, id: &str, run: &str, expires_at: i64) -> HiddenTurnsRow {
        HiddenTurnsRow {
            project: project.to_owned(),
            id: id.to_owned(),
            user: "an\0na".to_owned(),
            run: Some(run.to_owned()),
            sealed_messages: id.repeat(10).into_bytes(),
            expires_at,
        }
    }

    async fn store(rows: Vec<HiddenTurnsRow>) -> Store {
        let store = Store::open(&Location::Memory).await.unwrap();
        store.migrate().await.unwrap();
        store.keep_hidden_turns(rows).await.unwrap();
        store
    }

    async fn found(store: &Store, project: &str, ids: &[&str], now: i64, bytes: i64) -> Vec<String> {
        let ids: Vec<String> = ids.iter().map(|&id| id.to_owned()).collect();
        let found = store.find_hidden_turns(project, &ids, now, bytes).await.unwrap();
        let mut ids: Vec<String> = found.into_iter().map(|row| row.id).collect();
        ids.sort();
        ids
    }

    #[tokio::test]
    async fn only_what_is_asked_for_is_found_of_one_project_and_while_it_is_kept() {
        let rows = vec![row("p", "a", "r", 10), row("p", "b", "r", 20), row("q", "a", "r", 20)];
        let store = store(rows).await;
        assert_eq!(found(&store, "p", &["a", "b", "c"], 5, 1000).await, ["a", "b"]);
        assert_eq!(found(&store, "p", &["a"], 5, 1000).await, ["a"]);
        assert_eq!(found(&store, "p", &["a", "b"], 10, 1000).await, ["b"], "the other one is over");
        assert_eq!(found(&store, "q", &["a", "b"], 5, 1000).await, ["a"]);
        assert_eq!(found(&store, "p", &["a", "b"], 5, 15).await, ["b"], "the newer one, both are too much");
        let many: Vec<String> = (0..MOST_FOUND).map(|number| format!("x{number}")).collect();
        let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
        many[MOST_FOUND - 1] = "a";
        assert_eq!(found(&store, "p", &many, 5, 1000).await, ["a"], "the last place counts");
    }

    #[tokio::test]
    async fn the_same_id_again_replaces_what_was_kept() {
        let store = store(vec![row("p", "a", "r", 10)]).await;
        let again = HiddenTurnsRow { sealed_messages: vec![1], ..row("p", "a", "s", 30) };
        store.keep_hidden_turns(vec![again.clone()]).await.unwrap();
        let found = store.find_hidden_turns("p", &["a".to_owned()], 20, 100).await.unwrap();
        assert_eq!(found, [again]);
    }

    #[tokio::test]
    async fn they_go_with_their_run_and_when_they_are_over() {
        let rows = vec![row("p", "a", "r", 10), row("p", "b", "s", 20), row("q", "c", "r", 30)];
        let store = store(rows).await;
        let mut open = store.begin().await.unwrap();
        assert_eq!(open.delete_hidden_turns("p", "r").await.unwrap(), 1);
        open.commit().await.unwrap();
        assert_eq!(found(&store, "p", &["a", "b"], 0, 1000).await, ["b"]);
        assert_eq!(found(&store, "q", &["c"], 0, 1000).await, ["c"]);
        let over = row("p", "d", "r", 24);
        store.keep_hidden_turns(vec![over]).await.unwrap();
        store.forget(Old::HiddenTurns, 25).await.unwrap();
        assert!(found(&store, "p", &["b", "d"], 0, 1000).await.is_empty());
        assert_eq!(found(&store, "q", &["c"], 0, 1000).await, ["c"]);
    }

    #[tokio::test]
    async fn they_go_with_their_project() {
        let (shop, other) = (Project::namespace("shop"), Project::namespace("other"));
        let store = store(vec![row(&shop, "a", "r", 10), row(&other, "a", "r", 10)]).await;
        let project = Project {
            name: "shop".to_owned(),
            proof: ProjectProof::App,
            verifier_url: None,
            webhook_url: None,
            sealed_webhook_secret: None,
            created_at: 1,
            updated_at: 1,
        };
        store.create_project(&project).await.unwrap();
        let deleted =
            store.delete_project("shop", async |_: &mut Transaction, _: &FlowRow| Ok::<(), Error>(()));
        assert_eq!(deleted.await.unwrap(), DeletedProject::Deleted);
        assert!(found(&store, &shop, &["a"], 0, 1000).await.is_empty());
        assert_eq!(found(&store, &other, &["a"], 0, 1000).await, ["a"]);
    }
}
