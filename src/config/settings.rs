//! The settings as the rest of the program sees them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

use super::{OauthClient, OauthQuirk, Secret};

/// All settings. Durations are whole seconds and sizes whole bytes, as their names say.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where files are kept; `None` is the platform's data directory.
    pub data: Option<PathBuf>,
    /// The address under which people and providers reach this gateway; `None` is `http://{listen}`.
    pub public_url: Option<String>,
    pub store: Store,
    pub keys: Keys,
    pub log: Log,
    pub limits: Limits,
    pub rate_limit: RateLimit,
    pub any_host: AnyHost,
    pub pass_through: PassThrough,
    pub egress: Egress,
    pub upstream: Upstream,
    pub mcp: Mcp,
    pub run: Run,
    pub connections: Connections,
    pub providers: Vec<Provider>,
    /// Other names for models: `fast = "openai/gpt-5.4-mini"`.
    pub aliases: BTreeMap<String, String>,
    pub api_keys: Vec<ApiKey>,
    /// Clients registered by hand at authorization servers.
    pub oauth_clients: Vec<OauthClient>,
    /// Oddities of authorization servers, besides the built-in ones.
    pub oauth_quirks: Vec<OauthQuirk>,
    /// Where people may sign in.
    pub sign_in: Vec<super::SignIn>,
    /// Whether people who signed in may ask models, with the operator's keys.
    pub sign_in_may_complete: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 8787)),
            data: None,
            public_url: None,
            store: Store::default(),
            keys: Keys::default(),
            log: Log::default(),
            limits: Limits::default(),
            rate_limit: RateLimit::default(),
            any_host: AnyHost::default(),
            pass_through: PassThrough::default(),
            egress: Egress::default(),
            upstream: Upstream::default(),
            mcp: Mcp::default(),
            run: Run::default(),
            connections: Connections::default(),
            providers: Vec::new(),
            aliases: BTreeMap::new(),
            api_keys: Vec::new(),
            oauth_clients: Vec::new(),
            oauth_quirks: Vec::new(),
            sign_in: Vec::new(),
            sign_in_may_complete: false,
        }
    }
}

impl Settings {
    /// Local mode: one person's machine. The listener is on loopback, no API key is configured, and no public
    /// address says that a proxy hands on requests from elsewhere.
    pub fn is_local(&self) -> bool {
        let stays_here = self.public_url.as_ref().is_none_or(|url| {
            url::Url::parse(url).is_ok_and(|url| url.host().is_some_and(super::validate::is_loopback))
        });
        self.listen.ip().is_loopback() && self.api_keys.is_empty() && stays_here
    }

    /// The address people and providers use, without a trailing slash: `public_url`, or where we listen.
    pub fn public_url(&self) -> String {
        match &self.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", self.listen),
        }
    }

    /// Where files are kept: `data`, or `toolgate` in the platform's data directory, or `None` when there is no home.
    pub fn data_directory(&self, environment: &super::Environment) -> Option<PathBuf> {
        if let Some(data) = &self.data {
            return Some(data.clone());
        }
        let home = |below: &str| environment.get("HOME").map(|home| PathBuf::from(home).join(below));
        let base = if cfg!(windows) {
            environment.get("LOCALAPPDATA").map(PathBuf::from)
        } else if cfg!(target_os = "macos") {
            home("Library/Application Support")
        } else {
            environment.get("XDG_DATA_HOME").map(PathBuf::from).or_else(|| home(".local/share"))
        };
        base.map(|base| base.join("toolgate"))
    }
}

/// Where connections, projects and API keys are kept.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// `postgres://…`; `None` is a SQLite file in the data directory. It may hold a password.
    pub url: Option<Secret>,
}

/// The keys that seal what is stored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    /// The keyring; `None` is `keyring.toml` in the data directory.
    pub file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// What one caller may send, and how long we wait for slow ones.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest request body.
    pub body_bytes: usize,
    /// What all runs and request bodies may hold at a time; 0 is no limit.
    pub memory_bytes: usize,
    /// How long a stop waits for open streams.
    pub shutdown_seconds: u64,
    /// How long a client may take to send its request head.
    pub header_seconds: u64,
    /// How long a request body may take, besides the time that its bytes are worth.
    pub body_seconds: u64,
    /// How many bytes of a body are worth one more second.
    pub body_bytes_per_second: u64,
    /// Bytes of bodies that callers with a provider's own key hold at a time from one address; 0 is no limit.
    pub body_bytes_per_address: usize,
    /// Connections that one network address may hold, unless it may be a proxy's; 0 is no limit.
    pub connections_per_address: usize,
    /// How long a client may leave what it is sent unread.
    pub write_seconds: u64,
    /// Answers that one principal has open at a time: a user of a project, a person, or an address of callers without a
    /// key of ours. A project, or a network, has twenty times as many, as of the next four. 0 is no limit.
    pub streams_per_principal: u64,
    /// Requests of one principal that wait for a login.
    pub waiting_per_principal: u64,
    /// Runs of one principal that are under way.
    pub runs_per_principal: u64,
    /// Runs of one principal that are stored.
    pub stored_runs_per_principal: u64,
    /// Bytes of those.
    pub stored_bytes_per_principal: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes: 32 << 20,
            memory_bytes: 256 << 20,
            shutdown_seconds: 30,
            header_seconds: 30,
            body_seconds: 30,
            body_bytes_per_second: 32 << 10,
            body_bytes_per_address: 64 << 20,
            connections_per_address: 1000,
            write_seconds: 60,
            streams_per_principal: 200,
            waiting_per_principal: 50,
            runs_per_principal: 100,
            stored_runs_per_principal: 10_000,
            stored_bytes_per_principal: 1 << 30,
        }
    }
}

