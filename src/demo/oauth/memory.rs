//! Everything the authorization server remembers, and the rules by which it gives out and takes back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::client::Client;
use super::error::Refusal;
use super::shelf::{Digest, Shelf};
use crate::crypto::{constant_time_eq, sha256};
use crate::id::random_id;

/// How long a login page can be answered.
const PAGE_SECONDS: i64 = 600;
/// RFC 6749 §4.1.2 wants less than ten minutes; a client needs one second.
const CODE_SECONDS: i64 = 60;
/// Short, so that one sees a refresh.
pub const ACCESS_SECONDS: i64 = 600;
/// How long a login lives that nobody uses.
const GRANT_SECONDS: i64 = 30 * 86_400;
const MOST_PAGES: usize = 200;
const MOST_CODES: usize = 200;
const MOST_GRANTS: usize = 500;
const MOST_ACCESS_TOKENS: usize = 2000;

/// What an application asks a person for, checked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub client: Client,
    pub redirect_uri: String,
    pub state: Option<String>,
    /// PKCE's, by S256.
    pub challenge: String,
    pub resource: String,
    /// Where the person was asked.
    pub issuer: String,
}

/// What a token request brings (RFC 6749 §4.1.3, RFC 7636 §4.5, RFC 8707 §2.2).
pub struct Redemption<'a> {
    pub client_id: &'a str,
    pub code: &'a str,
    pub redirect_uri: &'a str,
    pub verifier: &'a str,
    pub resource: Option<&'a str>,
}

/// Tokens for a client.
pub struct Issued {
    pub access: String,
    pub refresh: String,
    pub person: String,
}

struct Page {
    browser: Digest,
    asked: Asked,
}

struct Code {
    asked: Asked,
    person: String,
    /// The grant that it was exchanged for.
    spent_on: Option<Digest>,
}

/// What a person allowed a client.
struct Grant {
    client_id: String,
    resource: String,
    person: String,
    /// The refresh token that is good now.
    refresh: Digest,
}

struct Access {
    grant: Digest,
    resource: String,
    person: String,
}

struct State {
    pages: Shelf<Page>,
    codes: Shelf<Code>,
    grants: Shelf<Grant>,
    access: Shelf<Access>,
}

/// The memory. Cheap to clone; the clones are one. Times are seconds since 1970.
#[derive(Clone)]
pub struct Memory(Arc<Mutex<State>>);

