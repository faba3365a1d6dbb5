//! The gateway under test, in this process.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use toolgate::clock::Clock;
use toolgate::config::{Environment, Models, Provider, Secret, Settings, SignIn};
use toolgate::egress::{self, Lookup};
use toolgate::server::World;

use super::{Client, FakeProvider, PATIENCE, Place};

/// A running gateway. Stops when dropped.
pub struct Gateway {
    pub address: SocketAddr,
    pub client: Client,
    /// Where it keeps what it keeps, when that was not chosen by the test.
    _place: Option<Place>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Gateway {
    /// In local mode, with one provider called `fake` that has the model `m`.
    pub async fn with(provider: &FakeProvider) -> Gateway {
        Gateway::start(settings(provider), egress::system_lookup()).await
    }

    /// As [`Gateway::with`], its settings changed.
    pub async fn configured(provider: &FakeProvider, change: impl FnOnce(&mut Settings)) -> Gateway {
        let mut settings = settings(provider);
        change(&mut settings);
        Gateway::start(settings, egress::system_lookup()).await
    }

    /// As [`Gateway::configured`], where nobody can sign in.
    pub async fn without_sign_in(provider: &FakeProvider, change: impl FnOnce(&mut Settings)) -> Gateway {
        let mut settings = settings(provider);
        change(&mut settings);
        Gateway::start_as(settings, World::default()).await
    }

    /// Where the settings name no place to keep things, it gets one of its own.
    pub async fn start(settings: Settings, lookup: Lookup) -> Gateway {
        Gateway::start_in(settings, World { lookup, clock: Clock::system() }).await
    }

    /// As [`Gateway::configured`], at a time of the test's choosing.
    pub async fn at(clock: &Clock, provider: &FakeProvider, change: impl FnOnce(&mut Settings)) -> Gateway {
        let mut settings = settings(provider);
        change(&mut settings);
        Gateway::start_in(settings, World { clock: clock.clone(), ..World::default() }).await
    }

    /// Outside local mode people can sign in, if only at a provider that nobody asks: without one there are no login
    /// links.
    async fn start_in(mut settings: Settings, world: World) -> Gateway {
        if !settings.is_local() && settings.sign_in.is_empty() {
            let (name, client_id) = ("google".to_owned(), "client".to_owned());
            settings.sign_in.push(SignIn { name, client_id, ..SignIn::default() });
        }
        Gateway::start_as(settings, world).await
    }

    async fn start_as(mut settings: Settings, world: World) -> Gateway {
        let place = if settings.data.is_none() && settings.store.url.is_none() {
            let place = Place::new().await;
            place.give_to(&mut settings);
            Some(place)
        } else {
            None
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = oneshot::channel();
        let task = tokio::spawn(async move {
            let until = async move { drop(stopped.await) };
            let ready = move |started: &toolgate::server::Started| {
                let _ = ready.send(started.addr);
            };
            toolgate::server::serve_until(settings, &Environment::default(), world, ready, until)
                .await
                .expect("the gateway starts");
        });
        let address = address.await.expect("the gateway listens");
        Gateway { address, client: Client::new(address), _place: place, stop: Some(stop), task }
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.expect("the gateway stops cleanly");
    }

    /// Waits until it takes no connections any more.
    pub async fn until_closed(&self) {
        let closing = async {
            while TcpStream::connect(self.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, closing).await.expect("the listener closes");
    }

    /// Asks it to stop.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }
}

pub fn settings(provider: &FakeProvider) -> Settings {
    let fake = Provider {
        name: "fake".into(),
        base_url: Some(provider.peer.url("/v1")),
        api_key: Some(Secret::new("provider-key")),
        models: Some(Models::These(vec!["m".into()])),
        ..Provider::default()
    };
    Settings { listen: SocketAddr::from(([127, 0, 0, 1], 0)), providers: vec![fake], ..Settings::default() }
}
