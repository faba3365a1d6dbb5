//! Projects: the applications that users belong to.

use super::meta::{CALLERS, raise_revision};
use super::{Error, FlowRow, Row, Store, Transaction, values};

/// An application that calls with keys of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub name: String,
    pub proof: ProjectProof,
    /// Where the application proves who a person is; with [`ProjectProof::App`].
    pub verifier_url: Option<String>,
    pub webhook_url: Option<String>,
    /// The key that signs webhooks, sealed.
    pub sealed_webhook_secret: Option<Vec<u8>>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

/// How a project's users prove who they are before a login of theirs is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectProof {
    /// They sign in to the gateway.
    Gateway,
    /// The application vouches for them.
    App,
}

impl ProjectProof {
    /// The word for it in the database, on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            ProjectProof::Gateway => "gateway",
            ProjectProof::App => "app",
        }
    }
}

/// What became of a project that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletedProject {
    Deleted,
    NotFound,
    /// So many connections of its users are still in use, and nothing was changed.
    HasConnections(i64),
}

impl Project {
    /// The namespace of its users, as [`crate::store`]'s other tables call the project.
    pub fn namespace(name: &str) -> String {
        format!("project:{name}")
    }

    fn of(row: &Row) -> Result<Self, Error> {
        let proof = match row.text("proof")?.as_str() {
            "gateway" => ProjectProof::Gateway,
            "app" => ProjectProof::App,
            _ => return Err(Error::Unexpected("a project with an unknown `proof`".to_owned())),
        };
        Ok(Project {
            name: row.text("name")?,
            proof,
            verifier_url: row.opt_text("verifier_url")?,
            webhook_url: row.opt_text("webhook_url")?,
            sealed_webhook_secret: row.opt_bytes("sealed_webhook_secret")?,
            created_at: row.int("created_at")?,
            updated_at: row.int("updated_at")?,
        })
    }
}

impl Transaction {
    /// Keeps the project behind a namespace from being deleted until this transaction has ended. False when it is gone,
    /// or another one since, than that which was made at `created_at`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn hold_project(&mut self, namespace: &str, created_at: i64) -> Result<bool, Error> {
        let name = namespace.strip_prefix("project:").unwrap_or_default();
        let held = self
            .execute(
                "UPDATE projects SET updated_at = updated_at WHERE name = $1 AND created_at = $2",
                values![name, created_at],
            )
            .await?;
        Ok(held == 1)
    }
}

impl Store {
    /// Stores a new project.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is one of this name.
    pub async fn create_project(&self, project: &Project) -> Result<(), Error> {
        let mut open = self.begin().await?;
        let sql = "INSERT INTO projects (name, proof, verifier_url, webhook_url, sealed_webhook_secret, created_at, updated_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let Project { name, proof, verifier_url, webhook_url, sealed_webhook_secret, created_at, updated_at } =
            project;
        let values = values![
            name,
            proof.as_str(),
            verifier_url.clone(),
            webhook_url.clone(),
            sealed_webhook_secret.clone(),
            *created_at,
            *updated_at
        ];
        open.execute(sql, values).await?;
        self.finish(open).await
    }

