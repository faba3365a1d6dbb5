//! Everything the process logs, down to the smallest detail of every library.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock};

use tracing_subscriber::fmt::MakeWriter;

/// The log of this process: where tests share one, it holds what the others caused, too. (A subscriber for one thread
/// would miss events whose place in the code another thread reached first.)
pub struct Logs(Written);

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Logs {
    /// Catches what is logged from now on.
    pub fn catch() -> Logs {
        static WRITTEN: OnceLock<Written> = OnceLock::new();
        let written = WRITTEN.get_or_init(|| {
            let written = Written::default();
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_ansi(false)
                .with_writer(written.clone())
                .init();
            written
        });
        Logs(written.clone())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap()).into_owned()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Written {
    type Writer = Written;

    fn make_writer(&self) -> Written {
        self.clone()
    }
}
