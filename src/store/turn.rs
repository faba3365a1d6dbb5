//! One process at a time, for the two things SQLite cannot do while another does them: turn a new file into a database
//! with a write-ahead log, and bring tables up to date.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use super::Error;

/// Waits until it is this process's turn with the database at `path`; it is until the file is dropped. The turn is kept
/// by a file beside the database, and ends with the process, however that ends.
pub(super) async fn wait_for(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let waited = tokio::task::spawn_blocking(move || {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path).and_then(|file| file.lock().map(|()| file))
    });
    match waited.await {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) => Err(Error::Unavailable(format!("its lock file: {error}"))),
        Err(_) => Err(Error::Unavailable("its lock file could not be waited for".to_owned())),
    }
}
