//! Applications that ask for logins: who they say they are, and where people may be sent back to.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use url::Url;

use super::document;
use super::error::Refusal;
use crate::clean_json;
use crate::demo::address::is_loopback;
use crate::egress::Egress;
use crate::tools::text;

/// Longest client id that we make or take, in bytes.
const MAX_ID_BYTES: usize = 2048;
const MAX_REDIRECTS: usize = 5;
const MAX_REDIRECT_BYTES: usize = 512;
/// Longest name that is shown, in characters.
const MAX_NAME: usize = 60;
/// How ids begin that we made.
const REGISTERED: &str = "demo_client_";

/// An application. It has no secret: PKCE binds a code to whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub id: String,
    /// What it calls itself: a claim, one line.
    pub name: String,
    pub redirect_uris: Vec<String>,
    /// The host that vouches for it, when its id is an address there.
    pub host: Option<String>,
}

/// What a registered client's id holds.
#[derive(Serialize, Deserialize)]
struct Registered {
    #[serde(rename = "n")]
    name: String,
    #[serde(rename = "r")]
    redirect_uris: Vec<String>,
}

impl Client {
    /// Registers a client without storing anything: its id says all there is to know of it (RFC 7591 appendix A.5.2), so
    /// it is still good when the program was started anew. It needs no signature, since anybody may register anything.
    ///
    /// # Errors
    /// When its redirect addresses cannot be used.
    pub fn register(name: &str, redirect_uris: Vec<String>) -> Result<Client, Refusal> {
        check_redirects(&redirect_uris)?;
        let name = text::one_line(name, MAX_NAME);
        let registered = Registered { name, redirect_uris };
        let json = serde_json::to_vec(&registered).expect("texts are JSON");
        let id = format!("{REGISTERED}{}", URL_SAFE_NO_PAD.encode(json));
        if id.len() > MAX_ID_BYTES {
            return Err(Refusal::new("invalid_client_metadata", "the redirect addresses are too long"));
        }
        let Registered { name, redirect_uris } = registered;
        Ok(Client { id, name, redirect_uris, host: None })
    }

    /// The client with this id: one that registered, or one whose id is the address of its document, which is fetched.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn resolve(egress: &Egress, id: &str) -> Result<Client, &'static str> {
        if id.len() > MAX_ID_BYTES {
            return Err("the application's client id is too long");
        }
        if id.starts_with("https://") || id.starts_with("http://") {
            return document::fetch(egress, id).await;
        }
        let unknown = "the application's client id is unknown here";
        let encoded = id.strip_prefix(REGISTERED).ok_or(unknown)?;
        let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| unknown)?;
        let registered: Registered = clean_json::from_slice(&json).map_err(|_| unknown)?;
        let client = Client::register(&registered.name, registered.redirect_uris).map_err(|_| unknown)?;
        // One client has one id.
        if client.id == id { Ok(client) } else { Err(unknown) }
    }

    /// Whether people may be sent back there: only where it is registered, to the letter (RFC 9700 §2.1).
    pub fn has_redirect(&self, redirect_uri: &str) -> bool {
        self.redirect_uris.iter().any(|registered| registered == redirect_uri)
    }
}

/// https, or http on this machine (RFC 8252 §7.3); nothing that hides where it leads.
pub fn check_redirects(redirect_uris: &[String]) -> Result<(), Refusal> {
    let refuse = |why| Err(Refusal::new("invalid_redirect_uri", why));
    if redirect_uris.is_empty() || redirect_uris.len() > MAX_REDIRECTS {
        return refuse("there must be 1 to 5 redirect addresses");
    }
    for text in redirect_uris {
        let is_plain = text.len() <= MAX_REDIRECT_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
        let Some(url) = Url::parse(text).ok().filter(|_| is_plain && !text.contains('\\')) else {
            return refuse("a redirect address is none");
        };
        if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return refuse("a redirect address has a fragment or credentials");
        }
        match (url.scheme(), url.host_str()) {
            ("https", Some(_)) => {}
            ("http", Some(host)) if is_loopback(host) => {}
            _ => return refuse("a redirect address must be https, or http on this machine"),
        }
    }
    Ok(())
}
