//! Which provider and model a request means, and whose key goes there.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri};
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};

use super::models::{self, Asked, ModelList};
use super::preset::{PRESETS, find_preset, find_preset_by_host};
use super::provider::RefusedFields;
use super::{KeySource, Provider, Quirks, Upstream};
use crate::config::{self, Models, Secret, Settings};
use crate::egress::{self, Reach};

/// Where one request goes: the provider, its own name of the model, and the credential for it.
#[derive(Clone)]
pub struct Target {
    pub provider: Arc<Provider>,
    /// The model's name at the provider; empty when the request names a host.
    pub model: String,
    pub(super) credential: Option<HeaderValue>,
    /// The credential is the caller's, or the provider was named by its address.
    callers: bool,
}

/// A target without its credential, to be found again later.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptTarget {
    provider: String,
    model: String,
    /// For a provider that was named by its address: the path before the endpoint.
    base_path: Option<String>,
}

impl KeptTarget {
    /// Whether the provider was named by its address.
    pub fn is_named(&self) -> bool {
        self.base_path.is_some()
    }
}

impl Target {
    /// Whether the credential came with the request.
    pub fn has_callers_key(&self) -> bool {
        self.callers && self.credential.is_some()
    }

    /// The target without its credential.
    pub fn kept(&self) -> KeptTarget {
        let provider = &self.provider;
        let is_named = provider.reach == Reach::Requested;
        KeptTarget {
            provider: provider.name.to_string(),
            model: self.model.clone(),
            base_path: is_named.then(|| provider.base.path().to_owned()),
        }
    }
}

/// Whose key is sent to the provider.
#[derive(Debug, Clone, Copy)]
pub enum ProviderKey<'a> {
    /// The configured one; where none is configured, the caller's (local mode).
    ConfiguredOr(Option<&'a Secret>),
    /// Only the configured one (project keys).
    Configured,
    /// Only the caller's (pass-through).
    Callers(Option<&'a Secret>),
}

/// Why a request has no target.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    #[error("the model `{model}` does not exist here{}", near_text(.near))]
    UnknownModel { model: String, near: Vec<String> },
    #[error("no key for {provider}: {hint}")]
    NoKey { provider: String, hint: String },
    #[error("{0}")]
    BadHost(String),
}

fn near_text(near: &[String]) -> String {
    match near {
        [] => "; GET /v1/models lists what does".to_owned(),
        near => format!(
            "; did you mean {}?",
            near.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
        ),
    }
}

/// All providers of this gateway.
pub struct Providers {
    by_name: HashMap<String, Arc<Provider>>,
    /// Names in the order of the configuration, then of the presets.
    order: Vec<String>,
    aliases: HashMap<String, String>,
    local: bool,
}

impl Providers {
    /// Reads the configured providers and the presets that the environment activates. `variable` looks up the environment.
    ///
    /// # Errors
    /// A sentence naming the provider whose settings cannot be used.
    pub fn new(settings: &Settings, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut by_name = HashMap::new();
        let mut order = Vec::new();
        for entry in &settings.providers {
            let provider = configured(entry, variable)?;
            order.push(entry.name.clone());
            by_name.insert(entry.name.clone(), Arc::new(provider));
        }
        for preset in
            PRESETS.iter().filter(|preset| settings.providers.iter().all(|entry| entry.name != preset.name))
        {
            let entry = config::Provider { name: preset.name.to_owned(), ..config::Provider::default() };
            let mut provider = configured(&entry, variable)?;
            let address = preset.address_variable.and_then(variable).filter(|address| !address.is_empty());
            if let Some(address) = &address {
                provider.base = ollama_address(address)
                    .ok_or_else(|| format!("`{address}` is not an address ({})", preset.name))?;
            }
            provider.active = provider.key.is_some() || address.is_some();
            order.push(preset.name.to_owned());
            by_name.insert(preset.name.to_owned(), Arc::new(provider));
        }
        let aliases = settings.aliases.iter().map(|(from, to)| (from.clone(), to.clone())).collect();
        Ok(Providers { by_name, order, aliases, local: settings.is_local() })
    }

    /// Adds a provider that the program itself offers (the demo).
    pub fn add_built_in(&mut self, name: &str, base: Uri, models: &[&str]) {
        let provider = Provider {
            name: name.into(),
            base,
            key: None,
            key_source: KeySource::None,
            quirks: Quirks::NONE,
            reach: Reach::Configured,
            models: ModelList::Given(models.iter().map(|model| (*model).to_owned()).collect()),
            active: true,
            keyless: true,
            completions: OnceLock::new(),
        };
        self.order.push(name.to_owned());
        self.by_name.insert(name.to_owned(), Arc::new(provider));
    }

