//! A small file system for the gateways' data, which can be filled and emptied; and the way to PostgreSQL, which can be
//! closed.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Room for the data of a soak, in MiB.
const DISK_MIB: usize = 512;

/// A file system in memory, where this machine lets us make one.
pub struct Disk {
    folder: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// Makes it at `folder`; where that is not allowed, an ordinary folder.
    pub fn mount(folder: &Path) -> Disk {
        // If it cannot be made, the gateway says so.
        let _ = fs::create_dir_all(folder);
        let size = format!("size={DISK_MIB}m,mode=0700");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .stderr(Stdio::null())
            .status();
        Disk { folder: folder.to_owned(), is_mounted: done.is_ok_and(|done| done.success()) }
    }

    /// Whether it can be filled without filling the machine's own disk.
    pub fn is_mounted(&self) -> bool {
        self.is_mounted
    }

    /// Takes all room that is left.
    pub fn fill(&self) {
        let Ok(mut file) = fs::File::create(self.folder.join("ballast")) else { return };
        for bytes in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; bytes]).is_ok() {}
        }
    }

    /// Gives it back.
    pub fn empty(&self) {
        // It is there: we made it.
        let _ = fs::remove_file(self.folder.join("ballast"));
    }

    /// Takes the file system away.
    pub fn unmount(&mut self) {
        if std::mem::take(&mut self.is_mounted) {
            // Lazily: a process that ends late may have a file open.
            let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// A port that leads to PostgreSQL for as long as it is open.
pub struct DatabaseGate {
    pub port: u16,
    is_open: Rc<Cell<bool>>,
    under_way: Rc<RefCell<Vec<JoinHandle<()>>>>,
}

impl DatabaseGate {
    /// Leads to the server at `target`.
    pub async fn start(target: SocketAddr) -> Result<DatabaseGate, String> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let gate = DatabaseGate { port, is_open: Rc::new(Cell::new(true)), under_way: Rc::default() };
        let (is_open, under_way) = (Rc::clone(&gate.is_open), Rc::clone(&gate.under_way));
        tokio::task::spawn_local(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if !is_open.get() {
                    continue;
                }
                let copying = tokio::task::spawn_local(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    // Either side may break it off.
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
                let mut under_way = under_way.borrow_mut();
                under_way.retain(|one| !one.is_finished());
                under_way.push(copying);
            }
        });
        Ok(gate)
    }

    /// Breaks every connection off, and takes no new one.
    pub fn close(&self) {
        self.is_open.set(false);
        self.under_way.borrow_mut().drain(..).for_each(|one| one.abort());
    }

    /// Leads to the database again.
    pub fn open(&self) {
        self.is_open.set(true);
    }
}