impl Default for Memory {
    fn default() -> Self {
        Memory(Arc::new(Mutex::new(State {
            pages: Shelf::new(MOST_PAGES),
            codes: Shelf::new(MOST_CODES),
            grants: Shelf::new(MOST_GRANTS),
            access: Shelf::new(MOST_ACCESS_TOKENS),
        })))
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page for the person in this browser; gives its id.
    pub fn open_page(&self, now: i64, browser: &str, asked: Asked) -> String {
        let id = random_id("demo_page_");
        let page = Page { browser: sha256(browser.as_bytes()), asked };
        self.lock().pages.put(now, PAGE_SECONDS, sha256(id.as_bytes()), page);
        id
    }

    /// What the page asks, in the browser that it was opened in.
    pub fn find_page(&self, now: i64, id: &str, browser: &str) -> Option<Asked> {
        let mut state = self.lock();
        let page = state.pages.find(now, &sha256(id.as_bytes()))?;
        (page.browser == sha256(browser.as_bytes())).then(|| page.asked.clone())
    }

    /// As [`Memory::find_page`], and the page is answered: it is good once.
    pub fn take_page(&self, now: i64, id: &str, browser: &str) -> Option<Asked> {
        self.find_page(now, id, browser)?;
        self.lock().pages.take(now, &sha256(id.as_bytes())).map(|page| page.asked)
    }

    /// A code for the client that may act as `person`.
    pub fn give_code(&self, now: i64, asked: Asked, person: String) -> String {
        let code = random_id("demo_code_");
        let entry = Code { asked, person, spent_on: None };
        self.lock().codes.put(now, CODE_SECONDS, sha256(code.as_bytes()), entry);
        code
    }

    /// Exchanges a code. Whatever comes of it, the code is spent.
    ///
    /// # Errors
    /// When it is not this client's, not for this address, verifier or resource, or not good any more. Used for the
    /// second time, it also ends what it was exchanged for: somebody else has it (RFC 6749 §4.1.2).
    pub fn redeem(&self, now: i64, given: &Redemption<'_>) -> Result<Issued, Refusal> {
        let mut state = self.lock();
        let key = sha256(given.code.as_bytes());
        let unknown = Refusal::invalid_grant("the code is unknown, used or expired");
        let code = state.codes.find(now, &key).ok_or(unknown)?;
        if let Some(grant) = code.spent_on {
            state.end(&grant);
            return Err(unknown);
        }
        let grant = random_id("demo_rt_");
        let grant_key = sha256(grant.as_bytes());
        code.spent_on = Some(grant_key);
        let (asked, person) = (code.asked.clone(), code.person.clone());
        if asked.client.id != given.client_id {
            return Err(Refusal::invalid_grant("the code was given to another client"));
        }
        if asked.redirect_uri != given.redirect_uri {
            return Err(Refusal::invalid_grant("`redirect_uri` is not that of the authorization request"));
        }
        let challenge = URL_SAFE_NO_PAD.encode(sha256(given.verifier.as_bytes()));
        if !constant_time_eq(challenge.as_bytes(), asked.challenge.as_bytes()) {
            return Err(Refusal::invalid_grant("`code_verifier` does not fit the challenge"));
        }
        same_resource(given.resource, &asked.resource)?;
        let entry = Grant {
            client_id: asked.client.id,
            resource: asked.resource,
            person,
            refresh: Digest::default(),
        };
        state.grants.put(now, GRANT_SECONDS, grant_key, entry);
        Ok(state.issue(now, &grant))
    }

    /// Exchanges a refresh token for another one and a new access token.
    ///
    /// # Errors
    /// When it is not good. One that was used before ends the whole login: of two holders one is a thief, and nobody
    /// can tell which (RFC 9700 §4.14.2).
    pub fn refresh(
        &self,
        now: i64,
        client_id: &str,
        token: &str,
        resource: Option<&str>,
    ) -> Result<Issued, Refusal> {
        let unknown = Refusal::invalid_grant("the refresh token is unknown, used, revoked or expired");
        let mut state = self.lock();
        let (grant, _) = token.split_once('.').ok_or(unknown)?;
        let key = sha256(grant.as_bytes());
        let known = state.grants.find(now, &key).ok_or(unknown)?;
        if known.client_id != client_id {
            return Err(Refusal::invalid_grant("the refresh token was given to another client"));
        }
        same_resource(resource, &known.resource)?;
        if known.refresh != sha256(token.as_bytes()) {
            state.end(&key);
            return Err(unknown);
        }
        Ok(state.issue(now, grant))
    }

    /// Ends the login that a token of either kind belongs to. One that is unknown is ended already (RFC 7009 §2.2).
    ///
    /// # Errors
    /// When it is another client's.
    pub fn revoke(&self, now: i64, client_id: &str, token: &str) -> Result<(), Refusal> {
        let mut state = self.lock();
        let by_access = state.access.find(now, &sha256(token.as_bytes())).map(|access| access.grant);
        let by_refresh = token.split_once('.').map(|(grant, _)| sha256(grant.as_bytes()));
        let Some(key) = by_access.or(by_refresh) else { return Ok(()) };
        let Some(grant) = state.grants.find(now, &key) else { return Ok(()) };
        if grant.client_id != client_id {
            return Err(Refusal::new("unauthorized_client", "the token was given to another client"));
        }
        state.end(&key);
        Ok(())
    }

    /// Who uses `resource` with this access token; `None` when it is not good, or good elsewhere only.
    pub fn find_person(&self, now: i64, token: &str, resource: &str) -> Option<String> {
        let mut state = self.lock();
        let access = state.access.find(now, &sha256(token.as_bytes()))?;
        (access.resource == resource).then(|| access.person.clone())
    }
}

/// Tokens are for the resource that the person was asked about; a token request can only repeat it (RFC 8707 §2.2).
fn same_resource(given: Option<&str>, granted: &str) -> Result<(), Refusal> {
    match given {
        Some(given) if given != granted => {
            Err(Refusal::new("invalid_target", "`resource` is not what the person agreed to"))
        }
        _ => Ok(()),
    }
}

impl State {
    /// New tokens for a grant; its refresh token begins with the grant's own id, so that used ones are recognised.
    fn issue(&mut self, now: i64, grant: &str) -> Issued {
        let key = sha256(grant.as_bytes());
        let (access, refresh) = (random_id("demo_at_"), random_id(&format!("{grant}.")));
        let mut entry = self.grants.take(now, &key).expect("the caller has just found it");
        entry.refresh = sha256(refresh.as_bytes());
        let token = Access { grant: key, resource: entry.resource.clone(), person: entry.person.clone() };
        let person = entry.person.clone();
        self.access.put(now, ACCESS_SECONDS, sha256(access.as_bytes()), token);
        self.grants.put(now, GRANT_SECONDS, key, entry);
        Issued { access, refresh, person }
    }

    fn end(&mut self, grant: &Digest) {
        self.grants.delete(grant);
        self.access.delete_where(|access| access.grant == *grant);
    }
}
