//! From the `Authorization` header to a caller.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;

use super::stored::StoredKeys;
use super::{Error, KeyEnding, Peer, Person, Scopes};
use crate::bounds::Principal;
use crate::config::{KeyScope, Secret, Settings};
use crate::crypto::{ApiKeyHash, hmac_sha256, to_hex};
use crate::keys::Pepper;
use crate::store::{Project, Store};

/// Longer than any provider's key.
const LONGEST_KEY_BYTES: usize = 8192;

/// Where a request arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// `/v1/…`: the gateway chooses the provider.
    V1,
    /// `/{provider-host}/…`: the key goes to that host.
    ProviderHost,
}

/// Who sends a request.
#[derive(Debug, Clone)]
pub struct Caller {
    pub kind: CallerKind,
    /// What keeps the caller's things apart from those of others: `local`, `project:…`, `person` or `pt:…`.
    pub namespace: Arc<str>,
    /// The key that came with the request, when it may be sent to a provider. Never a gateway key.
    pub forward_key: Option<Secret>,
    /// How many requests a minute the caller may send; 0 is no limit.
    pub requests_per_minute: u32,
    /// What the caller may do.
    pub scopes: Scopes,
    /// How the key that came with the request ends, for people to tell keys apart.
    pub key_ending: KeyEnding,
    /// From where the request comes, as far as that is known.
    pub place: Option<IpAddr>,
}

/// How the caller came to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerKind {
    /// It is on this machine, which belongs to one person.
    Local,
    /// By a gateway key.
    Project { name: Arc<str>, key_name: Arc<str> },
    /// With a provider's own key, which is only handed on.
    PassThrough,
    /// A person who is signed in, from a page of ours. They are their own user, under their account's id.
    Person { account: Arc<str> },
}

impl Caller {
    /// The caller, whose request came over a connection from `peer` with these headers.
    #[must_use]
    pub fn from_peer(self, peer: Option<&Peer>, headers: &HeaderMap) -> Self {
        Caller { place: peer.and_then(|peer| peer.place(headers)), ..self }
    }

    /// The only user that this caller may name, when there is just one.
    pub fn own_user(&self) -> Option<&Arc<str>> {
        match &self.kind {
            CallerKind::Person { account } => Some(account),
            CallerKind::Local | CallerKind::Project { .. } | CallerKind::PassThrough => None,
        }
    }

    /// Whose things the caller's are counted among, when it acts for `user`.
    pub fn principal(&self, user: Option<Arc<str>>) -> Principal {
        match &self.kind {
            CallerKind::Local => Principal::Local,
            CallerKind::Person { account } => Principal::Person(Arc::clone(account)),
            CallerKind::Project { .. } => Principal::User { namespace: Arc::clone(&self.namespace), user },
            CallerKind::PassThrough => Principal::Stranger(self.place),
        }
    }

    /// Under what the caller's requests are counted.
    pub fn counted_as(&self) -> &Arc<str> {
        self.own_user().unwrap_or(&self.namespace)
    }
}

/// Knows the callers that the settings and the store allow.
pub struct Callers {
    local: bool,
    /// What the operator wants of callers with a provider's own key; `None` is decided by whether there are projects.
    pass_through: Option<bool>,
    requests_per_minute: u32,
    configured: Vec<(ApiKeyHash, Known)>,
    stored: StoredKeys,
    local_namespace: Arc<str>,
    people_may_complete: bool,
    /// Makes namespaces of keys that cannot be traced back to them.
    pepper: Pepper,
}

/// What is known of a gateway key.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) kind: CallerKind,
    pub(super) namespace: Arc<str>,
    pub(super) requests_per_minute: u32,
    pub(super) scopes: Scopes,
}

impl Callers {
    /// The callers of a gateway with `settings`; those of `store` once [`Callers::refresh`] has read them. Keys whose
    /// hash is malformed are let out; loading the settings has refused them before.
    pub fn new(settings: &Settings, store: Store, pepper: Pepper) -> Self {
        let default = settings.rate_limit.requests_per_minute;
        let configured = settings.api_keys.iter().filter_map(|key| {
            let project = key.project.as_ref().unwrap_or(&key.name);
            let known = Known {
                kind: CallerKind::Project {
                    name: project.as_str().into(),
                    key_name: key.name.as_str().into(),
                },
                namespace: Project::namespace(project).into(),
                requests_per_minute: key.requests_per_minute.unwrap_or(default),
                scopes: key.scopes.as_ref().map_or(Scopes::USUAL, |scopes| scopes.iter().copied().collect()),
            };
            Some((ApiKeyHash::parse(&key.hash).ok()?, known))
        });
        Callers {
            local: settings.is_local(),
            pass_through: settings.pass_through.enabled,
            requests_per_minute: default,
            configured: configured.collect(),
            stored: StoredKeys::new(store, default),
            local_namespace: "local".into(),
            people_may_complete: settings.sign_in_may_complete,
            pepper,
        }
    }

