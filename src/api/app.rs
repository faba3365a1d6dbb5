//! The parts of the program that handlers see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderValue, header};

use super::ApiError;
use crate::completion::Engine;
use crate::config::Settings;
use crate::identity::{Caller, CallerKind, Callers, Surface};
use crate::rate_limit::RateLimit;
use crate::telemetry::Metrics;
use crate::upstream::{ProviderKey, Providers, Upstream};

/// Everything that handlers share. Behind an `Arc`.
pub struct App {
    pub settings: Settings,
    pub callers: Callers,
    pub providers: Providers,
    pub engine: Engine,
    pub metrics: Arc<Metrics>,
    pub rate_limit: RateLimit,
    /// Set when the process is asked to stop: it is not ready any more, and finishes what it has.
    pub draining: AtomicBool,
}

impl App {
    /// Who sends the request, if they may send another one now.
    ///
    /// # Errors
    /// 401 without a usable key, 429 over the limit.
    pub fn admit(&self, headers: &HeaderMap, surface: Surface) -> Result<Caller, ApiError> {
        let caller =
            self.callers.resolve(headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes), surface)?;
        self.rate_limit.check(&caller.namespace, caller.requests_per_minute)?;
        Ok(caller)
    }

    /// Whose key a provider of the configuration gets for this caller.
    pub fn provider_key<'c>(&self, caller: &'c Caller) -> ProviderKey<'c> {
        match &caller.kind {
            CallerKind::Local => ProviderKey::ConfiguredOr(caller.forward_key.as_ref()),
            CallerKind::Project { .. } => ProviderKey::Configured,
            CallerKind::PassThrough => ProviderKey::Callers(caller.forward_key.as_ref()),
        }
    }

    /// The client for providers.
    pub fn upstream(&self) -> &Upstream {
        self.engine.upstream()
    }

    /// Whether the process is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
