//! The configured sign-in providers, and the way there and back.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use serde_json::Value;

use super::super::session::SESSION_IDLE_MS;
use super::attempt::Attempt;
use super::claims::{self, Expected};
use super::userinfo::{self, Who};
use super::wire::{self, ClientProof, Metadata};
use crate::clock::Clock;
use crate::config::{self, Admission, Secret, Settings, SignInKind};
use crate::egress::Egress;
use crate::id::random_id;
use crate::store::{self, Account, SignInRow, Store};

/// How long somebody may take at the provider, in milliseconds.
const ATTEMPT_MS: i64 = 10 * 60 * 1000;
/// How long an issuer's metadata is kept.
const METADATA_KEPT: Duration = Duration::from_secs(600);
/// Longest name of a person that is kept, in characters.
const LONGEST_LABEL: usize = 200;

/// Signs people in. Cheap to clone.
#[derive(Clone)]
pub struct SignIn(Arc<Inner>);

struct Inner {
    providers: Vec<Provider>,
    admission: Admission,
    metadata: moka::sync::Cache<usize, Metadata>,
    egress: Egress,
    store: Store,
    clock: Clock,
    public_url: String,
}

struct Provider {
    name: String,
    title: String,
    kind: SignInKind,
    issuer: String,
    client_id: String,
    client_secret: Option<Secret>,
    oauth2: Option<config::SignInOauth2>,
}

/// Who is to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Whoever the provider knows in this browser.
    Anyone,
    /// Somebody else than last time.
    Another,
}

/// The fields with which a provider sends the browser back; one that was there twice is not there.
#[derive(Debug, Default)]
pub struct Returned {
    pub state: Option<String>,
    pub code: Option<String>,
    pub iss: Option<String>,
}

