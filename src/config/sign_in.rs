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
    /// E-mail domains, one of which must be the person's, verified; empty lets everyone in.
    pub allowed_domains: Vec<String>,
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
}

impl SignIn {
    /// What the name stands for, with the issuer.
    pub fn kind(&self) -> (SignInKind, Option<&str>) {
        let (kind, issuer) = match self.name.as_str() {
            "google" => (SignInKind::OpenId, Some("https://accounts.google.com")),
            "microsoft" => (SignInKind::Microsoft, Some("https://login.microsoftonline.com/common/v2.0")),
            "github" => (SignInKind::GitHub, Some("https://github.com")),
            "x" => (SignInKind::X, Some("https://x.com")),
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
                "give the OpenID Connect issuer, or use the name `google`, `github`, `x` or `microsoft`",
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

fn is_safe(url: &Url) -> bool {
    url.scheme() == "https" || url.host().is_some_and(is_loopback)
}
