//! Putting the parts together, and running them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::front::Front;
use super::open::open_to_serve;
use super::router::router;
use super::{Error, Opened, Started, WithoutKeys, listen};
use crate::api::{App, BodyShares};
use crate::clock::Clock;
use crate::completion::{Engine, EngineParts, HiddenTurns, Runs};
use crate::config::{Environment, LinkObstacle, Settings};
use crate::connections::{self, Connections};
use crate::egress::{self, Egress};
use crate::identity::{Callers, Cookies, Sessions, SignIn};
use crate::keys;
use crate::memory_budget::MemoryBudget;
use crate::rate_limit::RateLimit;
use crate::store::{Location, ProjectProof, Store};
use crate::telemetry::{Metrics, supervise};
use crate::upstream::{Providers, Upstream};
use crate::{demo, web};

/// Runs the gateway until the process is told to stop (SIGTERM, Ctrl-C), then finishes what is open.
/// `ready` is called once it listens.
///
/// # Errors
/// [`Error`] when it cannot start.
pub async fn serve(
    settings: Settings,
    environment: &Environment,
    ready: impl FnOnce(&Started),
) -> Result<(), Error> {
    serve_until(settings, environment, World::default(), ready, stop_signal()).await
}

/// What a gateway knows of the world by asking.
pub struct World {
    /// Where names lead.
    pub lookup: egress::Lookup,
    pub clock: Clock,
}

impl Default for World {
    fn default() -> Self {
        World { lookup: egress::system_lookup(), clock: Clock::system() }
    }
}

/// As [`serve`], in a world and with an end of the caller's choosing.
///
/// # Errors
/// [`Error`] when it cannot start.
pub async fn serve_until(
    mut settings: Settings,
    environment: &Environment,
    world: World,
    ready: impl FnOnce(&Started),
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let World { lookup, clock } = world;
    let local = settings.is_local();
    let listener = listen::bind(settings.listen)?;
    let address = listener.local_addr().map_err(|error| Error::listen(settings.listen, &error))?;
    settings.listen = address;
    let public_url = settings.public_url();

    let without_keys = if local { WithoutKeys::Make } else { WithoutKeys::Refuse };
    let opened = open_to_serve(&settings, environment, without_keys, address).await?;
    let Opened { store, keyring, source, location, pepper, lock } = opened;

    let metrics = Arc::new(Metrics::default());
    let memory_budget = MemoryBudget::new(settings.limits.memory_bytes, metrics.memory());
    let egress =
        Egress::new(&settings.egress, local, lookup).map_err(|error| Error::Settings(error.to_string()))?;
    let upstream = Upstream::new(egress.clone(), &settings.upstream, Arc::clone(&metrics));
    let mut providers = Providers::new(&settings, &|name| environment.get(name).map(str::to_owned))
        .map_err(Error::Settings)?;
    if local {
        let base = format!("http://{address}/demo/v1").parse().expect("a socket address makes an address");
        providers.add_built_in("demo", base, &["demo"]);
    }
    // Known before any request, so that hosts named by requests cannot take their places in the metrics.
    for provider in providers.active() {
        metrics.provider(&provider.name);
    }
    let demo = local.then(|| demo::router(clock.clone(), egress.clone()));
    let variable = |name: &str| environment.get(name).map(str::to_owned);
    let connections = Connections::new(connections::Parts {
        settings: &settings,
        variable: &variable,
        store: store.clone(),
        keyring: keyring.clone(),
        egress: egress.clone(),
        clock: clock.clone(),
        pepper: *pepper,
        public_url: public_url.clone(),
        local,
        metrics: Arc::clone(&metrics),
    })
    .map_err(Error::Settings)?;
    let callers = Arc::new(Callers::new(&settings, store.clone(), pepper));
    callers.refresh().await?;
    let sign_in =
        SignIn::new(&settings, &variable, egress.clone(), store.clone(), clock.clone(), public_url.clone())
            .map_err(Error::Settings)?;
    let sessions = Sessions::new(store.clone(), clock.clone(), settings.admission());
    let outsiders = sessions.end_of_outsiders().await?;
    if outsiders > 0 {
        tracing::warn!(
            people = outsiders,
            "people whom `[[sign_in]]` does not let in any more were signed out"
        );
    }
    warn_of_useless_links(&settings, &store).await?;
    let cookies = Cookies::new(&public_url);
    let memory = HiddenTurns::new(&settings.run, clock.clone()).kept_in(store.clone(), keyring.clone());
    let (runs, mut journal) = Runs::new(
        store.clone(),
        connections.clone(),
        clock.clone(),
        &settings,
        memory.clone(),
        memory_budget.clone(),
    );
    runs.register(lock).await?;
    let providers = Arc::new(providers);
    let parts = EngineParts {
        egress,
        upstream,
        connections: connections.clone(),
        metrics: Arc::clone(&metrics),
        clock: clock.clone(),
        runs: runs.clone(),
        providers: Arc::clone(&providers),
        memory,
        memory_budget: memory_budget.clone(),
    };
    let engine = Arc::new(Engine::new(&settings, parts));
    let rate_limit = Arc::new(RateLimit::default());
    let parts = web::Parts {
        connections: connections.clone(),
        sign_in,
        sessions: sessions.clone(),
        cookies: cookies.clone(),
        clock,
        engine: Arc::clone(&engine),
        providers: Arc::clone(&providers),
        callers: Arc::clone(&callers),
        rate_limit: Arc::clone(&rate_limit),
        run: settings.run.clone(),
        public_url: public_url.clone(),
        local,
        pages_per_minute: if local { 0 } else { settings.rate_limit.pages_per_minute },
    };
    let site = Arc::new(web::Site::new(parts).map_err(Error::Settings)?);
    let started = Started {
        addr: address,
        public_url,
        local,
        project_keys: callers.count(),
        pass_through: callers.takes_pass_through(),
        is_pass_through_chosen: settings.pass_through.enabled.is_some(),
        providers: providers
            .active()
            .filter(|provider| &*provider.name != "demo")
            .map(|provider| (provider.name.to_string(), provider.key_source.to_string()))
            .collect(),
        demo: local,
        keeps: location != Location::Memory,
    };
    let limits = settings.limits.clone();
    let app = Arc::new(App {
        settings,
        callers,
        sessions,
        cookies,
        providers,
        engine,
        connections,
        metrics,
        rate_limit,
        memory_budget,
        body_shares: BodyShares::default(),
        store,
        keyring: keyring.clone(),
        draining: AtomicBool::new(false),
    });
    let front = Front::new(Arc::clone(&app), router(Arc::clone(&app), demo, site), local);
    let watching = Arc::clone(&app);
    let (listening, working) = (app.connections.clone(), app.connections.clone());
    let sweeping = app.sessions.clone();
    let (watched, keeping, resuming) = (runs.clone(), runs.clone(), Arc::clone(&app.engine));
    let remembering = Arc::clone(&app);
    let writing = runs.clone();
    let counting = || Arc::clone(&app.metrics);
    let (probed, store_metrics) = (app.store.clone(), app.metrics.store());
    let tasks = [
        tokio::spawn(supervise(counting(), "store probe", async move || {
            probed.keep_probing(store_metrics.clone()).await
        })),
        tokio::spawn(supervise(counting(), "journal", async move || writing.work(&mut journal).await)),
        tokio::spawn(supervise(counting(), "run news", async move || watched.watch().await)),
        tokio::spawn(supervise(counting(), "run leases", async move || {
            keeping.keep(|row| resuming.resume(row)).await
        })),
        tokio::spawn(supervise(counting(), "keyring", async move || {
            keys::watch(source.clone(), keyring.clone()).await
        })),
        tokio::spawn(supervise(counting(), "API keys", async move || watching.callers.watch().await)),
        tokio::spawn(supervise(counting(), "connection news", async move || listening.watch().await)),
        tokio::spawn(supervise(counting(), "connections", async move || working.work().await)),
        tokio::spawn(supervise(counting(), "sessions", async move || sweeping.work().await)),
        tokio::spawn(supervise(counting(), "hidden turns", async move || remembering.engine.work().await)),
    ];
    ready(&started);
    let draining = Arc::clone(&app);
    let asked_to_stop = OnceLock::new();
    let stop = async {
        stop.await;
        // Set once only.
        let _ = asked_to_stop.set(Instant::now());
        draining.draining.store(true, Ordering::Relaxed);
        draining.engine.stop_waiting();
        tracing::info!("stopping: open streams may finish");
    };
    listen::accept(listener, front, &limits, stop).await;
    let since = asked_to_stop.get().map(Instant::elapsed).unwrap_or_default();
    runs.hand_over(Duration::from_secs(limits.shutdown_seconds).saturating_sub(since)).await;
    app.engine.close().await;
    for task in tasks {
        task.abort();
    }
    app.connections.close().await;
    app.store.close().await;
    Ok(())
}