/// Somebody came back from their provider.
#[derive(Debug)]
pub struct SignedIn {
    pub account: Account,
    /// Where they were going.
    pub return_to: String,
}

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    #[error("there is no such sign-in provider")]
    UnknownProvider,
    /// The way back does not belong to a way there that began in this browser, was used, or took too long.
    #[error("this sign-in was not begun in this browser, was finished before, or took too long")]
    NotBegunHere,
    /// The person said no, or the provider did.
    #[error("{title} did not sign you in")]
    Declined { title: String },
    /// The provider could not be reached or answered something that cannot be trusted.
    #[error("{title} could not be used")]
    Failed { title: String },
    #[error("accounts of {title} like yours may not sign in here")]
    NotAllowed { title: String },
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl SignIn {
    /// The providers of the configuration. `variable` looks into the environment; `public_url` is without a slash at
    /// its end.
    ///
    /// # Errors
    /// A sentence, when a secret cannot be read.
    pub fn new(
        settings: &Settings,
        variable: &dyn Fn(&str) -> Option<String>,
        egress: Egress,
        store: Store,
        clock: Clock,
        public_url: String,
    ) -> Result<Self, String> {
        let providers = settings
            .sign_in
            .iter()
            .map(|entry| {
                let (kind, issuer) = entry.kind();
                Ok(Provider {
                    name: entry.name.clone(),
                    title: entry.title().to_owned(),
                    kind,
                    issuer: issuer.unwrap_or_default().to_owned(),
                    client_id: entry.client_id.clone(),
                    client_secret: secret_of(entry, variable)?,
                    oauth2: entry.oauth2.clone(),
                })
            })
            .collect::<Result<_, String>>()?;
        let metadata = moka::sync::Cache::builder().max_capacity(1000).time_to_live(METADATA_KEPT).build();
        Ok(SignIn(Arc::new(Inner {
            providers,
            admission: settings.admission(),
            metadata,
            egress,
            store,
            clock,
            public_url,
        })))
    }

    /// Name and title of every provider.
    pub fn providers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.providers.iter().map(|provider| (provider.name.as_str(), provider.title.as_str()))
    }

    /// Begins to sign in the person in front of the browser with this cookie. They go to the address that comes
    /// back, and later to `return_to`, a path of ours.
    ///
    /// # Errors
    /// See [`SignInError`].
    pub async fn begin(
        &self,
        provider: &str,
        browser: &Secret,
        return_to: &str,
        whom: Whom,
    ) -> Result<Uri, SignInError> {
        let (number, provider) = self.find(provider)?;
        let metadata = self.metadata(number, provider).await?;
        let attempt = Attempt::begin(browser);
        let mut url =
            url::Url::parse(&metadata.authorization_endpoint).map_err(|_| failed(provider, "no address"))?;
        let scope = match provider.kind {
            SignInKind::OpenId | SignInKind::Microsoft => "openid profile email",
            SignInKind::GitHub => "read:user",
            SignInKind::X => "users.read tweet.read",
            SignInKind::OAuth2 => provider.oauth2.as_ref().map_or("", |oauth2| &oauth2.scope),
        };
        if !scope.is_empty() {
            url.query_pairs_mut().append_pair("scope", scope);
        }
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &provider.client_id)
            .append_pair("redirect_uri", &self.redirect_uri(provider))
            .append_pair("state", &attempt.state)
            .append_pair("code_challenge", &attempt.challenge())
            .append_pair("code_challenge_method", "S256");
        if matches!(provider.kind, SignInKind::OpenId | SignInKind::Microsoft) {
            url.query_pairs_mut().append_pair("nonce", &attempt.nonce);
        }
        // Without this the wrong one of several accounts would come back again and again. `select_account` is an
        // error where it is not known; every OpenID provider knows `login`.
        let prompt = match (provider.name.as_str(), whom) {
            ("google" | "microsoft" | "github", _) => Some("select_account"),
            (_, Whom::Another) if provider.kind == SignInKind::OpenId => Some("login"),
            _ => None,
        };
        if let Some(prompt) = prompt {
            url.query_pairs_mut().append_pair("prompt", prompt);
        }
        let target = wire::address(url.as_str()).map_err(|error| failed(provider, error))?;
        let row = SignInRow { provider: provider.name.clone(), return_to: return_to.to_owned() };
        let now = self.0.clock.unix_milliseconds();
        let expires_at = now + ATTEMPT_MS;
        // Anybody can begin: what nobody finished is not kept.
        self.0.store.sweep_sessions(now, now - SESSION_IDLE_MS).await?;
        self.0.store.create_sign_in(&attempt.state_hash(), &row, expires_at).await?;
        Ok(target)
    }

    /// Finishes what [`SignIn::begin`] began.
    ///
    /// # Errors
    /// See [`SignInError`].
    pub async fn finish(
        &self,
        provider: &str,
        returned: &Returned,
        browser: Option<&Secret>,
    ) -> Result<SignedIn, SignInError> {
        let (number, provider) = self.find(provider)?;
        let state = returned.state.as_deref().ok_or(SignInError::NotBegunHere)?;
        let attempt =
            browser.and_then(|browser| Attempt::resume(browser, state)).ok_or(SignInError::NotBegunHere)?;
        let now = self.0.clock.unix_milliseconds();
        // Taken out before anything else: whatever comes next, this state has been used.
        let begun = self.0.store.take_sign_in(&attempt.state_hash(), now).await?;
        let begun = begun.filter(|row| row.provider == provider.name).ok_or(SignInError::NotBegunHere)?;
        let metadata = self.metadata(number, provider).await?;
        check_issuer(provider, &metadata, returned.iss.as_deref())?;
        let Some(code) = &returned.code else {
            return Err(SignInError::Declined { title: provider.title.clone() });
        };
        let who = self.ask(provider, &metadata, &attempt, code).await?;
        let domain = domain_of(who.verified_email.as_deref());
        if !self.0.admission.admits(&provider.name, &who.issuer, domain) {
            return Err(SignInError::NotAllowed { title: provider.title.clone() });
        }
        let account = Account {
            id: random_id("acct_"),
            provider: provider.name.clone(),
            issuer: who.issuer,
            subject: who.subject,
            email_domain: domain_of(who.verified_email.as_deref()).to_owned(),
            label: who.label.chars().filter(|c| !c.is_control()).take(LONGEST_LABEL).collect(),
            created_at: now,
            signed_in_at: now,
        };
        Ok(SignedIn { account: self.0.store.put_account(&account).await?, return_to: begun.return_to })
    }

    fn find(&self, name: &str) -> Result<(usize, &Provider), SignInError> {
        let mut all = self.0.providers.iter().enumerate();
        all.find(|(_, provider)| provider.name == name).ok_or(SignInError::UnknownProvider)
    }

    /// One address for each provider, so that an answer of one cannot be taken for another's.
    fn redirect_uri(&self, provider: &Provider) -> String {
        format!("{}/login/{}/callback", self.0.public_url, provider.name)
    }

    async fn metadata(&self, number: usize, provider: &Provider) -> Result<Metadata, SignInError> {
        if let Some(known) = self.0.metadata.get(&number) {
            return Ok(known);
        }
        let found = match provider.kind {
            SignInKind::OpenId => {
                let found = wire::metadata(&self.0.egress, &provider.issuer).await;
                let found = found.map_err(|error| failed(provider, error))?;
                // OpenID Connect Discovery 1.0 §4.3
                if found.issuer != provider.issuer {
                    return Err(failed(provider, "its metadata names another issuer"));
                }
                // Only an issuer on this machine may name addresses on this machine.
                let is_https = |address: &str| address.starts_with("https://");
                let endpoints = [&found.authorization_endpoint, &found.token_endpoint];
                if is_https(&found.issuer) && !endpoints.into_iter().all(|endpoint| is_https(endpoint)) {
                    return Err(failed(provider, "its metadata names an address without https"));
                }
                found
            }
            SignInKind::Microsoft | SignInKind::GitHub | SignInKind::X | SignInKind::OAuth2 => {
                fixed_metadata(provider)
            }
        };
        self.0.metadata.insert(number, found.clone());
        Ok(found)
    }

    async fn ask(
        &self,
        provider: &Provider,
        metadata: &Metadata,
        attempt: &Attempt,
        code: &str,
    ) -> Result<Who, SignInError> {
        let redirect_uri = self.redirect_uri(provider);
        let fields =
            [("code", code), ("redirect_uri", &redirect_uri), ("code_verifier", attempt.verifier.expose())];
        let methods = &metadata.token_endpoint_auth_methods_supported;
        let takes = |method: &str| methods.iter().any(|supported| supported == method);
        let proof = match &provider.client_secret {
            None => ClientProof::None,
            Some(secret) if takes("client_secret_post") && !takes("client_secret_basic") => {
                ClientProof::Post(secret)
            }
            Some(secret) => ClientProof::Basic(secret),
        };
        let endpoint = &metadata.token_endpoint;
        let tokens = wire::exchange(&self.0.egress, endpoint, &provider.client_id, proof, &fields).await;
        let tokens = tokens.map_err(|error| failed(provider, error))?;
        match provider.kind {
            SignInKind::OpenId | SignInKind::Microsoft => {
                let token = tokens["id_token"].as_str().ok_or_else(|| failed(provider, "no ID token"))?;
                let expected = Expected {
                    issuer: &metadata.issuer,
                    client_id: &provider.client_id,
                    nonce: &attempt.nonce,
                    now: self.0.clock.unix_seconds(),
                };
                claims::read(token, &expected).map_err(|error| failed(provider, error))
            }
            SignInKind::GitHub | SignInKind::X | SignInKind::OAuth2 => {
                let answer = self.userinfo(provider, metadata, &tokens).await?;
                let who = match (provider.kind, &provider.oauth2) {
                    (_, Some(oauth2)) => userinfo::named(&provider.issuer, oauth2, &answer),
                    (SignInKind::X, None) => userinfo::x(&provider.issuer, &answer),
                    (_, None) => userinfo::github(&provider.issuer, &answer),
                };
                who.ok_or_else(|| failed(provider, "its API does not say who it is"))
            }
        }
    }

    async fn userinfo(
        &self,
        provider: &Provider,
        metadata: &Metadata,
        tokens: &Value,
    ) -> Result<Value, SignInError> {
        let token = tokens["access_token"].as_str().ok_or_else(|| failed(provider, "no access token"))?;
        let place = metadata.userinfo_endpoint.as_deref().unwrap_or_default();
        let answer = wire::get(&self.0.egress, place, Some(&Secret::new(token))).await;
        answer.map_err(|error| failed(provider, error))
    }
}

