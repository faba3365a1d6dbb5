//! The parts that everything about connections shares.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use moka::sync::Cache;
use tokio::sync::Notify;

use super::access::{FRESH, Holdings, RenewalPatience};
use super::clients::Clients;
use super::refresh::HOLD_ON;
use super::vault::Vault;
use super::{Error, Owner};
use crate::clock::Clock;
use crate::config::{Admission, LinkObstacle, PassThroughLogins, Settings};
use crate::crypto::Keyring;
use crate::egress::Egress;
use crate::id::random_id;
use crate::oauth::QuirkTable;
use crate::rate_limit::RateLimit;
use crate::store::{AuditRow, Store};
use crate::telemetry::Metrics;

/// Users whose connections are kept in memory.
const MOST_OWNERS: u64 = 50_000;
/// How long they are kept when nobody says that they changed.
const OWNER_AGE: std::time::Duration = std::time::Duration::from_secs(300);
/// Entries of the audit log about strangers in one minute, of each kind.
const MOST_STRANGERS: u32 = 5;
/// How long a refused token is remembered: for longer than the one after it is called fresh.
const REFUSAL_AGE: std::time::Duration = std::time::Duration::from_millis(2 * FRESH.unsigned_abs());

/// All connections. Cheap to clone.
#[derive(Clone)]
pub struct Connections(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub store: Store,
    pub vault: Vault,
    pub egress: Egress,
    pub quirks: QuirkTable,
    pub clock: Clock,
    pub clients: Clients,
    pub public_url: String,
    /// The machine belongs to one person.
    pub local: bool,
    /// Names this process in leases.
    pub instance: String,
    /// Makes the keys of webhooks to those who have no project.
    pub pepper: [u8; 32],
    pub owners: Cache<Owner, Arc<Holdings>>,
    /// Grows whenever something kept is forgotten.
    pub epoch: AtomicU64,
    /// When changes were looked for last, in milliseconds since 1970.
    pub looked: AtomicI64,
    /// Held by who renews a connection, also while what is kept of it is read anew.
    pub renewing: Cache<String, Arc<tokio::sync::Mutex<()>>>,
    /// Of which two generations of a connection the server refused tokens last.
    pub refused: Cache<String, (i64, i64)>,
    pub waiting: Mutex<HashMap<Arc<str>, Arc<Notify>>>,
    /// How many flows a minute those callers together may start that nobody vouches for; 0 is no limit.
    pub unverified_per_minute: u32,
    /// Counts them by their places.
    pub unverified: RateLimit,
    /// Counts them together, where no number of places pushes their number out of memory.
    pub unverified_together: RateLimit,
    /// Uses not written yet: when, by project and connection.
    pub uses: Mutex<HashMap<(String, String), i64>>,
    /// When a login is offered because renewals fail.
    pub renewal_patience: RenewalPatience,
    /// How long entries of the audit log are kept, in milliseconds.
    pub audit_age: i64,
    /// What was written of strangers in the present minute.
    pub strangers: Mutex<HashMap<&'static str, Strangers>>,
    pub metrics: Arc<Metrics>,
    /// Why no login link can be opened, and why none that its user must sign in for can be completed.
    pub link_obstacle: Option<LinkObstacle>,
    pub gateway_proof_obstacle: Option<LinkObstacle>,
    /// Whether callers that nobody vouches for get login links.
    pub pass_through_logins: PassThroughLogins,
    /// Who of the people who have signed in is let in.
    pub admission: Admission,
    /// Projects that the configuration makes.
    pub configured_projects: HashSet<String>,
}

/// Callers that nobody knows, in one minute.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// Minutes since 1970.
    minute: i64,
    written: u32,
    /// Not written, since the last entry.
    left_out: u64,
}

/// What connections are made of.
pub struct Parts<'a> {
    pub settings: &'a Settings,
    /// Reads variables of the environment that settings name.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    pub store: Store,
    pub keyring: Keyring,
    pub egress: Egress,
    pub clock: Clock,
    pub pepper: [u8; 32],
    pub public_url: String,
    pub local: bool,
    pub metrics: Arc<Metrics>,
}

