//! The test stand: the peers and every proxy, started on free ports, and the ways a request can take.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::Method;

use crate::load::Connection;
use crate::process::{Cores, Process};

/// One way from the load generator to the provider.
pub struct Way {
    pub name: &'static str,
    pub port: u16,
    pub model: &'static str,
    /// `None` for the direct way.
    pub process: Option<usize>,
}

/// Everything that runs during a measurement.
pub struct Stand {
    folder: PathBuf,
    pub provider: u16,
    pub mcp: u16,
    pub protected: u16,
    toolgate: Option<PathBuf>,
    /// The proxies, in the order in which they were started.
    pub proxies: Vec<Process>,
    pub ways: Vec<Way>,
    _peers: Vec<Process>,
}

impl Stand {
    /// Starts the peers, nginx if there is one, the bare proxy, and the gateway if it is given.
    pub async fn build(toolgate: Option<&Path>) -> Result<Self, String> {
        // Each its own: a stand that is taken down takes its folder with it.
        static BUILT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("toolgate-bench-{}-{}", std::process::id(), BUILT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let (provider, mcp, protected) = (free_port()?, free_port()?, free_port()?);
        let peers = vec![
            start_peer(&folder, &own, "provider", &["provider", &provider.to_string()])?,
            start_peer(&folder, &own, "mcp", &["mcp", &mcp.to_string()])?,
            start_peer(&folder, &own, "protected", &["protected", &protected.to_string()])?,
        ];
        let toolgate = toolgate.map(Path::to_owned);
        let mut stand = Stand {
            folder,
            provider,
            mcp,
            protected,
            toolgate,
            proxies: Vec::new(),
            ways: Vec::new(),
            _peers: peers,
        };
        ready(provider, "/").await?;
        ready(mcp, "/counts").await?;
        ready(protected, "/").await?;
        stand.ways.push(Way { name: "direct", port: provider, model: "mock-model", process: None });
        stand.start_nginx().await?;
        let port = free_port()?;
        let proxy = Process::start(
            "the bare proxy",
            Cores::Proxy.available(),
            &own,
            &["proxy", &port.to_string(), &provider.to_string()],
            &stand.folder.join("proxy.log"),
        )?;
        stand.add("bare proxy", port, "mock-model", proxy).await?;
        if stand.toolgate.is_some() {
            let (process, port) = stand.start_toolgate().await?;
            stand.add("toolgate", port, "mock-model", process).await?;
            let process = stand.ways.last().and_then(|way| way.process);
            stand.ways.push(Way {
                name: "toolgate, model rewritten",
                port,
                model: "mock/mock-model",
                process,
            });
        }
        Ok(stand)
    }

    /// The way of this name.
    pub fn way(&self, name: &str) -> Option<&Way> {
        self.ways.iter().find(|way| way.name == name)
    }

    /// Time on a processor of the way's proxy so far.
    pub fn cpu(&self, way: &Way) -> Duration {
        way.process.map_or(Duration::ZERO, |index| self.proxies[index].cpu())
    }

    async fn add(
        &mut self,
        name: &'static str,
        port: u16,
        model: &'static str,
        process: Process,
    ) -> Result<(), String> {
        self.proxies.push(process);
        self.ways.push(Way { name, port, model, process: Some(self.proxies.len() - 1) });
        ready(port, "/healthz").await
    }

    async fn start_nginx(&mut self) -> Result<(), String> {
        let Some(program) = nginx() else {
            println!("note: nginx is not installed; measuring without the reference");
            return Ok(());
        };
        let port = free_port()?;
        let folder = self.folder.join("nginx");
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let config = folder.join("nginx.conf");
        fs::write(&config, nginx_config(&folder, port, self.provider)).map_err(|error| error.to_string())?;
        let arguments = ["-p", &folder.to_string_lossy(), "-c", &config.to_string_lossy(), "-e", "stderr"];
        let log = self.folder.join("nginx.log");
        let process = Process::start("nginx", Cores::Proxy.available(), &program, &arguments, &log)?;
        self.add("nginx", port, "mock-model", process).await
    }

    /// Starts one more gateway; gives it with its port when it is healthy.
    pub async fn start_toolgate(&self) -> Result<(Process, u16), String> {
        self.start_toolgate_on("data", None).await
    }

    /// The same with data of its own, which it finds again when it is started again, and perhaps a PostgreSQL.
    pub async fn start_toolgate_on(
        &self,
        data: &str,
        postgres: Option<&str>,
    ) -> Result<(Process, u16), String> {
        let program = self.toolgate.as_ref().ok_or("no gateway was given")?;
        let port = free_port()?;
        let config = self.folder.join(format!("{data}.toml"));
        let store = postgres.map(|url| format!("[store]\nurl = \"{url}\"\n")).unwrap_or_default();
        let text = format!(
            "{store}[[providers]]\nname = \"mock\"\nbase_url = \"http://127.0.0.1:{}/v1\"\napi_key = \"x\"\nmodels = [\"mock-model\"]\n",
            self.provider
        );
        fs::write(&config, text).map_err(|error| error.to_string())?;
        let log = self.folder.join(format!("{data}.log"));
        let (listen, data) = (format!("127.0.0.1:{port}"), self.data(data));
        let arguments = [
            "serve",
            "--config",
            &config.to_string_lossy(),
            "--listen",
            &listen,
            "--data",
            &data.to_string_lossy(),
        ];
        let mut process = Process::start("toolgate", Cores::Proxy.available(), program, &arguments, &log)?;
        if let Err(problem) = ready(port, "/healthz").await {
            process.check(&log)?;
            return Err(problem);
        }
        Ok((process, port))
    }

    /// Where the gateway with this data keeps it.
    pub fn data(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.proxies.clear();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn start_peer(folder: &Path, own: &Path, name: &'static str, arguments: &[&str]) -> Result<Process, String> {
    Process::start(name, Cores::Peers.available(), own, arguments, &folder.join(format!("{name}.log")))
}

fn nginx() -> Option<PathBuf> {
    let paths = std::env::var("PATH").unwrap_or_default();
    paths
        .split(':')
        .chain(["/usr/sbin"])
        .map(|folder| Path::new(folder).join("nginx"))
        .find(|program| program.is_file())
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16, String> {
    let listener =
        TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// Waits until a `GET` is answered at all; the status does not matter to nginx and the peers.
async fn ready(port: u16, path: &str) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(mut connection) = Connection::open(port).await {
            let answer = connection.send(Method::GET, path, bytes::Bytes::new()).await;
            if answer.is_ok() || answer.is_err_and(|problem| problem.contains("status 4")) {
                return Ok(());
            }
        }
        if Instant::now() > deadline {
            return Err(format!("nothing healthy on port {port} after 10 s"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn nginx_config(folder: &Path, port: u16, provider: u16) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr error;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 64m;
  client_body_buffer_size 2m;
  keepalive_requests 1000000;
  upstream provider {{ server 127.0.0.1:{provider}; keepalive 256; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering off;
      proxy_read_timeout 120s;
    }}
  }}
}}
"
    )
}