    /// The providers that show in lists, in order.
    pub fn active(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.order.iter().filter_map(|name| self.by_name.get(name)).filter(|provider| provider.active)
    }

    /// The configured aliases.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &str)> {
        self.aliases.iter().map(|(from, to)| (from.as_str(), to.as_str()))
    }

    /// The models that are configured by name, each with its provider's, of those that the gateway itself can ask.
    pub fn given(&self) -> impl Iterator<Item = (&str, &str)> {
        let usable = self.active().filter(|provider| target(provider, "", ProviderKey::Configured).is_ok());
        usable.flat_map(|provider| {
            let models = match &provider.models {
                ModelList::Given(models) => models.as_slice(),
                ModelList::Asked(_) => &[],
            };
            models.iter().map(|model| (&*provider.name, model.as_str()))
        })
    }

    /// The target that `model` means: an alias, `provider/model`, or a model that an active provider lists.
    ///
    /// # Errors
    /// [`SelectError`].
    pub async fn select(
        &self,
        upstream: &Upstream,
        model: &str,
        key: ProviderKey<'_>,
    ) -> Result<Target, SelectError> {
        let meant = self.aliases.get(model).map_or(model, String::as_str);
        if let Some((name, rest)) = meant.split_once('/')
            && let Some(provider) = self.by_name.get(name)
        {
            return target(provider, rest, key);
        }
        for provider in self.active() {
            if let ModelList::Given(models) = &provider.models
                && models.iter().any(|known| known == meant)
            {
                return target(provider, meant, key);
            }
        }
        if let Some(found) = Box::pin(self.listed(upstream, meant, key)).await {
            return found;
        }
        Err(SelectError::UnknownModel { model: model.to_owned(), near: self.near(meant, key) })
    }

    /// The provider that lists `meant`, when its list has to be asked for.
    async fn listed(
        &self,
        upstream: &Upstream,
        meant: &str,
        key: ProviderKey<'_>,
    ) -> Option<Result<Target, SelectError>> {
        let asked: Vec<_> =
            self.active().filter(|provider| matches!(provider.models, ModelList::Asked(_))).collect();
        let lists =
            futures_util::future::join_all(asked.iter().map(|provider| list_models(upstream, provider, key)))
                .await;
        let mut pairs = asked.iter().zip(&lists);
        let (provider, _) = pairs
            .find(|(_, list)| list.as_ref().is_some_and(|list| list.iter().any(|known| known == meant)))?;
        Some(target(provider, meant, key))
    }

    /// The target for a request that names a provider's host, with the caller's key and no other.
    ///
    /// # Errors
    /// [`SelectError::BadHost`].
    pub fn by_host(&self, host: &str, base_path: &str, key: Option<&Secret>) -> Result<Target, SelectError> {
        let bad = |reason: &str| SelectError::BadHost(format!("`{host}` {reason}"));
        let authority: http::uri::Authority = host.parse().map_err(|_| bad("is not a host"))?;
        if host.contains('@') {
            return Err(bad("must not carry a user name"));
        }
        let bare = authority.host().trim_matches(['[', ']']);
        let loopback = bare == "localhost" || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let scheme = if self.local && loopback { "http" } else { "https" };
        let base = format!("{scheme}://{host}{}", base_path.trim_end_matches('/'));
        let provider = Provider {
            name: host.into(),
            base: base.parse().map_err(|_| bad("does not make an address"))?,
            key: None,
            key_source: KeySource::None,
            quirks: find_preset_by_host(host).map_or(Quirks::NONE, |preset| preset.quirks.clone()),
            reach: Reach::Requested,
            models: ModelList::Given(Vec::new()),
            active: false,
            keyless: true,
            completions: OnceLock::new(),
        };
        let credential = key.and_then(bearer);
        Ok(Target { provider: Arc::new(provider), model: String::new(), credential, callers: true })
    }

    /// The provider that was named by its address, with the caller's key and no other; `None` for one that was not.
    pub fn find_named(&self, kept: &KeptTarget, key: Option<&Secret>) -> Option<Target> {
        self.by_host(&kept.provider, kept.base_path.as_deref()?, key).ok()
    }

    /// The target that was kept, with the configured key; `None` when there is no such provider, or it wants a key that
    /// is not configured.
    pub fn find_kept(&self, kept: &KeptTarget) -> Option<Target> {
        if kept.is_named() {
            let found = self.find_named(kept, None)?;
            return Some(Target { model: kept.model.clone(), ..found });
        }
        target(self.by_name.get(&kept.provider)?, &kept.model, ProviderKey::Configured).ok()
    }

    /// Whether `host` belongs to a configured provider or a preset.
    pub fn knows_host(&self, host: &str) -> bool {
        self.by_name.values().any(|provider| provider.host() == host)
    }

    /// The models of every active provider that `key` opens, each with its provider's name.
    pub async fn list(&self, upstream: &Upstream, key: ProviderKey<'_>) -> Vec<(Arc<str>, String)> {
        let usable: Vec<_> = self.active().filter(|provider| target(provider, "", key).is_ok()).collect();
        let lists = futures_util::future::join_all(
            usable.iter().map(|provider| list_models(upstream, provider, key)),
        )
        .await;
        let pairs = usable.iter().zip(lists);
        pairs
            .flat_map(|(provider, list)| {
                let name = Arc::clone(&provider.name);
                list.unwrap_or_default()
                    .iter()
                    .map(|model| (Arc::clone(&name), model.clone()))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Up to three names like `model`.
    fn near(&self, model: &str, key: ProviderKey<'_>) -> Vec<String> {
        let mut known: Vec<String> = self.aliases.keys().cloned().collect();
        for provider in self.active() {
            let list = match &provider.models {
                ModelList::Given(models) => Arc::new(models.clone()),
                ModelList::Asked(_) if matches!(key, ProviderKey::Callers(_)) => Arc::default(),
                ModelList::Asked(asked) => asked.last().unwrap_or_default(),
            };
            known.extend(list.iter().map(|name| format!("{}/{name}", provider.name)));
        }
        known.extend(family(model).map(|provider| format!("{provider}/{model}")));
        let bare = model.rsplit('/').next().unwrap_or(model);
        let mut scored: Vec<(f64, String)> = known
            .into_iter()
            .map(|name| {
                let own = name.rsplit('/').next().unwrap_or(&name);
                (strsim::jaro_winkler(own, bare).max(strsim::jaro_winkler(&name, model)), name)
            })
            .filter(|(score, _)| *score > 0.8)
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.dedup_by(|a, b| a.1 == b.1);
        scored.into_iter().take(3).map(|(_, name)| name).collect()
    }
}

/// The provider whose models are called like this.
fn family(model: &str) -> Option<&'static str> {
    const FAMILIES: &[(&str, &str)] = &[
        ("gpt-", "openai"),
        ("o1", "openai"),
        ("o3", "openai"),
        ("o4", "openai"),
        ("claude-", "anthropic"),
        ("gemini-", "google"),
        ("grok-", "xai"),
        ("mistral-", "mistral"),
        ("deepseek-", "deepseek"),
    ];
    FAMILIES.iter().find(|(prefix, _)| model.starts_with(prefix)).map(|(_, provider)| *provider)
}

fn target(provider: &Arc<Provider>, model: &str, key: ProviderKey<'_>) -> Result<Target, SelectError> {
    let no_key =
        |hint: &str| SelectError::NoKey { provider: provider.name.to_string(), hint: hint.to_owned() };
    let credential = match key {
        ProviderKey::ConfiguredOr(callers) => {
            provider.key.clone().or_else(|| if provider.keyless { None } else { callers.and_then(bearer) })
        }
        ProviderKey::Configured => provider.key.clone(),
        ProviderKey::Callers(_) if provider.keyless => {
            return Err(no_key("this provider is for callers with a key of this gateway"));
        }
        ProviderKey::Callers(callers) => callers.and_then(bearer),
    };
    if credential.is_none() && !provider.keyless {
        let variable = find_preset(&provider.name).and_then(|preset| preset.key_variables.first());
        return Err(match variable {
            Some(variable) => {
                no_key(&format!("set {variable}, or send the provider's key as the bearer token"))
            }
            None => no_key("set `api_key` or `api_key_env` in its configuration"),
        });
    }
    let callers = credential.is_some() && provider.key.is_none() || matches!(key, ProviderKey::Callers(_));
    Ok(Target { provider: Arc::clone(provider), model: model.to_owned(), credential, callers })
}

fn bearer(key: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a provider lists for the configured key, from memory while it is fresh. `None` when it does not tell.
///
/// A caller's own key is never used for this: it is for one provider, and nobody knows yet for which. Nor are such
/// callers shown what the configured key opens.
async fn list_models(
    upstream: &Upstream,
    provider: &Arc<Provider>,
    key: ProviderKey<'_>,
) -> Option<Arc<Vec<String>>> {
    let asked = match &provider.models {
        ModelList::Given(models) => return Some(Arc::new(models.clone())),
        ModelList::Asked(asked) => asked,
    };
    if matches!(key, ProviderKey::Callers(_)) {
        return None;
    }
    let target = target(provider, "", ProviderKey::Configured).ok()?;
    let age = upstream.model_list_age();
    if let Some(known) = asked.fresh(age) {
        return known;
    }
    let _one_at_a_time = asked.asking.lock().await;
    if let Some(known) = asked.fresh(age) {
        return known;
    }
    let answer =
        upstream.forward(&target, Method::GET, "/models", HeaderMap::new(), egress::full(Bytes::new()));
    let fetched = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        let response = answer.await.ok().filter(|response| response.status().is_success())?;
        let response = egress::decoded(response).ok()?;
        Limited::new(response.into_body(), 8 << 20).collect().await.ok()
    });
    let list = fetched.await.ok().flatten().and_then(|body| models::parse(&body.to_bytes()));
    if list.is_none() {
        tracing::warn!(provider = %provider.name, "the provider does not tell its models");
    }
    asked.keep(list)
}

