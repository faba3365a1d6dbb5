//! From the `Authorization` header to a caller.

use std::sync::Arc;

use super::Error;
use crate::config::{Secret, Settings};
use crate::crypto::{ApiKeyHash, hmac_sha256, to_hex};

/// The prefix of the gateway's own keys. What bears it is never sent to anyone else.
const GATEWAY_KEY_PREFIX: &str = "tgk_";
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
    /// What keeps the caller's things apart from those of others: `local`, `project:…` or `pt:…`.
    pub namespace: Arc<str>,
    /// The key that came with the request, when it may be sent to a provider. Never a gateway key.
    pub forward_key: Option<Secret>,
    /// How many requests a minute the caller may send; 0 is no limit.
    pub requests_per_minute: u32,
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
}

/// Knows the callers that the settings allow.
pub struct Callers {
    local: bool,
    pass_through: bool,
    requests_per_minute: u32,
    keys: Vec<Key>,
    local_namespace: Arc<str>,
    /// Makes namespaces of keys that cannot be traced back to them. New for every process.
    pepper: [u8; 32],
}

struct Key {
    hash: ApiKeyHash,
    kind: CallerKind,
    namespace: Arc<str>,
    requests_per_minute: u32,
}

impl Callers {
    /// The callers of a gateway with `settings`. Keys whose hash is malformed are let out; loading the settings
    /// has refused them before.
    ///
    /// # Panics
    /// When the operating system gives no randomness: nothing safe can be done without it.
    pub fn new(settings: &Settings) -> Self {
        let default = settings.rate_limit.requests_per_minute;
        let keys = settings.api_keys.iter().filter_map(|key| {
            let project = key.project.as_ref().unwrap_or(&key.name);
            Some(Key {
                hash: ApiKeyHash::parse(&key.hash).ok()?,
                kind: CallerKind::Project {
                    name: project.as_str().into(),
                    key_name: key.name.as_str().into(),
                },
                namespace: format!("project:{project}").into(),
                requests_per_minute: key.requests_per_minute.unwrap_or(default),
            })
        });
        let mut pepper = [0; 32];
        getrandom::fill(&mut pepper).expect("the operating system provides randomness");
        Callers {
            local: settings.is_local(),
            pass_through: settings.pass_through.enabled,
            requests_per_minute: default,
            keys: keys.collect(),
            local_namespace: "local".into(),
            pepper,
        }
    }

    /// The caller that `authorization`, the header's bytes, stands for on `surface`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn resolve(&self, authorization: Option<&[u8]>, surface: Surface) -> Result<Caller, Error> {
        let key = authorization.map(bearer).transpose()?.flatten();
        if let Some(key) = key
            && key.starts_with(GATEWAY_KEY_PREFIX)
        {
            let known = self.find_key(key).ok_or(Error::Unknown)?;
            return match surface {
                Surface::V1 => Ok(known.caller()),
                Surface::ProviderHost => Err(Error::GatewayKeyForHost),
            };
        }
        if self.local {
            return Ok(Caller {
                kind: CallerKind::Local,
                namespace: self.local_namespace.clone(),
                forward_key: key.map(Secret::new),
                requests_per_minute: 0,
            });
        }
        let key = key.ok_or(Error::Missing)?;
        if !self.pass_through {
            return Err(Error::Unknown);
        }
        let hash = hmac_sha256(&self.pepper, key.as_bytes());
        Ok(Caller {
            kind: CallerKind::PassThrough,
            namespace: format!("pt:{}", to_hex(&hash[..16])).into(),
            forward_key: Some(Secret::new(key)),
            requests_per_minute: self.requests_per_minute,
        })
    }

    /// Compares with every key, so that the time tells nothing about which keys there are.
    fn find_key(&self, key: &str) -> Option<&Key> {
        let hash = ApiKeyHash::of(key);
        self.keys
            .iter()
            .fold(None, |found, known| if known.hash.matches(&hash) { Some(known) } else { found })
    }
}

impl Key {
    fn caller(&self) -> Caller {
        Caller {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            forward_key: None,
            requests_per_minute: self.requests_per_minute,
        }
    }
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

    fn local() -> Callers {
        Callers::new(&Settings::default())
    }

    fn public(pass_through: bool) -> Callers {
        let mut settings = Settings { listen: "0.0.0.0:80".parse().unwrap(), ..Settings::default() };
        settings.pass_through.enabled = pass_through;
        settings.api_keys.push(ApiKey {
            name: "web".to_owned(),
            project: Some("shop".to_owned()),
            hash: ApiKeyHash::of(GATEWAY_KEY).to_string(),
            requests_per_minute: Some(7),
        });
        Callers::new(&settings)
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

    #[test]
    fn the_header_and_the_path_decide_who_calls() {
        use Surface::{ProviderHost, V1};
        let gateway_key = format!("Bearer {GATEWAY_KEY}");
        let (local, open, closed) = (local(), public(true), public(false));
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
            (&open, "Bearer sk-1", V1, "pt: sk-1 600"),
            (&open, "Bearer sk-1", ProviderHost, "pt: sk-1 600"),
            (&open, "", V1, "Missing"),
            (&open, "", ProviderHost, "Missing"),
            (&closed, &gateway_key, V1, "project:shop - 7"),
            (&closed, "Bearer sk-1", V1, "Unknown"),
            (&closed, "Bearer sk-1", ProviderHost, "Unknown"),
        ] {
            assert_eq!(outcome(callers, header, surface), expect, "{header} {surface:?}");
        }
        assert!(matches!(open.resolve(Some(b"Bearer \xff"), V1), Err(Error::NotBearer)));
    }

    #[test]
    fn pass_through_callers_are_kept_apart_by_their_keys() {
        let callers = public(true);
        let namespace = |key: &str| {
            callers.resolve(Some(format!("Bearer {key}").as_bytes()), Surface::V1).unwrap().namespace
        };
        assert_eq!(namespace("sk-1"), namespace("sk-1"));
        assert_ne!(namespace("sk-1"), namespace("sk-2"));
        assert!(!namespace("sk-1").contains("sk-1"));
        let other_process = public(true).resolve(Some(b"Bearer sk-1"), Surface::V1).unwrap().namespace;
        assert_ne!(namespace("sk-1"), other_process);
    }

    #[test]
    fn a_caller_does_not_show_its_key() {
        let caller = local().resolve(Some(b"Bearer sk-very-secret"), Surface::V1).unwrap();
        assert!(!format!("{caller:?}").contains("very-secret"));
    }
}