    /// Changes a project; says whether there is one of this name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update_project(&self, project: &Project) -> Result<bool, Error> {
        let mut open = self.begin().await?;
        let sql = "UPDATE projects SET proof = $2, verifier_url = $3, webhook_url = $4, sealed_webhook_secret = $5, \
                   updated_at = $6 WHERE name = $1";
        let Project { name, proof, verifier_url, webhook_url, sealed_webhook_secret, updated_at, .. } =
            project;
        let values = values![
            name,
            proof.as_str(),
            verifier_url.clone(),
            webhook_url.clone(),
            sealed_webhook_secret.clone(),
            *updated_at
        ];
        let changed = open.execute(sql, values).await?;
        self.finish(open).await?;
        Ok(changed > 0)
    }

    /// The project of this name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_project(&self, name: &str) -> Result<Option<Project>, Error> {
        let row = self.row("SELECT * FROM projects WHERE name = $1", values![name]).await?;
        row.as_ref().map(Project::of).transpose()
    }

    /// Whether there is any project.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn has_projects(&self) -> Result<bool, Error> {
        Ok(self.row("SELECT name FROM projects LIMIT 1", values![]).await?.is_some())
    }

    /// All projects, by name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_projects(&self) -> Result<Vec<Project>, Error> {
        let rows = self.rows("SELECT * FROM projects ORDER BY name", values![]).await?;
        rows.iter().map(Project::of).collect()
    }

    /// Deletes a project with its keys, unless its users have connections in use: those must be revoked first, at their
    /// providers too. What is left of ended ones goes with it, so that a later project of the same name starts empty.
    /// `revoke` is given every flow with tokens that wait for the person's word, before it goes.
    ///
    /// # Errors
    /// See [`Error`], and what `revoke` gives; then nothing has changed.
    pub async fn delete_project<E: From<Error>>(
        &self,
        name: &str,
        revoke: impl AsyncFn(&mut Transaction, &FlowRow) -> Result<(), E>,
    ) -> Result<DeletedProject, E> {
        let namespace = Project::namespace(name);
        let mut open = self.begin().await?;
        // Before anything else, as everyone who writes events does.
        open.hold_all_instances().await?;
        // Nobody begins a login in it from here on.
        open.execute("UPDATE projects SET updated_at = updated_at WHERE name = $1", values![name]).await?;
        // First, so that a login that is being stored is waited for and counted, and none can be stored any more.
        open.execute("UPDATE flows SET changed_at = changed_at WHERE project = $1", values![&namespace])
            .await?;
        let held = "SELECT * FROM flows WHERE project = $1 AND sealed_tokens IS NOT NULL";
        for row in open.rows(held, values![&namespace]).await? {
            revoke(&mut open, &FlowRow::read(&row)?).await?;
        }
        for sql in ["DELETE FROM flow_batches WHERE project = $1", "DELETE FROM flows WHERE project = $1"] {
            open.execute(sql, values![&namespace]).await?;
        }
        let in_use = "SELECT COUNT(*) AS number FROM connections WHERE project = $1 AND status <> 'revoked'";
        let number = open.row(in_use, values![&namespace]).await?.map_or(Ok(0), |row| row.int("number"))?;
        if number > 0 {
            return Ok(DeletedProject::HasConnections(number));
        }
        for sql in [
            "DELETE FROM connection_secrets WHERE project = $1",
            "DELETE FROM connections WHERE project = $1",
            "DELETE FROM hidden_turns WHERE project = $1",
        ] {
            open.execute(sql, values![&namespace]).await?;
        }
        let runs = open.delete_runs_of(&namespace).await?;
        open.execute("DELETE FROM api_keys WHERE project = $1", values![name]).await?;
        let deleted = open.execute("DELETE FROM projects WHERE name = $1", values![name]).await?;
        self.finish(open).await?;
        if runs > 0 {
            self.wipe().await;
        }
        Ok(if deleted > 0 { DeletedProject::Deleted } else { DeletedProject::NotFound })
    }

    /// Commits a change of projects or API keys, and tells everyone.
    pub(super) async fn finish(&self, mut open: Transaction) -> Result<(), Error> {
        raise_revision(&mut open, CALLERS).await?;
        open.commit().await?;
        self.notify(CALLERS).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ApiKey, Location};

    fn project(name: &str) -> Project {
        Project {
            name: name.to_owned(),
            proof: ProjectProof::App,
            verifier_url: Some("https://app.example/verify".to_owned()),
            webhook_url: None,
            sealed_webhook_secret: Some(vec![1, 0, 2]),
            created_at: 5,
            updated_at: 6,
        }
    }

    async fn nothing_held(_: &mut Transaction, _: &FlowRow) -> Result<(), Error> {
        unreachable!("there are no logins")
    }

    async fn store() -> Store {
        let store = Store::open(&Location::Memory).await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    #[tokio::test]
    async fn projects_are_kept_changed_and_deleted_and_every_change_raises_the_revision() {
        let store = store().await;
        assert_eq!(store.find_revision(CALLERS).await.unwrap(), 0);
        assert!(!store.has_projects().await.unwrap());
        store.create_project(&project("shop")).await.unwrap();
        assert!(store.has_projects().await.unwrap());
        assert!(matches!(store.create_project(&project("shop")).await, Err(Error::Exists)));
        assert_eq!(store.find_project("shop").await.unwrap(), Some(project("shop")));
        let changed =
            Project { proof: ProjectProof::Gateway, verifier_url: None, updated_at: 7, ..project("shop") };
        assert!(store.update_project(&changed).await.unwrap());
        assert!(!store.update_project(&project("absent")).await.unwrap());
        assert_eq!(store.list_projects().await.unwrap(), [changed]);
        assert_eq!(store.delete_project("shop", nothing_held).await.unwrap(), DeletedProject::Deleted);
        assert_eq!(store.delete_project("shop", nothing_held).await.unwrap(), DeletedProject::NotFound);
        assert!(store.find_revision(CALLERS).await.unwrap() >= 3);
    }

    #[tokio::test]
    async fn keys_belong_to_a_project_and_end_with_it() {
        let store = store().await;
        let key = ApiKey {
            project: "shop".to_owned(),
            id: "ak_1".to_owned(),
            name: "web".to_owned(),
            hash: vec![3; 32],
            ending: "wxyz".to_owned(),
            scopes: "completions".to_owned(),
            requests_per_minute: Some(9),
            created_at: 1,
            revoked_at: None,
        };
        assert!(store.create_api_key(&key).await.is_err(), "there is no such project");
        store.create_project(&project("shop")).await.unwrap();
        store.create_api_key(&key).await.unwrap();
        let twin = ApiKey { id: "ak_2".to_owned(), ..key.clone() };
        assert!(matches!(store.create_api_key(&twin).await, Err(Error::Exists)), "the same key twice");
        assert_eq!(store.list_api_keys_in_use().await.unwrap(), std::slice::from_ref(&key));
        assert!(store.revoke_api_key("ak_1", 4).await.unwrap());
        assert!(!store.revoke_api_key("ak_1", 5).await.unwrap(), "it is revoked once");
        assert!(store.list_api_keys_in_use().await.unwrap().is_empty());
        let revoked = ApiKey { revoked_at: Some(4), ..key };
        assert_eq!(store.list_api_keys(Some("shop")).await.unwrap(), [revoked]);
        assert!(store.list_api_keys(Some("other")).await.unwrap().is_empty());
        store.delete_project("shop", nothing_held).await.unwrap();
        assert!(store.list_api_keys(None).await.unwrap().is_empty());
    }
}
