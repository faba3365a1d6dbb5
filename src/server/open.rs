//! Opening what is kept: the data directory, the store, the keyring that belongs to it.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Error;
use crate::config::{Environment, Settings};
use crate::crypto::Keyring;
use crate::keys::{self, Pepper, Source};
use crate::store::{self, DirectoryLock, Location, LockError, Store};

/// The database's name in the data directory.
pub const DATABASE_FILE: &str = "toolgate.db";

/// What is kept, open and ready to use.
pub struct Opened {
    pub store: Store,
    pub keyring: Keyring,
    /// Where the keyring is.
    pub source: Source,
    /// Where the store is.
    pub location: Location,
    /// Makes the namespaces of pass-through callers.
    pub pepper: Pepper,
    /// Of a database in a file that this process serves from.
    pub lock: Option<DirectoryLock>,
}

/// What to do when there is no keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutKeys {
    /// Make one, unless the database was sealed with one that is lost.
    Make,
    Refuse,
}

/// Opens the store, brings its tables up to date and checks that the keyring belongs to it. Without a place for files,
/// local mode keeps everything in memory; elsewhere that is an error.
///
/// # Errors
/// See [`Error`]. With a keyring that does not belong to the database, nothing was written to it.
pub async fn open(
    settings: &Settings,
    environment: &Environment,
    without_keys: WithoutKeys,
) -> Result<Opened, Error> {
    open_with(settings, environment, without_keys, None).await
}

/// As [`open`], for the process that serves at `address`. A database in a file has one at a time.
///
/// # Errors
/// See [`open`]; [`Error::DirectoryInUse`].
pub(super) async fn open_to_serve(
    settings: &Settings,
    environment: &Environment,
    without_keys: WithoutKeys,
    address: SocketAddr,
) -> Result<Opened, Error> {
    open_with(settings, environment, without_keys, Some(address)).await
}

async fn open_with(
    settings: &Settings,
    environment: &Environment,
    without_keys: WithoutKeys,
    address: Option<SocketAddr>,
) -> Result<Opened, Error> {
    let source = Source::of(settings, environment)?;
    let location = location(settings, environment)?;
    let is_lasting = !matches!(location, Location::Memory);
    if is_lasting && matches!(source, Source::Memory) {
        return Err(keys::Error::Nowhere.into());
    }
    // Before anything is made, so that a gateway that cannot start leaves nothing behind.
    let found = match source.read() {
        Ok(keys) => Some(keys),
        Err(keys::Error::Missing(_) | keys::Error::Nowhere) if without_keys == WithoutKeys::Make => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(folder) = settings.data_directory(environment)
        && (matches!(location, Location::File(_)) || found.is_none())
    {
        make_private_folder(&folder)?;
    }
    if let Location::File(path) = &location {
        make_private_file(path)?;
    }
    let lock = match (&location, address) {
        (Location::File(path), Some(address)) => Some(lock(path, Some(address)).await?),
        _ => None,
    };
    let store = Store::open(&location).await?;
    let keys = match found {
        Some(keys) => keys,
        None if keys::is_sealed(&store).await => {
            return Err(source.read().err().unwrap_or(keys::Error::Nowhere).into());
        }
        None => source.read_or_create()?,
    };
    let present = source.clone();
    let keyring = Keyring::with_source(keys, move || present.read().ok());
    keys::check_before_migrating(&store, &keyring).await?;
    store.migrate().await?;
    let pepper = keys::unlock(&store, &keyring).await?;
    Ok(Opened { store, keyring, source, location, pepper, lock })
}

/// Locks the directory of a database in a file, for a process that serves at `address` or for a command.
///
/// # Errors
/// [`Error::DirectoryInUse`], [`Error::Data`].
pub async fn lock(database: &Path, address: Option<SocketAddr>) -> Result<DirectoryLock, Error> {
    let folder = database.parent().unwrap_or(database).to_owned();
    DirectoryLock::acquire(database, address).await.map_err(|error| match error {
        LockError::Held(holder) => Error::DirectoryInUse { path: folder, holder },
        LockError::Failed(error) => cannot_write(folder.join(store::LOCK_FILE), &error),
    })
}

fn location(settings: &Settings, environment: &Environment) -> Result<Location, Error> {
    if let Some(url) = &settings.store.url {
        return Ok(Location::Postgres(url.clone()));
    }
    match settings.data_directory(environment) {
        Some(folder) => Ok(Location::File(folder.join(DATABASE_FILE))),
        None if settings.is_local() => Ok(Location::Memory),
        None => Err(Error::NoDataDirectory),
    }
}

fn make_private_folder(folder: &Path) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| cannot_write(folder.to_owned(), &error))
}

/// Makes the file before the database does, which would let others read it.
fn make_private_file(path: &Path) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(|_| ()).map_err(|error| cannot_write(path.to_owned(), &error))
}

fn cannot_write(path: PathBuf, error: &std::io::Error) -> Error {
    Error::Data { path, reason: error.to_string() }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Error::Store(error)
    }
}

impl From<keys::Error> for Error {
    fn from(error: keys::Error) -> Self {
        match error {
            keys::Error::Store(error) => Error::Store(error),
            other => Error::Keys(other),
        }
    }
}