/// RFC 9207 §2.4: an answer of another issuer is not ours to use.
fn check_issuer(provider: &Provider, metadata: &Metadata, iss: Option<&str>) -> Result<(), SignInError> {
    let fits = match iss {
        _ if provider.kind != SignInKind::OpenId => true,
        Some(iss) => iss == metadata.issuer,
        None => !metadata.authorization_response_iss_parameter_supported,
    };
    if fits { Ok(()) } else { Err(failed(provider, "the answer is of another issuer")) }
}

/// Logs what is wrong; the person learns only that it did not work, and where.
fn failed(provider: &Provider, reason: impl std::fmt::Display) -> SignInError {
    tracing::warn!(sign_in.provider = provider.name, %reason, "a sign-in provider could not be used");
    SignInError::Failed { title: provider.title.clone() }
}

/// The domain of a verified e-mail address; empty when there is none.
fn domain_of(verified_email: Option<&str>) -> &str {
    verified_email.and_then(|email| email.rsplit_once('@')).map_or("", |(_, domain)| domain)
}

/// Where providers without usable discovery have their endpoints.
fn fixed_metadata(provider: &Provider) -> Metadata {
    if let Some(oauth2) = &provider.oauth2 {
        return Metadata {
            issuer: provider.issuer.clone(),
            authorization_endpoint: oauth2.authorization_endpoint.clone(),
            token_endpoint: oauth2.token_endpoint.clone(),
            userinfo_endpoint: Some(oauth2.user_endpoint.clone()),
            token_endpoint_auth_methods_supported: vec!["client_secret_post".to_owned()],
            authorization_response_iss_parameter_supported: false,
        };
    }
    let issuer = provider.issuer.trim_end_matches('/');
    let (authorize, token, userinfo, method) = match provider.kind {
        SignInKind::Microsoft => {
            let base = issuer.strip_suffix("/v2.0").unwrap_or(issuer);
            (
                format!("{base}/oauth2/v2.0/authorize"),
                format!("{base}/oauth2/v2.0/token"),
                None,
                "client_secret_post",
            )
        }
        SignInKind::X => {
            let api = if issuer == "https://x.com" { "https://api.x.com" } else { issuer };
            (
                format!("{issuer}/i/oauth2/authorize"),
                format!("{api}/2/oauth2/token"),
                Some(format!("{api}/2/users/me")),
                "client_secret_basic",
            )
        }
        SignInKind::GitHub | SignInKind::OpenId | SignInKind::OAuth2 => {
            let api = if issuer == "https://github.com" {
                "https://api.github.com/user".to_owned()
            } else {
                format!("{issuer}/api/v3/user")
            };
            (
                format!("{issuer}/login/oauth/authorize"),
                format!("{issuer}/login/oauth/access_token"),
                Some(api),
                "client_secret_post",
            )
        }
    };
    Metadata {
        issuer: issuer.replace("/common/", "/{tid}/").replace("/organizations/", "/{tid}/"),
        authorization_endpoint: authorize,
        token_endpoint: token,
        userinfo_endpoint: userinfo,
        token_endpoint_auth_methods_supported: vec![method.to_owned()],
        authorization_response_iss_parameter_supported: false,
    }
}

fn secret_of(
    entry: &config::SignIn,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Secret>, String> {
    if let Some(path) = &entry.client_secret_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("the secret file {} of sign-in provider `{}`: {error}", path.display(), entry.name)
        })?;
        return Ok(Some(Secret::new(text.trim())));
    }
    if let Some(name) = &entry.client_secret_env {
        let text = variable(name).filter(|text| !text.is_empty()).ok_or_else(|| {
            format!("sign-in provider `{}` takes its secret from {name}, which is not set", entry.name)
        })?;
        return Ok(Some(Secret::new(text)));
    }
    Ok(entry.client_secret.clone())
}
