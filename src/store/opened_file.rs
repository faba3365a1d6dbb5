//! Whether the database's file is still the one that was opened: SQLite goes on writing into a file that was deleted, and
//! everything that it takes then is gone with the process.

use std::path::{Path, PathBuf};

/// A database file as it was opened.
#[derive(Debug)]
pub(super) struct OpenedFile {
    path: PathBuf,
    inode: Option<u64>,
}

impl OpenedFile {
    /// The file at this path now.
    pub fn at(path: &Path) -> Self {
        OpenedFile { path: path.to_owned(), inode: inode_of(path) }
    }

    /// Whether another file stands at its path, or none.
    pub fn was_replaced(&self) -> bool {
        self.inode.is_some() && inode_of(&self.path) != self.inode
    }
}

#[cfg(unix)]
fn inode_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| std::os::unix::fs::MetadataExt::ino(&metadata))
}

#[cfg(not(unix))]
fn inode_of(_: &Path) -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_deleted_or_replaced_is_told_from_one_that_was_moved_back() {
        let folder = std::env::temp_dir().join(crate::id::random_id("toolgate-store-"));
        std::fs::create_dir(&folder).unwrap();
        let (path, aside) = (folder.join("a.db"), folder.join("b.db"));
        std::fs::write(&path, "one").unwrap();
        let opened = OpenedFile::at(&path);
        assert!(!opened.was_replaced());
        std::fs::rename(&path, &aside).unwrap();
        assert!(opened.was_replaced());
        std::fs::write(&path, "two").unwrap();
        assert!(opened.was_replaced());
        std::fs::rename(&aside, &path).unwrap();
        assert!(!opened.was_replaced());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
