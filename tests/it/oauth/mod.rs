//! OAuth on the wire, against servers that do it in every way seen in the field, and in some that should not be.

mod attacks;
mod discovery;
mod registration;
mod tokens;

use http::Uri;
use toolgate::config;
use toolgate::egress::{Egress, Reach, system_lookup};
use toolgate::oauth::{
    Challenge, Client, Discovered, DiscoveryError, QuirkTable, Quirks, TokenEndpoint, Trace, discover,
};

use crate::support::Peer;

/// The way out in local mode, where the servers of the tests are.
pub fn egress() -> Egress {
    Egress::new(&config::Egress::default(), true, system_lookup()).unwrap()
}

pub fn resource_of(peer: &Peer) -> Uri {
    peer.url("/mcp").parse().unwrap()
}

/// Finds the login as after a 401 that names the metadata.
pub async fn find(peer: &Peer) -> Result<Discovered, DiscoveryError> {
    let challenge = Challenge {
        status: 401,
        resource_metadata: Some(peer.url("/.well-known/oauth-protected-resource/mcp")),
        ..Challenge::default()
    };
    find_with(peer, Some(&challenge), &QuirkTable::default()).await
}

pub async fn find_with(
    peer: &Peer,
    challenge: Option<&Challenge>,
    table: &QuirkTable,
) -> Result<Discovered, DiscoveryError> {
    discover(&egress(), &resource_of(peer), challenge, table, &mut Trace::new()).await
}

/// A 401 that says nothing.
pub fn bare() -> Challenge {
    Challenge { status: 401, ..Challenge::default() }
}

/// The paths that were asked for, in order.
pub fn paths(peer: &Peer) -> Vec<String> {
    peer.requests().into_iter().map(|request| request.path).collect()
}

pub fn endpoint<'a>(url: &'a str, client: &'a Client, quirks: &'a Quirks) -> TokenEndpoint<'a> {
    TokenEndpoint { url, reach: Reach::Requested, client, resource: Some("https://mcp.example/mcp"), quirks }
}