/// Requests per minute of one caller outside local mode; an API key may have its own number.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// 0 turns the limit off.
    pub requests_per_minute: u32,
    /// Requests a minute that all callers with a provider's own key may send from one network address. A new key costs
    /// nothing, so each for itself they would not be limited. 0 turns the limit off.
    pub requests_per_minute_per_address: u32,
    /// Pages that one network address may ask for in a minute; a fifth of that through one login link, a tenth of that
    /// sign-ins. 0 turns the limit off.
    pub pages_per_minute: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit { requests_per_minute: 600, requests_per_minute_per_address: 1200, pages_per_minute: 300 }
    }
}

/// Which hosts `/{provider-host}/…` reaches.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnyHost {
    pub mode: AnyHostMode,
    /// Host names allowed when `mode = "listed"`.
    pub hosts: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnyHostMode {
    /// Every public host.
    #[default]
    Public,
    /// The hosts listed, and those of the configured providers.
    Listed,
    /// None.
    Off,
}

/// Callers that bring a provider's own key.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PassThrough {
    /// Whether they are let in; `None`: only while there is no project and no API key, here or in the store.
    pub enabled: Option<bool>,
    /// How many logins a minute all of them together may begin, and ten times as many as one network address may; 0 is
    /// no limit. A new key costs nothing, so each for itself they would not be limited at all.
    pub logins_per_minute: u32,
    /// Whether they get login links. Nobody vouches for them, and a link that names somebody else is phishing with the
    /// gateway's own address.
    pub logins: PassThroughLogins,
}

/// Whether callers with a provider's own key get login links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PassThroughLogins {
    /// They get the reason instead.
    #[default]
    Off,
    /// They get links for whomever they name.
    On,
}

impl Default for PassThrough {
    fn default() -> Self {
        PassThrough { enabled: None, logins_per_minute: 600, logins: PassThroughLogins::Off }
    }
}

/// Which addresses a request may make the gateway call.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Exceptions for intranet hosts.
    pub allow: Vec<EgressAllow>,
    pub connect_seconds: u64,
    /// Redirects followed, each checked anew.
    pub max_redirects: usize,
    /// Idle connections kept per host.
    pub idle_connections_per_host: usize,
}

impl Default for Egress {
    fn default() -> Self {
        Egress { allow: Vec::new(), connect_seconds: 10, max_redirects: 3, idle_connections_per_host: 128 }
    }
}

/// One exception: a destination is allowed when every given field matches.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressAllow {
    /// A host name, or `*.example.com` for every name below it.
    pub host: Option<String>,
    /// An address range in which all of the host's addresses must lie.
    pub cidr: Option<IpNet>,
    /// Ports; empty means any.
    pub ports: Vec<u16>,
}

/// How providers are called.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// Time to the first byte of a provider's answer.
    pub first_byte_seconds: u64,
    /// Silence after which a provider's stream is given up in a run.
    pub idle_seconds: u64,
    /// Silence after which a provider's answer that is relayed is given up; 0 is no limit.
    pub relay_idle_seconds: u64,
    /// Most retries of one request before its first byte.
    pub max_retries: u32,
    /// Part of all requests that may be retries, in percent.
    pub retry_budget_percent: u32,
    /// How long a provider's model list is kept.
    pub model_list_seconds: u64,
}

impl Default for Upstream {
    fn default() -> Self {
        Upstream {
            first_byte_seconds: 600,
            idle_seconds: 300,
            relay_idle_seconds: 0,
            max_retries: 2,
            retry_budget_percent: 20,
            model_list_seconds: 600,
        }
    }
}

/// How MCP servers are called.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mcp {
    /// Time for one server to tell its tools.
    pub list_seconds: u64,
    /// Time for one tool call; progress notifications start it anew.
    pub call_seconds: u64,
    /// Longest tool call, progress or not.
    pub call_max_seconds: u64,
    /// Time for a call that its server turns into a task. It counts anew after a restart.
    pub task_seconds: u64,
    /// Largest answer read from a server.
    pub response_bytes: usize,
    /// Largest part of one result that reaches the model and the reader; the rest is cut visibly.
    pub result_bytes: usize,
    /// How long a tool list is kept when the server does not say.
    pub tool_list_seconds: u64,
    /// Most tools of one server.
    pub max_tools_per_server: usize,
    /// Most servers of one request.
    pub max_servers: usize,
    /// Sessions with servers of the older protocol revisions that are kept open.
    pub max_sessions: u64,
    /// Idle time after which such a session is closed.
    pub session_idle_seconds: u64,
}

