//! From an address to a login: protected resource metadata, then the metadata of its authorization servers.
//! MCP 2026-07-28 authorization, and 2025-03-26 for servers that know no resource metadata.

use std::time::Duration;

use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::fetch::{self, Failure};
use super::well_known::{Place, of_issuer, of_resource, origin};
use super::{
    Challenge, DiscoveryError, ProtectedResource, QuirkTable, Quirks, ServerMetadata, Step, Trace, covers,
    scope,
};
use crate::egress::{Egress, Reach, parse_uri};

/// Time for all requests together.
const TOTAL: Duration = Duration::from_secs(30);

/// A login that can be offered.
/// It can be kept as JSON; `quirks` is left out and found anew with [`QuirkTable::find`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// The text to send as `resource`: the literal of the metadata, or the address without query.
    pub resource: String,
    /// What the resource calls itself, one line.
    pub resource_name: Option<String>,
    /// What to ask for: the challenge's scopes, else the resource's, else none; and `offline_access` when listed.
    pub scopes: Vec<String>,
    /// Everything that the resource lists, and `offline_access` when the server does: what a client is registered for.
    #[serde(default)]
    pub scopes_listed: Vec<String>,
    /// The authorization server as the resource names it: the key to keep registrations by.
    pub authorization_server: String,
    pub server: ServerMetadata,
    /// What is known about this server and resource.
    #[serde(skip)]
    pub quirks: Quirks,
}

/// Looks for the login of `resource`. Without a `challenge` nothing is guessed: what publishes no metadata has none.
/// Every question is noted in `trace`.
///
/// # Errors
/// See [`DiscoveryError`].
pub async fn discover(
    egress: &Egress,
    resource: &Uri,
    challenge: Option<&Challenge>,
    table: &QuirkTable,
    trace: &mut Trace,
) -> Result<Discovered, DiscoveryError> {
    let host = authority_of(resource);
    let search = Search { egress, reach: Reach::Requested, table, resource: Some(resource) };
    match tokio::time::timeout(TOTAL, search.run(resource, challenge, &host, trace)).await {
        Ok(found) => found,
        Err(_) => {
            let reason = format!("looking for the login of {host} took more than {} s", TOTAL.as_secs());
            Err(DiscoveryError::Unreachable { host, reason })
        }
    }
}

/// Reads the metadata of an issuer that is known by name.
///
/// # Errors
/// See [`DiscoveryError`].
pub async fn discover_issuer(
    egress: &Egress,
    reach: Reach,
    issuer: &str,
    table: &QuirkTable,
    trace: &mut Trace,
) -> Result<(ServerMetadata, Quirks), DiscoveryError> {
    let search = Search { egress, reach, table, resource: None };
    let host = super::register::host_of(issuer);
    match tokio::time::timeout(TOTAL, search.server(issuer, trace)).await {
        Ok(Ok(Some(found))) => Ok(found),
        Ok(Ok(None)) => Err(DiscoveryError::NotOffered { host }),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let reason = format!("looking for the metadata of {host} took more than {} s", TOTAL.as_secs());
            Err(DiscoveryError::Unreachable { host, reason })
        }
    }
}

struct Search<'a> {
    egress: &'a Egress,
    reach: Reach,
    table: &'a QuirkTable,
    resource: Option<&'a Uri>,
}