impl Connections {
    /// Connections on these parts.
    ///
    /// # Errors
    /// A sentence about the setting that cannot be used.
    pub fn new(parts: Parts<'_>) -> Result<Self, String> {
        let Parts { settings, variable, store, keyring, egress, clock, pepper, public_url, local, metrics } =
            parts;
        let rows = super::quirks::built_in().into_iter().chain(settings.oauth_quirks.iter().cloned());
        let vault = Vault::new(keyring);
        let clients = Clients::new(settings, variable, &public_url)?;
        Ok(Connections(Arc::new(Inner {
            store,
            vault,
            egress,
            quirks: QuirkTable::new(rows),
            looked: AtomicI64::new(clock.unix_milliseconds()),
            clock,
            clients,
            public_url,
            local,
            instance: random_id("gw_"),
            pepper,
            owners: Cache::builder().max_capacity(MOST_OWNERS).time_to_live(OWNER_AGE).build(),
            epoch: AtomicU64::new(0),
            renewing: Cache::builder().max_capacity(MOST_OWNERS).time_to_idle(2 * HOLD_ON).build(),
            refused: Cache::builder().max_capacity(MOST_OWNERS).time_to_live(REFUSAL_AGE).build(),
            waiting: Mutex::default(),
            unverified_per_minute: settings.pass_through.logins_per_minute,
            unverified: RateLimit::default(),
            unverified_together: RateLimit::default(),
            uses: Mutex::default(),
            renewal_patience: RenewalPatience {
                failures: i64::from(settings.connections.renewal_failures),
                milliseconds: i64::from(settings.connections.renewal_failure_seconds) * 1000,
            },
            audit_age: settings.connections.audit_days.cast_signed().saturating_mul(24 * 3_600_000),
            strangers: Mutex::default(),
            metrics,
            link_obstacle: settings.link_obstacle(),
            gateway_proof_obstacle: settings.gateway_proof_obstacle(),
            pass_through_logins: settings.pass_through.logins,
            admission: settings.admission(),
            configured_projects: settings
                .api_keys
                .iter()
                .map(|key| key.project.clone().unwrap_or_else(|| key.name.clone()))
                .collect(),
        })))
    }

    /// What this process is called in leases.
    pub fn instance(&self) -> &str {
        &self.0.instance
    }

    /// What this gateway is as a client, as JSON: the document behind its client id (CIMD).
    pub fn client_document(&self) -> String {
        self.0.clients.document()
    }
}

impl Inner {
    pub(super) fn now(&self) -> i64 {
        self.clock.unix_milliseconds()
    }

    /// An entry of the audit log about `owner`.
    pub(super) fn audit(&self, owner: &Owner, event: &str, actor: &str) -> AuditRow {
        AuditRow {
            project: owner.project.to_string(),
            id: random_id("aud_"),
            at: self.now(),
            event: event.to_owned(),
            user: Some(owner.user.to_string()),
            profile: Some(owner.profile.to_string()).filter(|profile| !profile.is_empty()),
            actor: actor.to_owned(),
            ..AuditRow::default()
        }
    }

    /// Writes an entry that belongs to no transaction.
    pub(super) async fn note(&self, entry: AuditRow) -> Result<(), Error> {
        Ok(self.store.add_audit(&entry).await?)
    }

    /// Writes down that somebody nobody knows came with something of no use: every time in the metrics, and a few times
    /// a minute in the audit log, which strangers must not fill.
    pub(super) async fn note_stranger(&self, event: &'static str) -> Result<(), Error> {
        self.metrics.refused_callback();
        let now = self.now();
        let left_out = {
            let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
            let noted = strangers.entry(event).or_default();
            let minute = now.div_euclid(60_000);
            if noted.minute != minute {
                (noted.minute, noted.written) = (minute, 0);
            }
            if noted.written >= MOST_STRANGERS {
                noted.left_out += 1;
                return Ok(());
            }
            noted.written += 1;
            std::mem::take(&mut noted.left_out)
        };
        self.note(AuditRow {
            id: random_id("aud_"),
            at: now,
            event: event.to_owned(),
            actor: "browser".to_owned(),
            detail: (left_out > 0).then(|| format!("{left_out} more before were not written down")),
            ..AuditRow::default()
        })
        .await
    }

    /// Wakes whoever waits for a flow, here and on other instances.
    pub(super) async fn wake(&self, flow: &str) {
        self.wake_here(flow);
        self.store.notify("flow").await;
    }

    pub(super) fn wake_here(&self, flow: &str) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = waiting.get(flow) {
            notify.notify_waiters();
        }
    }

    /// Forgets what is kept of an owner, here and on other instances.
    pub(super) async fn changed(&self, owner: &Owner) {
        self.forget(owner);
        self.store.notify("connection").await;
    }
}
