//! Where people sign in: the `[[sign_in]]` entries.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use super::validate::{Problem, http_url, is_loopback, name, problem};
use super::{Secret, Settings};

/// A provider at which people sign in to the gateway.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignIn {
    /// `google`, `github`, `x`, `microsoft`, or a name of the operator's for another issuer.
    pub name: String,
    /// What the button says.
    pub title: Option<String>,
    /// The OpenID Connect issuer. For a preset: its address when it is not the public one, such as a company's own
    /// GitHub.
    pub issuer: Option<String>,
    pub client_id: String,
    pub client_secret: Option<Secret>,
    /// The environment variable that holds the secret.
    pub client_secret_env: Option<String>,
    /// The file that holds the secret.
    pub client_secret_file: Option<PathBuf>,
    /// For a provider that speaks OAuth 2 and no OpenID Connect.
    pub oauth2: Option<SignInOauth2>,
    /// E-mail domains, one of which must be the person's, verified; empty lets everyone in.
    pub allowed_domains: Vec<String>,
}

/// A provider with OAuth 2 alone: where it is asked, and where in its answer stands who somebody is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignInOauth2 {
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    /// Answers a GET with the access token by a JSON object about the person.
    pub user_endpoint: String,
    /// Asked for, separated by spaces.
    pub scope: String,
    /// The field whose value stays when a person is renamed: `id`, or `data.id` for a field within one.
    pub subject: String,
    /// The field by which people recognise themselves. Default: the subject.
    pub label: Option<String>,
}

/// How a provider tells who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInKind {
    /// OpenID Connect: by an ID token.
    OpenId,
    /// OpenID Connect, where every customer of the provider is an issuer of its own.
    Microsoft,
    /// OAuth 2 and GitHub's API.
    GitHub,
    /// OAuth 2 and X's API.
    X,
    /// OAuth 2 and whatever API the operator names.
    OAuth2,
}

impl SignIn {
    /// What the name stands for, with the issuer.
    pub fn kind(&self) -> (SignInKind, Option<&str>) {
        let (kind, issuer) = match self.name.as_str() {
            "google" => (SignInKind::OpenId, Some("https://accounts.google.com")),
            "microsoft" => (SignInKind::Microsoft, Some("https://login.microsoftonline.com/common/v2.0")),
            "github" => (SignInKind::GitHub, Some("https://github.com")),
            "x" => (SignInKind::X, Some("https://x.com")),
            _ if self.oauth2.is_some() => (SignInKind::OAuth2, None),
            _ => (SignInKind::OpenId, None),
        };
        let issuer = self.issuer.as_deref().or(issuer);
        match (kind, issuer) {
            // One customer's own address is an ordinary issuer.
            (SignInKind::Microsoft, Some(issuer))
                if !["/common/", "/organizations/"].iter().any(|all| issuer.contains(all)) =>
            {
                (SignInKind::OpenId, Some(issuer))
            }
            (kind, issuer) => (kind, issuer),
        }
    }

    /// What a person reads on the button.
    pub fn title(&self) -> &str {
        match (&self.title, self.name.as_str()) {
            (Some(title), _) => title,
            (None, "google") => "Google",
            (None, "microsoft") => "Microsoft",
            (None, "github") => "GitHub",
            (None, "x") => "X",
            (None, other) => other,
        }
    }
}

/// Checks the entries.
pub(super) fn check(settings: &Settings) -> Result<(), Problem> {
    let mut names = HashSet::new();
    for (number, entry) in settings.sign_in.iter().enumerate() {
        let at = |key: &str| format!("sign_in.{number}.{key}");
        name(&at("name"), &entry.name)?;
        if !names.insert(entry.name.as_str()) {
            return Err(problem(at("name"), format!("`{}` is given to two providers", entry.name)));
        }
        let (_, issuer) = entry.kind();
        let Some(issuer) = issuer else {
            return Err(problem(at("issuer"), "is missing").hint(
                "give the OpenID Connect issuer (with `oauth2`, the provider's address), or use the name `google`, `github`, `x` or `microsoft`",
            ));
        };
        let url = http_url(&at("issuer"), issuer)?;
        if !is_safe(&url) {
            return Err(problem(at("issuer"), "must begin with https:// outside this machine"));
        }
        if entry.client_id.is_empty() {
            return Err(problem(at("client_id"), "is missing")
                .hint("the provider gives it when you register the gateway there"));
        }
        if let Some(oauth2) = &entry.oauth2 {
            check_oauth2(&at("oauth2"), entry, oauth2)?;
        }
        let sources = [
            ("client_secret", entry.client_secret.is_some()),
            ("client_secret_env", entry.client_secret_env.is_some()),
            ("client_secret_file", entry.client_secret_file.is_some()),
        ];
        let given: Vec<&str> = sources.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        if let [first, second, ..] = given[..] {
            return Err(problem(at(second), format!("contradicts `{first}`"))
                .hint("keep one of `client_secret`, `client_secret_env` and `client_secret_file`"));
        }
        for (place, domain) in entry.allowed_domains.iter().enumerate() {
            if domain.is_empty() || domain.contains(['@', '/', '*', ' ']) {
                return Err(problem(at(&format!("allowed_domains.{place}")), "must be a domain alone")
                    .hint("such as `example.com`"));
            }
        }
    }
    Ok(())
}

fn check_oauth2(path: &str, entry: &SignIn, oauth2: &SignInOauth2) -> Result<(), Problem> {
    if entry.kind().0 != SignInKind::OAuth2 {
        return Err(problem(path, format!("contradicts the name `{}`", entry.name))
            .hint("`google`, `github`, `x` and `microsoft` are known; give the entry another name"));
    }
    let at = |key: &str| format!("{path}.{key}");
    for (key, address) in [
        ("authorization_endpoint", &oauth2.authorization_endpoint),
        ("token_endpoint", &oauth2.token_endpoint),
        ("user_endpoint", &oauth2.user_endpoint),
    ] {
        if address.is_empty() {
            return Err(problem(at(key), "is missing").hint("the provider's documentation names it"));
        }
        if !is_safe(&http_url(&at(key), address)?) {
            return Err(problem(at(key), "must begin with https:// outside this machine"));
        }
    }
    let fields = [("subject", Some(&oauth2.subject)), ("label", oauth2.label.as_ref())];
    for (key, field) in fields {
        let is_path = |field: &str| field.split('.').all(|name| !name.is_empty());
        if field.is_some_and(|field| !is_path(field)) {
            return Err(problem(at(key), "must be the name of a field in the answer of `user_endpoint`")
                .hint("such as `id`, or `data.id` for a field within one"));
        }
    }
    Ok(())
}

fn is_safe(url: &Url) -> bool {
    url.scheme() == "https" || url.host().is_some_and(is_loopback)
}