impl Search<'_> {
    async fn run(
        &self,
        resource: &Uri,
        challenge: Option<&Challenge>,
        host: &str,
        trace: &mut Trace,
    ) -> Result<Discovered, DiscoveryError> {
        let quirks = self.table.find(None, Some(resource));
        let metadata = self.protected_resource(resource, challenge, &quirks, host, trace).await?;
        let (servers, is_named) = match &metadata {
            Some(found) if !found.authorization_servers.is_empty() => {
                (found.authorization_servers.clone(), true)
            }
            // MCP 2025-03-26: the authorization server is at the origin.
            Some(_) => (vec![origin(resource)], false),
            None if challenge.is_some() || quirks.endpoints.is_some() => (vec![origin(resource)], false),
            None => return Err(DiscoveryError::NotOffered { host: host.to_owned() }),
        };
        let mut fault = None;
        for issuer in &servers {
            let (server, quirks) = match self.server(issuer, trace).await {
                Ok(Some(found)) => found,
                Ok(None) if is_named => {
                    let reason = format!("{} publishes no metadata", super::register::host_of(issuer));
                    fault.get_or_insert(DiscoveryError::Unusable { host: host.to_owned(), reason });
                    continue;
                }
                Ok(None) => {
                    trace.note(
                        Step::new("default endpoints", "MCP 2025-03-26 authorization", issuer)
                            .good("`/authorize`, `/token` and `/register` are assumed"),
                    );
                    (ServerMetadata::assumed(issuer), self.table.find(Some(issuer), self.resource))
                }
                Err(error) => {
                    fault.get_or_insert(error);
                    continue;
                }
            };
            let (literal, name, listed) = match metadata {
                Some(found) => (found.resource, found.resource_name, found.scopes_supported),
                None => (without_query(resource), None, Vec::new()),
            };
            let asked = challenge.map(Challenge::scopes).unwrap_or_default();
            let mut scopes_listed = listed.clone();
            let mut scopes = if asked.is_empty() { listed } else { asked };
            // SEP-2207: asked for only where it means something, and never because the resource lists it.
            if server.scopes_supported.iter().any(|scope| scope == "offline_access") {
                scopes = scope::join(&scopes, &["offline_access".to_owned()]);
                scopes_listed = scope::join(&scopes_listed, &["offline_access".to_owned()]);
            } else {
                scopes.retain(|scope| scope != "offline_access");
                scopes_listed.retain(|scope| scope != "offline_access");
            }
            return Ok(Discovered {
                resource: literal,
                resource_name: name,
                scopes,
                scopes_listed,
                authorization_server: issuer.clone(),
                server,
                quirks,
            });
        }
        Err(fault.unwrap_or_else(|| DiscoveryError::NotOffered { host: host.to_owned() }))
    }

    /// The resource's own metadata: where the challenge says, then at the well-known places.
    async fn protected_resource(
        &self,
        resource: &Uri,
        challenge: Option<&Challenge>,
        quirks: &Quirks,
        host: &str,
        trace: &mut Trace,
    ) -> Result<Option<ProtectedResource>, DiscoveryError> {
        const PURPOSE: &str = "protected resource metadata";
        let mut places = Vec::new();
        if let Some(named) = challenge.and_then(|challenge| challenge.resource_metadata.as_deref()) {
            match parse_uri(named) {
                Ok(uri) => places.push(Place { uri, rule: "RFC 9728 §5.1" }),
                Err(refusal) => {
                    trace.note(Step::new(PURPOSE, "RFC 9728 §5.1", named).bad(refusal.to_string()))
                }
            }
        }
        for place in of_resource(resource) {
            if places.iter().all(|known: &Place| known.uri != place.uri) {
                places.push(place);
            }
        }
        let mut trouble = None;
        for Place { uri, rule } in places {
            let step = Step::new(PURPOSE, rule, &uri.to_string());
            let (step, body) = match self.document(&uri, step, &mut trouble).await {
                Ok(found) => found,
                Err(step) => {
                    trace.note(step);
                    continue;
                }
            };
            let found = match ProtectedResource::parse(&body) {
                Ok(found) => found,
                Err(reason) => {
                    trace.note(step.bad(format!("the document {reason}")));
                    continue;
                }
            };
            let is_accepted = quirks.accept_resource.as_ref() == Some(&found.resource);
            if !is_accepted && !covers(&found.resource, resource) {
                let named = super::trace::visible(&found.resource, 200);
                let reason =
                    format!("the document is about `{named}`, which is not this address (RFC 9728 §3.3)");
                let hint = format!(
                    "if that is right, add `accept_resource = \"{named}\"` for this host under `[[oauth_quirks]]`"
                );
                trace.note(step.bad(reason.clone()).hint(hint));
                // Whoever describes another resource may be after tokens for it.
                return Err(DiscoveryError::Unusable { host: host.to_owned(), reason });
            }
            let named = match &found.authorization_servers[..] {
                [] => "no authorization server is named, so the origin is asked".to_owned(),
                servers => {
                    format!("authorization server {}", super::trace::visible(&servers.join(", "), 300))
                }
            };
            trace.note(
                step.good(format!("resource `{}`, {named}", super::trace::visible(&found.resource, 200))),
            );
            return Ok(Some(found));
        }
        match trouble {
            Some(reason) if challenge.is_some() => {
                Err(DiscoveryError::Unreachable { host: host.to_owned(), reason })
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The metadata of one authorization server. `None` when it publishes nothing at all.
    async fn server(
        &self,
        issuer: &str,
        trace: &mut Trace,
    ) -> Result<Option<(ServerMetadata, Quirks)>, DiscoveryError> {
        const PURPOSE: &str = "authorization server metadata";
        let host = super::register::host_of(issuer);
        let quirks = self.table.find(Some(issuer), self.resource);
        for about in &quirks.about {
            trace.note(Step::new("known oddity", "quirks", "").good(about.clone()));
        }
        let unusable = |reason: String| DiscoveryError::Unusable { host: host.clone(), reason };
        let places = match of_issuer(issuer) {
            Ok(places) => places,
            Err(refusal) => {
                trace.note(Step::new(PURPOSE, "RFC 8414 §2", issuer).bad(refusal.to_string()));
                return Err(unusable(refusal.to_string()));
            }
        };
        let (mut trouble, mut fault) = (None, None);
        for Place { uri, rule } in places {
            let step = Step::new(PURPOSE, rule, &uri.to_string());
            let (step, body) = match self.document(&uri, step, &mut trouble).await {
                Ok(found) => found,
                Err(step) => {
                    if let super::Finding::Bad(reason) = &step.finding {
                        fault.get_or_insert(reason.clone());
                    }
                    trace.note(step);
                    continue;
                }
            };
            match self.judge(issuer, &quirks, &body) {
                Ok(metadata) => {
                    let about = format!("issuer `{}`", super::trace::visible(&metadata.issuer, 200));
                    trace.note(step.good(about));
                    return Ok(Some((metadata, quirks)));
                }
                Err((reason, hint)) => {
                    fault.get_or_insert(reason.clone());
                    let step = step.bad(reason);
                    trace.note(match hint {
                        Some(hint) => step.hint(hint),
                        None => step,
                    });
                }
            }
        }
        if let Some(endpoints) = &quirks.endpoints {
            let metadata = ServerMetadata::known(issuer, endpoints);
            if let Err((name, refusal)) = metadata.check(self.egress, self.reach) {
                return Err(unusable(format!("`endpoints`, `{name}`: {refusal}")));
            }
            trace.note(
                Step::new("known endpoints", "quirks", &endpoints.authorization).good("used as configured"),
            );
            return Ok(Some((metadata, quirks)));
        }
        match (fault, trouble) {
            (_, Some(reason)) => Err(DiscoveryError::Unreachable { host: host.clone(), reason }),
            (Some(reason), None) => Err(unusable(reason)),
            (None, None) => Ok(None),
        }
    }

    /// Whether a document may be used, else why not and what would help.
    fn judge(
        &self,
        issuer: &str,
        quirks: &Quirks,
        body: &[u8],
    ) -> Result<ServerMetadata, (String, Option<String>)> {
        let metadata =
            ServerMetadata::parse(body).map_err(|reason| (format!("the document {reason}"), None))?;
        let is_accepted = quirks.accept_issuer.as_ref() == Some(&metadata.issuer);
        if !is_accepted && !is_same_issuer(issuer, &metadata.issuer) {
            let named = super::trace::visible(&metadata.issuer, 200);
            let hint = format!(
                "if that is right, add `accept_issuer = \"{named}\"` for this host under `[[oauth_quirks]]`"
            );
            let asked = super::trace::visible(issuer, 200);
            return Err((
                format!("the issuer is `{named}`, but `{asked}` was asked (RFC 8414 §3.3)"),
                Some(hint),
            ));
        }
        metadata
            .check(self.egress, self.reach)
            .map_err(|(name, refusal)| (format!("`{name}`: {refusal}"), None))?;
        if !metadata.has_s256() && !quirks.assume_s256 {
            return Err((
                "it does not say that it takes PKCE with S256 (MCP authorization, code protection)"
                    .to_owned(),
                Some(
                    "if it does, add `assume_s256 = true` for this host under `[[oauth_quirks]]`".to_owned(),
                ),
            ));
        }
        Ok(metadata)
    }

    /// The body of a JSON document at `uri`; else the step that says why there is none. `trouble` is set when the
    /// server could not be asked properly, so that another time may be better.
    async fn document(
        &self,
        uri: &Uri,
        step: Step,
        trouble: &mut Option<String>,
    ) -> Result<(Step, bytes::Bytes), Step> {
        let answer = match fetch::get(self.egress, self.reach, uri).await {
            Ok(answer) => answer,
            Err(failure) => {
                if failure.is_temporary() {
                    trouble.get_or_insert(failure.to_string());
                }
                return Err(match failure {
                    Failure::Egress(error) => step.bad(error.to_string()),
                    other => step.bad(other.to_string()),
                });
            }
        };
        let step = step.answered(&answer);
        match answer.status {
            StatusCode::OK => Ok((step, answer.body)),
            status if status.is_redirection() => Err(step.bad("it redirects, which is not followed here")),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                let reason = format!("{} answered with HTTP status {}", authority_of(uri), status.as_u16());
                trouble.get_or_insert(reason.clone());
                Err(step.bad(reason))
            }
            _ => Err(step.absent("nothing there")),
        }
    }
}

/// Plain comparison (RFC 8414 §3.3), but for the slash after a bare host, which means nothing (RFC 3986 §6.2.3).
fn is_same_issuer(asked: &str, named: &str) -> bool {
    if asked == named {
        return true;
    }
    let is_bare = |text: &str| text.matches('/').count() == 2;
    let (asked, named) = (asked.strip_suffix('/').unwrap_or(asked), named.strip_suffix('/').unwrap_or(named));
    asked == named && is_bare(asked)
}

fn without_query(uri: &Uri) -> String {
    format!("{}{}", origin(uri), uri.path())
}

fn authority_of(uri: &Uri) -> String {
    uri.authority().map_or_else(String::new, ToString::to_string)
}
