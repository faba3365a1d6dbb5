//! Where one gateway, or several that work as one, keep what they keep.

use std::path::{Path, PathBuf};

use toolgate::config::{Secret, Settings};
use toolgate::id::random_id;
use toolgate::keys::{KEYRING_FILE, Source};
use toolgate::store::{Location, Store};

const STORE_URL: &str = "TOOLGATE__STORE__URL";

/// A directory of its own with a keyring; and a schema of its own in the PostgreSQL that `TOOLGATE_TEST_POSTGRES` names,
/// when it names one. Removed when dropped, the schema apart: that database is thrown away.
pub struct Place {
    folder: PathBuf,
    database: Option<Secret>,
}

impl Place {
    pub async fn new() -> Place {
        Place::with(fresh_schema().await)
    }

    fn with(database: Option<Secret>) -> Place {
        let folder = std::env::temp_dir().join(random_id("toolgate-it-"));
        std::fs::create_dir(&folder).expect("the directory for temporary files can be written");
        Source::File(folder.join(KEYRING_FILE)).read_or_create().expect("a keyring can be made");
        Place { folder, database }
    }

    /// As [`Place::new`], in a PostgreSQL that is nobody else's.
    pub fn at(database: Secret) -> Place {
        Place::with(Some(database))
    }

    /// The same place, for who looks for tables and functions in these schemas, one behind the other.
    pub fn variables_with_path(&self, path: &str) -> Vec<(String, String)> {
        let url = self.database.as_ref().expect("it is in PostgreSQL").expose();
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{separator}options[search_path]={path}");
        let mut variables = self.variables();
        variables.retain(|(name, _)| name != STORE_URL);
        variables.push((STORE_URL.to_owned(), url));
        variables
    }

    /// Whether this is about PostgreSQL.
    pub fn is_shared(&self) -> bool {
        self.database.is_some()
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a gateway keep everything here.
    pub fn give_to(&self, settings: &mut Settings) {
        settings.data = Some(self.folder.clone());
        settings.store.url = self.database.clone();
    }

    /// The variables that make the program keep everything here.
    pub fn variables(&self) -> Vec<(String, String)> {
        let mut variables = vec![("TOOLGATE_DATA".to_owned(), self.folder.display().to_string())];
        if let Some(url) = &self.database {
            variables.push((STORE_URL.to_owned(), url.expose().to_owned()));
        }
        variables
    }

    /// What a program said that serves at `address`.
    pub fn log_of(&self, address: std::net::SocketAddr) -> String {
        std::fs::read_to_string(self.folder.join(format!("{}.log", address.port()))).unwrap_or_default()
    }

    /// The database itself, to look into and to break.
    pub async fn store(&self) -> Store {
        let location = match &self.database {
            Some(url) => Location::Postgres(url.clone()),
            None => Location::File(self.folder.join(toolgate::server::DATABASE_FILE)),
        };
        Store::open(&location).await.expect("the database is there")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left behind is in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[expect(clippy::disallowed_methods, reason = "tests are told by the environment which database to use")]
async fn fresh_schema() -> Option<Secret> {
    let url = std::env::var("TOOLGATE_TEST_POSTGRES").ok().filter(|url| !url.is_empty())?;
    let schema = random_id("it_");
    let statement: &'static str = format!("CREATE SCHEMA {schema}").leak();
    let store =
        Store::open(&Location::Postgres(Secret::new(url.clone()))).await.expect("PostgreSQL is there");
    store.execute(statement, Vec::new()).await.expect("a schema can be made");
    store.close().await;
    let separator = if url.contains('?') { '&' } else { '?' };
    // The name of whoever is connected, so that a test finds its own gateways among those of other tests.
    Some(Secret::new(format!("{url}{separator}application_name={schema}&options[search_path]={schema}")))
}

/// Whether the tests are about PostgreSQL.
#[expect(clippy::disallowed_methods, reason = "tests are told by the environment which database to use")]
pub fn on_postgres() -> bool {
    std::env::var("TOOLGATE_TEST_POSTGRES").is_ok_and(|url| !url.is_empty())
}
