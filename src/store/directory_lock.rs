//! One process at a time serves from a SQLite database, and a file beside the database says what it last wrote there.
//! A database that is behind that file, or that comes without it, is an older copy.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::clean_json;

/// The lock file's name in the data directory.
pub const LOCK_FILE: &str = "toolgate.lock";
/// A process that is about to end is waited for this long.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of the file. It is always written whole and in place, so that a full disk does not keep it from being written.
const SIZE: usize = 512;

/// The right to serve from the database beside it. It ends with the process, however that ends.
pub struct DirectoryLock {
    file: Mutex<File>,
    path: PathBuf,
    holder: Holder,
    identity: FileIdentity,
    last_write: Option<LastWrite>,
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process serves from it.
    #[error("{0}")]
    Held(Holder),
    #[error("{0}")]
    Failed(std::io::Error),
}

/// The process that serves from a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pid: u32,
    /// Where it listens; `None` for a command.
    address: Option<SocketAddr>,
}

/// What the process that held the lock last had written when it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWrite {
    pub instance: String,
    pub writes: i64,
    /// The file was copied since, and with it perhaps the whole directory.
    #[serde(skip)]
    pub is_copy: bool,
}

/// What tells a file from its copies. It stays when the file is renamed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct FileIdentity {
    inode: Option<u64>,
    created_nanoseconds: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    holder: Holder,
    identity: FileIdentity,
    last_write: Option<LastWrite>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.pid, self.address) {
            (0, _) => write!(out, "another process"),
            (pid, Some(address)) => write!(out, "the gateway at {address} (process {pid})"),
            (pid, None) => write!(out, "process {pid}"),
        }
    }
}

impl DirectoryLock {
    /// Locks the directory of the database at `database` for the process that listens at `address`.
    ///
    /// # Errors
    /// See [`LockError`].
    pub async fn acquire(database: &Path, address: Option<SocketAddr>) -> Result<Self, LockError> {
        let path = database.with_file_name(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(LockError::Failed)?;
        let started = tokio::time::Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if started.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let holder = read(&mut file).map(|contents| contents.holder).unwrap_or_default();
                    return Err(LockError::Held(holder));
                }
                Err(TryLockError::Error(error)) => return Err(LockError::Failed(error)),
            }
        }
        let identity = FileIdentity::of(&file).map_err(LockError::Failed)?;
        let last_write = read(&mut file).and_then(|contents| {
            let is_copy = identity.is_copy_of(contents.identity);
            contents.last_write.map(|last_write| LastWrite { is_copy, ..last_write })
        });
        let holder = Holder { pid: std::process::id(), address };
        let lock = DirectoryLock { file: Mutex::new(file), path, holder, identity, last_write };
        // Whoever is refused learns who has it. The rest stays until this process has registered itself.
        let found = lock.last_write.clone();
        lock.write(found.filter(|found| !found.is_copy)).map_err(LockError::Failed)?;
        Ok(lock)
    }

    /// What its last holder had written; `None` when the file is new.
    pub fn last_write(&self) -> Option<&LastWrite> {
        self.last_write.as_ref()
    }

    /// Notes how far this process has written. It must be in the database already.
    pub fn record(&self, instance: &str, writes: i64) {
        let last_write = LastWrite { instance: instance.to_owned(), writes, is_copy: false };
        if let Err(error) = self.write(Some(last_write)) {
            tracing::debug!(%error, path = %self.path.display(), "the lock file could not be written");
        }
    }

    fn write(&self, last_write: Option<LastWrite>) -> std::io::Result<()> {
        let contents = Contents { holder: self.holder.clone(), identity: self.identity, last_write };
        let mut text = serde_json::to_vec(&contents)?;
        text.resize(SIZE.max(text.len() + 1) - 1, b' ');
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.rewind()?;
        file.write_all(&text)
    }
}

fn read(file: &mut File) -> Option<Contents> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(4096).read_to_end(&mut text).ok()?;
    clean_json::from_slice(&text).ok()
}

impl FileIdentity {
    fn of(file: &File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        #[cfg(unix)]
        let inode = Some(std::os::unix::fs::MetadataExt::ino(&metadata));
        #[cfg(not(unix))]
        let inode = None;
        let created = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let created_nanoseconds = created.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Ok(FileIdentity { inode, created_nanoseconds })
    }

    /// Some file systems number files anew when they are mounted, so all that is known of both has to differ.
    fn is_copy_of(self, other: FileIdentity) -> bool {
        let differs = |one: Option<u64>, other: Option<u64>| one.zip(other).map(|(one, other)| one != other);
        let both =
            [differs(self.inode, other.inode), differs(self.created_nanoseconds, other.created_nanoseconds)];
        both.contains(&Some(true)) && !both.contains(&Some(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_file_tells_its_copies_and_older_states_apart() {
        let folder = std::env::temp_dir().join(crate::id::random_id("toolgate-lock-"));
        std::fs::create_dir(&folder).unwrap();
        let database = folder.join("toolgate.db");
        let address = SocketAddr::from(([127, 0, 0, 1], 8787));
        let lock = DirectoryLock::acquire(&database, Some(address)).await.unwrap();
        assert_eq!(lock.last_write(), None);
        lock.record("gw_long_ago", 1234);
        lock.record("gw_a", 7);
        let refused = DirectoryLock::acquire(&database, None).await;
        let Err(LockError::Held(holder)) = refused else { panic!("two hold it") };
        assert_eq!(holder.to_string(), format!("the gateway at {address} (process {})", std::process::id()));
        drop(lock);
        let lock = DirectoryLock::acquire(&database, None).await.unwrap();
        let found = lock.last_write().unwrap().clone();
        assert_eq!((found.instance.as_str(), found.writes, found.is_copy), ("gw_a", 7, false));
        drop(lock);
        let elsewhere = folder.join("copy");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::copy(folder.join(LOCK_FILE), elsewhere.join(LOCK_FILE)).unwrap();
        let copy = DirectoryLock::acquire(&elsewhere.join("toolgate.db"), None).await.unwrap();
        assert!(copy.last_write().unwrap().is_copy);
        drop(copy);
        let moved = folder.join("moved");
        std::fs::create_dir(&moved).unwrap();
        std::fs::rename(folder.join(LOCK_FILE), moved.join(LOCK_FILE)).unwrap();
        let lock = DirectoryLock::acquire(&moved.join("toolgate.db"), None).await.unwrap();
        assert!(!lock.last_write().unwrap().is_copy);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
