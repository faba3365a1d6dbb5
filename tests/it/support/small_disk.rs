//! A disk that can be filled, and emptied again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use toolgate::id::random_id;

/// A file system in memory of a few megabytes. Unmounted and removed when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one, which takes root; `None`, with the reason on stderr, where that is not possible.
    #[expect(clippy::print_stderr, reason = "what is skipped is named, with its reason")]
    pub fn mount(mebibytes: usize) -> Option<SmallDisk> {
        let folder = std::env::temp_dir().join(random_id("toolgate-it-disk-"));
        std::fs::create_dir(&folder).expect("the directory for temporary files can be written");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=700"), "tmpfs"]).arg(&folder);
        let done = command.stdin(Stdio::null()).output();
        if done.as_ref().is_ok_and(|done| done.status.success()) {
            return Some(SmallDisk(folder));
        }
        let why = done.map_or_else(
            |error| error.to_string(),
            |done| String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        );
        eprintln!("SKIP full disk: no small disk can be mounted here: {why}");
        let _ = std::fs::remove_dir(&folder);
        None
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Gives it to the user as whom PostgreSQL runs.
    pub fn give_to_postgres(&self) {
        let done = Command::new("chown").arg("postgres").arg(&self.0).status();
        assert!(done.expect("there is a `chown`").success());
    }

    /// Leaves no room.
    pub fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a file can be made");
        for size in [1 << 20, 4096, 1] {
            while ballast.write_all(&vec![0_u8; size]).is_ok() {}
        }
    }

    /// Makes room again.
    pub fn empty(&self) {
        std::fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there is about to end. What stays is in a directory for temporary files.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}
