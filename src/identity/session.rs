//! Who is signed in, in which browser.
//!
//! A session is a random secret in the browser's cookie, and its hash in the store: a stolen database signs nobody
//! in. Every look asks the store, so that a session which was ended is over at once, on every instance.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{Admission, Secret};
use crate::crypto::sha256;
use crate::id::random_id;
use crate::store::{self, Session, Store};

/// Time without use after which a session is over, in milliseconds: 30 days.
pub const SESSION_IDLE_MS: i64 = 30 * 24 * 3600 * 1000;
/// The use of a session is noted at most this often, in milliseconds.
const NOTED_EVERY_MS: i64 = 60 * 1000;
/// How often what is over is forgotten.
const SWEPT_EVERY: std::time::Duration = std::time::Duration::from_secs(60);
/// Longest name of a browser that is kept, in characters.
const LONGEST_AGENT: usize = 200;

/// A person who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// `acct_…`: theirs for good.
    pub account: Arc<str>,
    /// The name of the sign-in provider.
    pub provider: String,
    /// What the provider calls them.
    pub subject: String,
    /// What they call themselves. Decides nothing.
    pub label: String,
    /// This session's name.
    pub session: String,
}

impl Person {
    /// The stable ids under which an application may know this person: `acct_…` and `{provider}:{subject}`.
    pub fn ids(&self) -> [String; 2] {
        [self.account.to_string(), format!("{}:{}", self.provider, self.subject)]
    }
}

/// The sessions of this gateway. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    store: Store,
    clock: Clock,
    /// Who is let in, which every look asks: settings may have changed since somebody signed in.
    admission: Arc<Admission>,
}

impl Sessions {
    /// Sessions in `store`, of people whom `admission` lets in.
    pub fn new(store: Store, clock: Clock, admission: Admission) -> Self {
        Sessions { store, clock, admission: Arc::new(admission) }
    }

