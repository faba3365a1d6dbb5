//! Looking for the login of a resource, with what the operator says about its authorization server.

use http::Uri;

use super::registration::Clients;
use crate::egress::Egress;
use crate::oauth::{self, Challenge, Discovered, DiscoveryError, QuirkTable, Trace};

/// Looks for the login of `resource`. Without a `challenge` nothing is guessed (anonymous discovery).
///
/// # Errors
/// See [`DiscoveryError`]; its text is fit for the reader of an answer.
pub async fn discover(
    egress: &Egress,
    table: &QuirkTable,
    clients: &Clients,
    resource: &Uri,
    challenge: Option<&Challenge>,
    trace: &mut Trace,
) -> Result<Discovered, DiscoveryError> {
    let mut found = oauth::discover(egress, resource, challenge, table, trace).await?;
    let is_asked = challenge.is_some_and(|challenge| !challenge.scopes().is_empty());
    let wanted = clients.scopes(&found);
    if !is_asked && !wanted.is_empty() {
        found.scopes = wanted.to_vec();
    }
    Ok(found)
}