/// Says which projects get no login links, since nobody could complete them.
async fn warn_of_useless_links(settings: &Settings, store: &Store) -> Result<(), crate::store::Error> {
    for (project, obstacle) in useless_links(settings, store).await? {
        tracing::warn!(
            project,
            reason = obstacle.reason(),
            hint = obstacle.remedy(),
            "no login links for a project"
        );
    }
    Ok(())
}

/// The projects, of the store and of the configuration, whose users could complete no login, and why.
///
/// # Errors
/// When the store fails.
pub async fn useless_links(
    settings: &Settings,
    store: &Store,
) -> Result<Vec<(String, LinkObstacle)>, crate::store::Error> {
    let obstacle_of = |proof| match proof {
        ProjectProof::App => settings.link_obstacle(),
        ProjectProof::Gateway => settings.gateway_proof_obstacle(),
    };
    let stored = store.list_projects().await?;
    let configured = settings.api_keys.iter().map(|key| key.project.as_ref().unwrap_or(&key.name));
    let configured: BTreeSet<&String> =
        configured.filter(|name| stored.iter().all(|project| project.name != **name)).collect();
    let of_store = stored.iter().map(|project| (project.name.clone(), project.proof));
    let all = of_store.chain(configured.into_iter().map(|name| (name.clone(), ProjectProof::Gateway)));
    Ok(all.filter_map(|(name, proof)| Some((name, obstacle_of(proof)?))).collect())
}

/// Ready when the process is asked to stop.
async fn stop_signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        else {
            let _ = interrupt.await;
            return;
        };
        tokio::select! { _ = interrupt => {}, _ = terminate.recv() => {} }
    }
    #[cfg(not(unix))]
    {
        let _ = interrupt.await;
    }
}
