//! What login an address offers, and what to ask for there.

use std::time::Duration;

use super::access::Holdings;
use super::clients::{NoClient, within};
use super::flow::host_of;
use super::probe::{Said, ask};
use super::service::Inner;
use super::{FlowError, Reason, Scopes, Wanted};
use crate::oauth::{
    self, Discovered, DiscoveryError, Finding, RegistrationError, Trace, join_scopes, split_scopes,
};

/// Time for an address to say whether it wants a login.
const PATIENCE: Duration = Duration::from_secs(10);
/// The scope that makes a login last, where a server knows it (OpenID Connect Core §11).
const OFFLINE: &str = "offline_access";

impl Inner {
    /// The login at an address. Where nobody has asked the address itself yet, that is done first, and what it says is
    /// noted in `wanted`.
    pub(super) async fn discover(&self, wanted: &mut Wanted) -> Result<Discovered, FlowError> {
        let mut trace = Trace::new();
        let host = host_of(&wanted.uri);
        let mut said = None;
        if wanted.challenge.is_none() {
            match ask(&self.egress, &wanted.uri, PATIENCE, &mut trace).await {
                Ok(Said::Challenge(challenge)) => wanted.challenge = Some(challenge),
                Ok(other) => said = Some(other),
                Err(reason) => return Err(FlowError::Unusable(reason)),
            }
        }
        let found =
            oauth::discover(&self.egress, &wanted.uri, wanted.challenge.as_ref(), &self.quirks, &mut trace)
                .await;
        let found = match (found, said) {
            (Ok(found), _) => found,
            (Err(DiscoveryError::NotOffered { .. }), Some(Said::Nothing)) => {
                // It may have metadata that cannot be had just now.
                return Err(match busy(&trace) {
                    Some(reason) => FlowError::Unusable(reason.to_owned()),
                    None => FlowError::NotNeeded(host),
                });
            }
            (Err(DiscoveryError::NotOffered { .. }), Some(Said::Other(status))) => {
                return Err(FlowError::Unusable(format!("{host} answered with HTTP status {status}")));
            }
            (Err(error @ DiscoveryError::NotOffered { .. }), _) => {
                return Err(FlowError::NotOffered(error.to_string()));
            }
            (Err(error @ (DiscoveryError::Unusable { .. } | DiscoveryError::Unreachable { .. })), _) => {
                return Err(FlowError::Unusable(error.to_string()));
            }
        };
        // Better said now than on the page behind the link.
        if let Some(why) = self.clients.no_way(&found) {
            return Err(FlowError::NotOffered(why));
        }
        // Nobody said that there is an authorization server. Most servers that ask for a key and say no more have none,
        // and a link would lead nowhere: it has to register us before one is shown.
        if found.server.assumed {
            match self.client_for(&found, &found.scopes, false).await {
                Ok(_) => {}
                Err(NoClient::Store(error)) => return Err(error.into()),
                Err(NoClient::Registration(error @ RegistrationError::Temporary { .. })) => {
                    return Err(FlowError::Unusable(error.to_string()));
                }
                Err(NoClient::Registration(_)) => {
                    return Err(FlowError::NotOffered(format!("{host} offers no login by OAuth")));
                }
            }
        }
        Ok(found)
    }
}

/// Why a question that may be answered another time was not, if there was one.
fn busy(trace: &Trace) -> Option<&str> {
    trace.steps.iter().find_map(|step| match (&step.finding, step.status) {
        (Finding::Bad(reason), None | Some(429 | 500..)) => Some(reason.as_str()),
        _ => None,
    })
}

/// What to ask for: what the server wants now, or the application, and what the connection has already; or just what is
/// named. Never more than the operator's client may ask for.
pub(super) fn wanted_scopes(
    inner: &Inner,
    holdings: &Holdings,
    found: &Discovered,
    wanted: &Wanted,
) -> Result<Vec<String>, FlowError> {
    let held = holdings.0.iter().find(|held| held.row.resource == found.resource);
    let had = held.map(|held| split_scopes(&held.row.scopes)).unwrap_or_default();
    let most = inner.clients.most_scopes(found);
    let challenged = wanted.challenge.as_ref().is_some_and(|challenge| challenge.scope.is_some());
    let (asked, is_firm) = match &wanted.scopes {
        Scopes::Also(named) | Scopes::Exactly(named) => (named, true),
        Scopes::AsAsked => (&found.scopes, challenged && wanted.reason == Reason::StepUp),
    };
    let beyond = asked.iter().find(|scope| !most.is_empty() && !most.contains(scope));
    if let Some(beyond) = beyond.filter(|_| is_firm) {
        return Err(FlowError::NotOffered(format!(
            "the permission `{beyond}` of {} is not among the `scopes` of its `[[oauth_clients]]`",
            host_of(&wanted.uri)
        )));
    }
    let lists_offline = found.server.scopes_supported.iter().any(|scope| scope == OFFLINE);
    let is_lasting = lists_offline && (most.is_empty() || most.iter().any(|scope| scope == OFFLINE));
    let offline: &[String] = if is_lasting { &[OFFLINE.to_owned()] } else { &[] };
    let scopes = match &wanted.scopes {
        // Who did not see it among what the login is for has not taken it away, and the login is to last.
        Scopes::Exactly(named) if had.iter().any(|scope| scope == OFFLINE) => return Ok(named.clone()),
        Scopes::Exactly(named) => return Ok(join_scopes(named, offline)),
        Scopes::Also(named) => join_scopes(named, offline),
        Scopes::AsAsked => within(found.scopes.clone(), most, challenged),
    };
    let is_active = held.is_some_and(|held| held.current().ended.is_none());
    if is_active && wanted.reason == Reason::StepUp && scopes.iter().all(|scope| had.contains(scope)) {
        let host = host_of(&wanted.uri);
        return Err(FlowError::NotOffered(format!(
            "{host} says that the login does not suffice, but names only permissions that it has"
        )));
    }
    Ok(join_scopes(&had, &scopes))
}