fn configured(
    entry: &config::Provider,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Provider, String> {
    let name = &entry.name;
    let preset = find_preset(name);
    let base = entry.base_url.as_deref().or(preset.map(|preset| preset.base_url));
    let base = base.ok_or_else(|| format!("provider `{name}` is not a preset and needs a `base_url`"))?;
    let base: Uri = base
        .trim_end_matches('/')
        .parse()
        .ok()
        .filter(|uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
        .ok_or_else(|| format!("the `base_url` of provider `{name}` is not an http or https address"))?;
    let (key, key_source) = configured_key(entry, variable)?;
    let key = key
        .map(|key| {
            bearer(&key).ok_or_else(|| {
                format!("the key of provider `{name}` has characters that no header can carry")
            })
        })
        .transpose()?;
    let known = preset.map_or(Quirks::NONE, |preset| preset.quirks.clone());
    let quirks = Quirks {
        max_tools: entry.quirks.max_tools.or(known.max_tools),
        no_stream_options: entry.quirks.no_stream_options.unwrap_or(known.no_stream_options),
        drop_reasoning: entry.quirks.drop_reasoning.unwrap_or(known.drop_reasoning),
        simple_schemas: entry.quirks.simple_schemas.unwrap_or(known.simple_schemas),
        images: entry.quirks.images.or(known.images),
        refused_fields: match &entry.quirks.refused_fields {
            Some(fields) => RefusedFields::Configured(fields.as_slice().into()),
            None => known.refused_fields,
        },
    };
    let models = match &entry.models {
        Some(Models::These(models)) => ModelList::Given(models.clone()),
        Some(Models::Ask(_)) | None => ModelList::Asked(Asked::default()),
    };
    let hosted = preset.is_some_and(|preset| !preset.key_variables.is_empty());
    let keyless = key.is_none() && !hosted;
    Ok(Provider {
        name: name.as_str().into(),
        base,
        key,
        key_source,
        quirks,
        reach: Reach::Configured,
        models,
        active: true,
        keyless,
        completions: OnceLock::new(),
    })
}

fn configured_key(
    entry: &config::Provider,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(Option<Secret>, KeySource), String> {
    if let Some(key) = &entry.api_key {
        return Ok((Some(key.clone()), KeySource::Configuration));
    }
    if let Some(path) = &entry.api_key_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("the key file {} of provider `{}`: {error}", path.display(), entry.name)
        })?;
        return Ok((Some(Secret::new(text.trim())), KeySource::File(path.display().to_string())));
    }
    if let Some(name) = &entry.api_key_env {
        let key = variable(name).filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| {
            format!("provider `{}` takes its key from {name}, which is not set", entry.name)
        })?;
        return Ok((Some(Secret::new(key)), KeySource::Environment(name.clone())));
    }
    let names = find_preset(&entry.name).map_or(&[][..], |preset| preset.key_variables);
    for name in names {
        if let Some(key) = variable(name).filter(|key| !key.trim().is_empty()) {
            return Ok((Some(Secret::new(key.trim())), KeySource::Environment((*name).to_owned())));
        }
    }
    Ok((None, KeySource::None))
}

/// `OLLAMA_HOST` is `host`, `host:port` or an address.
fn ollama_address(text: &str) -> Option<Uri> {
    let text = text.trim_end_matches('/');
    let address = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = address.replace("//0.0.0.0", "//127.0.0.1").parse().ok()?;
    let port = uri.port_u16().unwrap_or(11434);
    format!("{}://{}:{port}/v1", uri.scheme_str()?, uri.host()?).parse().ok()
}