    /// Ends the sessions of everybody who is not let in any more, at every instance, and says how many people that were.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn end_of_outsiders(&self) -> Result<usize, store::Error> {
        let mut number = 0;
        for account in self.store.list_signed_in().await? {
            if !self.admission.admits(&account.provider, &account.issuer, &account.email_domain) {
                self.store.delete_sessions(&account.id).await?;
                number += 1;
            }
        }
        Ok(number)
    }

    fn lets_in(&self, account: &store::Account) -> bool {
        self.admission.admits(&account.provider, &account.issuer, &account.email_domain)
    }

    /// Signs a person in, in a browser that calls itself `agent`. What comes back belongs into its cookie.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn start(&self, account: &store::Account, agent: &str) -> Result<Secret, store::Error> {
        let now = self.clock.unix_milliseconds();
        // Two ids hold 260 random bits.
        let secret = Secret::new(format!("{}{}", random_id("tgs_"), random_id("")));
        let session = Session {
            account: account.id.clone(),
            id: random_id("sess_"),
            agent: agent.chars().filter(|c| !c.is_control()).take(LONGEST_AGENT).collect(),
            created_at: now,
            used_at: now,
        };
        self.store.create_session(&session, &sha256(secret.expose().as_bytes())).await?;
        Ok(secret)
    }

    /// Forgets, until the process ends, sessions that are over and sign-ins that nobody finished.
    pub async fn work(&self) {
        loop {
            let now = self.clock.unix_milliseconds();
            if let Err(error) = self.store.sweep_sessions(now, now - SESSION_IDLE_MS).await {
                tracing::debug!(%error, "sessions that are over could not be forgotten yet");
            }
            tokio::time::sleep(SWEPT_EVERY).await;
        }
    }

    /// Who is signed in with this cookie.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn find(&self, cookie: &str) -> Result<Option<Person>, store::Error> {
        if !cookie.starts_with("tgs_") {
            return Ok(None);
        }
        let now = self.clock.unix_milliseconds();
        let hash = sha256(cookie.as_bytes());
        let Some((session, account)) = self.store.find_session(&hash, now - SESSION_IDLE_MS).await? else {
            return Ok(None);
        };
        if !self.lets_in(&account) {
            return Ok(None);
        }
        if now - session.used_at >= NOTED_EVERY_MS {
            self.store.touch_session(&session.account, &session.id, now).await?;
        }
        Ok(Some(Person {
            account: account.id.into(),
            provider: account.provider,
            subject: account.subject,
            label: account.label,
            session: session.id,
        }))
    }

    /// The browsers in which a person is signed in, the latest first.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn list(&self, person: &Person) -> Result<Vec<Session>, store::Error> {
        let now = self.clock.unix_milliseconds();
        self.store.list_sessions(&person.account, now - SESSION_IDLE_MS).await
    }

    /// Ends one session of a person. Whether there was one.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn end(&self, person: &Person, session: &str) -> Result<bool, store::Error> {
        self.store.delete_session(&person.account, session).await
    }

    /// Ends every session of a person, and says how many there were.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn end_all(&self, person: &Person) -> Result<u64, store::Error> {
        self.store.delete_sessions(&person.account).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Settings, SignIn};
    use crate::store::{Account, Location};

    async fn signed_in() -> (Sessions, Store, Clock, Secret) {
        let store = Store::open(&Location::Memory).await.unwrap();
        store.migrate().await.unwrap();
        let clock = Clock::fixed(1_000_000_000_000);
        let sessions =
            Sessions::new(store.clone(), clock.clone(), people(&[("company", "https://a.example")]));
        let account = store.put_account(&account("acct_1", "company", "https://a.example")).await.unwrap();
        let cookie = sessions.start(&account, "Browser\u{7}").await.unwrap();
        (sessions, store, clock, cookie)
    }

    fn people(providers: &[(&str, &str)]) -> Admission {
        let entry = |(name, issuer): &(&str, &str)| SignIn {
            name: (*name).to_owned(),
            issuer: Some((*issuer).to_owned()),
            ..SignIn::default()
        };
        Settings { sign_in: providers.iter().map(entry).collect(), ..Settings::default() }.admission()
    }

    fn account(id: &str, provider: &str, issuer: &str) -> Account {
        Account {
            id: id.into(),
            provider: provider.into(),
            issuer: issuer.into(),
            subject: "s".into(),
            label: "Ann\0".into(),
            email_domain: String::new(),
            created_at: 1,
            signed_in_at: 2,
        }
    }

    #[tokio::test]
    async fn a_session_lives_while_it_is_used_and_dies_when_ended() {
        let (sessions, _, clock, cookie) = signed_in().await;
        let person = sessions.find(cookie.expose()).await.unwrap().unwrap();
        assert_eq!(person.ids(), ["acct_1", "company:s"]);
        for _ in 0..3 {
            clock.advance(Duration::from_secs(29 * 24 * 3600));
            assert!(sessions.find(cookie.expose()).await.unwrap().is_some());
        }
        clock.advance(Duration::from_secs(30 * 24 * 3600));
        assert!(sessions.find(cookie.expose()).await.unwrap().is_none(), "30 days without use");
        let (sessions, _, _, cookie) = signed_in().await;
        let person = sessions.find(cookie.expose()).await.unwrap().unwrap();
        assert_eq!(sessions.list(&person).await.unwrap()[0].agent, "Browser");
        assert!(sessions.end(&person, &person.session).await.unwrap());
        assert!(sessions.find(cookie.expose()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn neither_the_stores_content_nor_a_guess_opens_a_session() {
        let (sessions, store, _, cookie) = signed_in().await;
        let hash = sha256(cookie.expose().as_bytes());
        assert!(store.find_session(&hash, 0).await.unwrap().is_some());
        for guess in ["", "tgs_", "sess_1", &crate::crypto::to_hex(&hash), &cookie.expose()[..50]] {
            assert!(sessions.find(guess).await.unwrap().is_none(), "{guess}");
        }
    }

    #[tokio::test]
    async fn people_are_one_by_issuer_and_subject_only() {
        let (sessions, store, clock, cookie) = signed_in().await;
        let again = store.put_account(&account("acct_2", "renamed", "https://a.example")).await.unwrap();
        assert_eq!((again.id.as_str(), again.provider.as_str()), ("acct_1", "renamed"));
        let other = store.put_account(&account("acct_3", "company", "https://b.example")).await.unwrap();
        assert_eq!(other.id, "acct_3");
        // The name `company` is not the issuer's any more that this person signed in with.
        assert!(sessions.find(cookie.expose()).await.unwrap().is_none());
        let stranger = sessions.start(&other, "").await.unwrap();
        assert!(sessions.find(stranger.expose()).await.unwrap().is_none(), "the name means another issuer");
        let moved = people(&[("company", "https://b.example"), ("renamed", "https://a.example")]);
        let sessions = Sessions::new(store, clock, moved);
        assert!(sessions.find(stranger.expose()).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn signing_out_everywhere_ends_all_sessions_of_one_person() {
        let (sessions, store, _, cookie) = signed_in().await;
        let person = sessions.find(cookie.expose()).await.unwrap().unwrap();
        let mut other = account("acct_9", "company", "https://a.example");
        other.subject = "t".into();
        let other = store.put_account(&other).await.unwrap();
        let others = sessions.start(&other, "").await.unwrap();
        assert_eq!(sessions.end_all(&person).await.unwrap(), 1);
        assert!(sessions.find(cookie.expose()).await.unwrap().is_none());
        assert!(sessions.find(others.expose()).await.unwrap().is_some());
    }
}