impl Default for Mcp {
    fn default() -> Self {
        Mcp {
            list_seconds: 20,
            call_seconds: 120,
            call_max_seconds: 1800,
            task_seconds: 3600,
            response_bytes: 16 << 20,
            result_bytes: 256 << 10,
            tool_list_seconds: 300,
            max_tools_per_server: 2000,
            max_servers: 64,
            max_sessions: 2000,
            session_idle_seconds: 300,
        }
    }
}

/// Bounds of one run.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// Turns when the request does not say.
    pub max_turns: u32,
    /// Most turns that a request may ask for.
    pub max_turns_cap: u32,
    pub max_tool_calls: u32,
    /// Bytes that one run takes over all its turns: conversation, calls, results, answer.
    pub max_bytes: usize,
    /// Wall clock of one run.
    pub max_seconds: u64,
    /// Silence on a stream after which a keep-alive comment is sent.
    pub keep_alive_seconds: u64,
    /// How long turns the caller did not see are remembered.
    pub hidden_turn_seconds: u64,
    /// Memory for those turns.
    pub hidden_turn_bytes: u64,
    /// Silence after which another instance takes over the runs of one.
    pub lease_seconds: u64,
}

impl Default for Run {
    fn default() -> Self {
        Run {
            max_turns: 10,
            max_turns_cap: 100,
            max_tool_calls: 100,
            max_bytes: 64 << 20,
            max_seconds: 3600,
            keep_alive_seconds: 15,
            hidden_turn_seconds: 24 * 3600,
            hidden_turn_bytes: 32 << 20,
            lease_seconds: 15,
        }
    }
}

/// Users' logins at servers.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connections {
    /// Whether keys with the scope `tokens` may read access tokens at `POST /v1/connections/tokens`.
    pub tokens_endpoint: bool,
    /// The address of the client metadata document; `None` is `/oauth/client-metadata.json` below an https `public_url`.
    pub client_metadata_url: Option<String>,
    /// How long entries of the audit log are kept.
    pub audit_days: u64,
    /// Renewals of a token that must fail, one after the other, before the user is offered a new login because the
    /// authorization server is busy or broken. One that it refuses is enough.
    pub renewal_failures: u32,
    /// And for how long they must have failed.
    pub renewal_failure_seconds: u32,
}

impl Default for Connections {
    fn default() -> Self {
        Connections {
            tokens_endpoint: false,
            client_metadata_url: None,
            audit_days: 400,
            renewal_failures: 3,
            renewal_failure_seconds: 300,
        }
    }
}

/// A model provider. Names of presets need nothing but a key; see `docs/reference/config.md`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provider {
    pub name: String,
    /// Everything before `/chat/completions`.
    pub base_url: Option<String>,
    pub api_key: Option<Secret>,
    /// The environment variable that holds the key.
    pub api_key_env: Option<String>,
    /// The file that holds the key.
    pub api_key_file: Option<PathBuf>,
    pub models: Option<Models>,
    pub quirks: Quirks,
}

/// Which models a provider has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "it must be `list` or a list of model names")]
pub enum Models {
    /// `"list"`: ask the provider.
    Ask(AskForModels),
    /// These.
    These(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum AskForModels {
    #[serde(rename = "list")]
    List,
}

/// How a provider departs from OpenAI's API. `None` keeps the preset's value.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quirks {
    /// Most tools it takes in one request.
    pub max_tools: Option<usize>,
    /// Refuses `stream_options`.
    pub no_stream_options: Option<bool>,
    /// Refuses reasoning fields in assistant messages given back to it.
    pub drop_reasoning: Option<bool>,
    /// Takes images only in user messages, or not at all.
    pub images: Option<Images>,
    /// Refuses JSON schema keywords outside this simple set.
    pub simple_schemas: Option<bool>,
    /// Refuses these fields of a request; they are not sent. Of `max_tokens` and `max_completion_tokens` the other one is
    /// sent instead.
    pub refused_fields: Option<Vec<String>>,
}

/// Where a provider accepts images that tools returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Images {
    /// In a user message after the tool results.
    User,
    /// Nowhere: they are named to the model only.
    None,
}

/// An API key of a project, kept as a hash only.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    pub name: String,
    /// The namespace of its users; the key's name when not given.
    #[serde(default)]
    pub project: Option<String>,
    /// `sha256:` and 64 hexadecimal digits, as `toolgate key hash` prints them.
    pub hash: String,
    #[serde(default)]
    pub requests_per_minute: Option<u32>,
    /// What it may be used for; `None` is completions and connections.
    #[serde(default)]
    pub scopes: Option<Vec<KeyScope>>,
}

/// What an API key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyScope {
    /// Chat completions and everything else that goes to a model provider.
    Completions,
    /// Listing, starting and revoking connections of the project's users.
    Connections,
    /// Reading their access tokens.
    Tokens,
}