    /// The caller that `authorization`, the header's bytes, stands for on `surface`. A gateway key that is not known
    /// is looked for in the store once more; nothing else touches it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find(&self, authorization: Option<&[u8]>, surface: Surface) -> Result<Caller, Error> {
        match self.resolve(authorization, surface) {
            Err(Error::Unknown) if authorization.is_some_and(has_gateway_key) => {
                // Boxed, so that the usual way stays small.
                Box::pin(self.stored.look_again(Instant::now())).await;
                self.resolve(authorization, surface)
            }
            other => other,
        }
    }

    /// As [`Callers::find`], by what is known already.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn resolve(&self, authorization: Option<&[u8]>, surface: Surface) -> Result<Caller, Error> {
        let key = authorization.map(bearer).transpose()?.flatten();
        let key_ending = key.map_or_else(KeyEnding::default, KeyEnding::of);
        if let Some(key) = key
            && is_like_gateway_key(key)
        {
            let known = self.find_key(key).ok_or(Error::Unknown)?;
            return match surface {
                Surface::V1 => Ok(known.caller(key_ending)),
                Surface::ProviderHost => Err(Error::GatewayKeyForHost),
            };
        }
        if self.local {
            return Ok(Caller {
                kind: CallerKind::Local,
                namespace: self.local_namespace.clone(),
                forward_key: key.map(Secret::new),
                requests_per_minute: 0,
                scopes: Scopes::ALL,
                key_ending,
                place: None,
            });
        }
        let key = key.ok_or(Error::Missing)?;
        if !self.takes_pass_through() {
            return Err(Error::PassThroughOff);
        }
        let hash = hmac_sha256(&self.pepper, key.as_bytes());
        Ok(Caller {
            kind: CallerKind::PassThrough,
            namespace: format!("pt:{}", to_hex(&hash[..16])).into(),
            forward_key: Some(Secret::new(key)),
            requests_per_minute: self.requests_per_minute,
            scopes: Scopes::USUAL,
            key_ending,
            place: None,
        })
    }

    /// A signed-in person as a caller. They may complete, at the operator's expense, only where the settings say so.
    pub fn person(&self, person: &Person) -> Caller {
        let allowed = [KeyScope::Connections, KeyScope::Completions];
        let scopes = if self.people_may_complete { &allowed[..] } else { &allowed[..1] };
        Caller {
            kind: CallerKind::Person { account: Arc::clone(&person.account) },
            namespace: "person".into(),
            forward_key: None,
            requests_per_minute: self.requests_per_minute,
            scopes: scopes.iter().copied().collect(),
            key_ending: KeyEnding::default(),
            place: None,
        }
    }

    /// Reads the store's keys anew where they have changed.
    ///
    /// # Errors
    /// See [`store::Error`](crate::store::Error); the keys read before stay known.
    pub async fn refresh(&self) -> Result<(), crate::store::Error> {
        self.stored.refresh().await
    }

    /// Keeps up with what changes in the store, for as long as it is polled.
    pub async fn watch(&self) {
        self.stored.watch().await;
    }

    /// Whether callers may bring a provider's own key now: as the operator says, or else while there is no project and no
    /// API key.
    pub fn takes_pass_through(&self) -> bool {
        self.pass_through.unwrap_or_else(|| self.configured.is_empty() && !self.stored.has_projects())
    }

    /// How many gateway keys let somebody in.
    pub fn count(&self) -> usize {
        self.configured.len() + self.stored.count()
    }

    /// Compares with every configured key, so that the time tells nothing about which there are. The others are looked
    /// up by their hash, of which a stranger cannot choose even one byte to find out more.
    fn find_key(&self, key: &str) -> Option<Known> {
        let hash = ApiKeyHash::of(key);
        self.configured
            .iter()
            .fold(
                None,
                |found, (configured, known)| if configured.matches(&hash) { Some(known) } else { found },
            )
            .cloned()
            .or_else(|| self.stored.find(&hash))
    }
}

impl Known {
    fn caller(self, key_ending: KeyEnding) -> Caller {
        Caller {
            kind: self.kind,
            namespace: self.namespace,
            forward_key: None,
            requests_per_minute: self.requests_per_minute,
            scopes: self.scopes,
            key_ending,
            place: None,
        }
    }
}

/// Whether a request brings a key that is none of this gateway's, and so costs its bearer nothing here.
pub fn has_provider_key(headers: &HeaderMap) -> bool {
    headers.get(http::header::AUTHORIZATION).is_some_and(|header| !has_gateway_key(header.as_bytes()))
}

fn has_gateway_key(header: &[u8]) -> bool {
    bearer(header).is_ok_and(|key| key.is_some_and(is_like_gateway_key))
}

/// Whether the key bears the prefix of the gateway's own, `tgk_`, and is never sent to anyone else. Nor is what was
/// meant to be one: quoted, with another dash, or in capital letters.
fn is_like_gateway_key(key: &str) -> bool {
    let key = key.trim_start_matches(|first: char| !first.is_ascii_alphanumeric());
    let prefix = key.get(..4);
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case("tgk_") || prefix.eq_ignore_ascii_case("tgk-"))
}

/// The key of `Bearer KEY` (RFC 6750 §2.1); an empty one counts as none, since SDKs send it when they have none.
fn bearer(header: &[u8]) -> Result<Option<&str>, Error> {
    let text = std::str::from_utf8(header).map_err(|_| Error::NotBearer)?.trim();
    let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
    let key = key.trim();
    let fits = key.len() <= LONGEST_KEY_BYTES && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !scheme.eq_ignore_ascii_case("bearer") || !fits {
        return Err(Error::NotBearer);
    }
    Ok(Some(key).filter(|key| !key.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ApiKey;

    const GATEWAY_KEY: &str = "tgk_0123456789abcdefghjkmnpq";

    async fn callers(settings: &Settings, pepper: u8) -> Callers {
        let store = Store::open(&crate::store::Location::Memory).await.unwrap();
        Callers::new(settings, store, Pepper::new([pepper; 32]))
    }

    async fn local() -> Callers {
        callers(&Settings::default(), 1).await
    }

    async fn public(pass_through: Option<bool>, pepper: u8) -> Callers {
        let mut settings = Settings { listen: "0.0.0.0:80".parse().unwrap(), ..Settings::default() };
        settings.pass_through.enabled = pass_through;
        settings.api_keys.push(ApiKey {
            name: "web".to_owned(),
            project: Some("shop".to_owned()),
            hash: ApiKeyHash::of(GATEWAY_KEY).to_string(),
            requests_per_minute: Some(7),
            scopes: None,
        });
        callers(&settings, pepper).await
    }

    /// `namespace, forwarded key, limit` of the caller, or the error, in one comparable line.
    fn outcome(callers: &Callers, authorization: &str, surface: Surface) -> String {
        let header = Some(authorization.as_bytes()).filter(|header| !header.is_empty());
        match callers.resolve(header, surface) {
            Err(error) => format!("{error:?}"),
            Ok(caller) => {
                let namespace = caller.namespace.split_inclusive(':').next().unwrap_or_default();
                let namespace = if namespace == "pt:" { namespace } else { &caller.namespace };
                let key = caller.forward_key.as_ref().map_or("-", Secret::expose);
                format!("{namespace} {key} {}", caller.requests_per_minute)
            }
        }
    }

    #[tokio::test]
    async fn the_header_and_the_path_decide_who_calls() {
        use Surface::{ProviderHost, V1};
        let gateway_key = format!("Bearer {GATEWAY_KEY}");
        let (local, open) = (local().await, public(Some(true), 1).await);
        let (closed, unset) = (public(Some(false), 1).await, public(None, 1).await);
        for (callers, header, surface, expect) in [
            (&local, "", V1, "local - 0"),
            (&local, "Bearer sk-1", V1, "local sk-1 0"),
            (&local, "bearer  sk-1 ", ProviderHost, "local sk-1 0"),
            (&local, "Bearer", V1, "local - 0"),
            (&local, "Bearer ", V1, "local - 0"),
            (&local, "Basic YTpi", V1, "NotBearer"),
            (&local, "Bearer a b", V1, "NotBearer"),
            (&local, &gateway_key, V1, "Unknown"),
            (&local, "Bearer tgk_other", ProviderHost, "Unknown"),
            (&open, &gateway_key, V1, "project:shop - 7"),
            (&open, &gateway_key, ProviderHost, "GatewayKeyForHost"),
            (&open, "Bearer tgk_other", V1, "Unknown"),
            (&open, "Bearer tgk_other", ProviderHost, "Unknown"),
            (&open, "Bearer TGK_other", V1, "Unknown"),
            (&open, "Bearer \"tgk_other\"", ProviderHost, "Unknown"),
            (&open, "Bearer tgk-other", V1, "Unknown"),
            (&open, "Bearer sk-1", V1, "pt: sk-1 600"),
            (&open, "Bearer sk-1", ProviderHost, "pt: sk-1 600"),
            (&open, "", V1, "Missing"),
            (&open, "", ProviderHost, "Missing"),
            (&closed, &gateway_key, V1, "project:shop - 7"),
            (&closed, "Bearer sk-1", V1, "PassThroughOff"),
            (&closed, "Bearer sk-1", ProviderHost, "PassThroughOff"),
            (&unset, &gateway_key, V1, "project:shop - 7"),
            (&unset, "Bearer sk-1", V1, "PassThroughOff"),
            (&unset, "Bearer sk-1", ProviderHost, "PassThroughOff"),
            (&unset, "", V1, "Missing"),
        ] {
            assert_eq!(outcome(callers, header, surface), expect, "{header} {surface:?}");
        }
        assert!(matches!(open.resolve(Some(b"Bearer \xff"), V1), Err(Error::NotBearer)));
    }

    #[tokio::test]
    async fn without_a_word_of_the_operator_a_project_ends_pass_through_and_its_deletion_brings_it_back() {
        let settings = Settings { listen: "0.0.0.0:80".parse().unwrap(), ..Settings::default() };
        let store = Store::open(&crate::store::Location::Memory).await.unwrap();
        store.migrate().await.unwrap();
        let callers = Callers::new(&settings, store.clone(), Pepper::new([1; 32]));
        callers.refresh().await.unwrap();
        assert!(outcome(&callers, "Bearer sk-1", Surface::V1).starts_with("pt: sk-1"));
        let project = Project {
            name: "shop".to_owned(),
            proof: crate::store::ProjectProof::Gateway,
            verifier_url: None,
            webhook_url: None,
            sealed_webhook_secret: None,
            created_at: 1,
            updated_at: 1,
        };
        store.create_project(&project).await.unwrap();
        callers.refresh().await.unwrap();
        for surface in [Surface::V1, Surface::ProviderHost] {
            assert_eq!(outcome(&callers, "Bearer sk-1", surface), "PassThroughOff", "without any key, too");
        }
        let nothing = async |_: &mut crate::store::Transaction, _: &crate::store::FlowRow| {
            Ok::<(), crate::store::Error>(())
        };
        store.delete_project("shop", nothing).await.unwrap();
        callers.refresh().await.unwrap();
        assert!(callers.takes_pass_through());
    }

    #[tokio::test]
    async fn pass_through_callers_are_kept_apart_by_their_keys() {
        let callers = public(Some(true), 1).await;
        let namespace = |key: &str| {
            callers.resolve(Some(format!("Bearer {key}").as_bytes()), Surface::V1).unwrap().namespace
        };
        assert_eq!(namespace("sk-1"), namespace("sk-1"));
        assert_ne!(namespace("sk-1"), namespace("sk-2"));
        assert!(!namespace("sk-1").contains("sk-1"));
        let of = |callers: Callers| callers.resolve(Some(b"Bearer sk-1"), Surface::V1).unwrap().namespace;
        assert_eq!(
            namespace("sk-1"),
            of(public(Some(true), 1).await),
            "the same in every process with this store"
        );
        assert_ne!(namespace("sk-1"), of(public(Some(true), 2).await), "and in no other");
    }

    #[tokio::test]
    async fn a_caller_does_not_show_its_key() {
        let caller = local().await.resolve(Some(b"Bearer sk-very-secret"), Surface::V1).unwrap();
        assert!(!format!("{caller:?}").contains("very-secret"));
    }

    #[tokio::test]
    async fn of_a_key_only_its_ending_is_kept_and_nothing_of_a_short_one() {
        let ending = |header: &'static str, callers: &Callers| {
            callers.resolve(Some(header.as_bytes()), Surface::V1).unwrap().key_ending.as_str().to_owned()
        };
        let (local, open) = (local().await, public(Some(true), 1).await);
        assert_eq!(ending("Bearer sk-proj-0123456789abcdef", &open), "cdef");
        assert_eq!(ending("Bearer sk-proj-0123456789abcdef", &local), "cdef");
        assert_eq!(ending("Bearer tgk_0123456789abcdefghjkmnpq", &open), "mnpq");
        assert_eq!(ending("Bearer sk-short", &open), "");
        assert_eq!(local.resolve(None, Surface::V1).unwrap().key_ending.as_str(), "");
    }
}
