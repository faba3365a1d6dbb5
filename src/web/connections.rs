//! A person's connections: what applications may use in their name, and an end to it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use super::connections_page::{ConnectionRow, ConnectionsPage, Notice};
use super::form::Fields;
use super::message::Message;
use super::site::{Sent, Site, Visitor};
use super::words;
use crate::connections::{OwnConnection, RevokeOutcome};
use crate::identity::Person;

/// `GET /connections`
pub(super) async fn show(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    let visitor = site.visitor(&headers).await;
    match ids(&site, &visitor) {
        Some(ids) => list(&site, &visitor, &ids, StatusCode::OK, None).await,
        None => site.see(&visitor, "/login?return_to=/connections"),
    }
}

/// `POST /connections/{id}/disconnect`
pub(super) async fn disconnect(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    Sent { visitor, fields }: Sent,
) -> Response {
    let Some(ids) = ids(&site, &visitor) else { return site.see(&visitor, "/login?return_to=/connections") };
    let project = fields.get("project").unwrap_or_default();
    let known = site.connections.list_own(&ids).await.unwrap_or_default();
    let known = known.iter().find(|known| known.project == project && known.id == id);
    if known.is_some_and(|known| !is_as_shown(&fields, known)) {
        return changed(&site, &visitor, &ids).await;
    }
    let host = known.map_or_else(|| "the server".to_owned(), |known| words::address(&known.host));
    let (tone, words) = match site.connections.revoke_own(&ids, project, &id).await {
        Ok(RevokeOutcome::Revoked) => ("good", format!("Disconnected: {host} has revoked the access.")),
        Ok(RevokeOutcome::Unsupported) => (
            "good",
            format!(
                "Disconnected here. {host} has no way to be told; its own settings may still list the access."
            ),
        ),
        Ok(RevokeOutcome::Retrying) => (
            "good",
            format!("Disconnected here. {host} has not confirmed yet; it is asked again until it does."),
        ),
        Ok(RevokeOutcome::NotFound) => ("warn", "This connection is not there any more.".to_owned()),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be revoked");
            return site.message(&visitor, StatusCode::SERVICE_UNAVAILABLE, Message::broken());
        }
    };
    list(&site, &visitor, &ids, StatusCode::OK, Some(Notice { tone, words })).await
}

/// Whether the login is still the one that the page showed: with the same account, and for the same.
fn is_as_shown(fields: &Fields, now: &OwnConnection) -> bool {
    fields.get("account") == Some(now.account.as_deref().unwrap_or_default())
        && fields.get("shown") == Some(&*now.scopes.join(" "))
}

/// The list as it is now, for who sent a form about a login that has been replaced since.
async fn changed(site: &Site, visitor: &Visitor, ids: &[String]) -> Response {
    let words =
        "Nothing was changed. This connection was replaced after your page was loaded; look at it again.";
    list(site, visitor, ids, StatusCode::CONFLICT, Some(Notice { tone: "warn", words: words.to_owned() }))
        .await
}

/// `POST /connections/{id}/scopes`: a new login with other scopes.
pub(super) async fn change_scopes(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    Sent { visitor, fields }: Sent,
) -> Response {
    let Some(ids) = ids(&site, &visitor) else { return site.see(&visitor, "/login?return_to=/connections") };
    let scopes = fields.get("scopes").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let project = fields.get("project").unwrap_or_default();
    let known = site.connections.list_own(&ids).await.unwrap_or_default();
    let known = known.iter().find(|known| known.project == project && known.id == id);
    if known.is_some_and(|known| !is_as_shown(&fields, known)) {
        return changed(&site, &visitor, &ids).await;
    }
    match site.connections.reauthorize_own(&ids, project, &id, scopes).await {
        Ok(link) => site.see(&visitor, &link),
        Err(error) => site.page_error(&visitor, error),
    }
}

/// Under which names the visitor's connections are kept; `None` when nobody is signed in.
fn ids(site: &Site, visitor: &Visitor) -> Option<Vec<String>> {
    let own = site.local.then(|| "local".to_owned());
    let person = visitor.person.iter().flat_map(Person::ids);
    let ids: Vec<String> = own.into_iter().chain(person).collect();
    (!ids.is_empty()).then_some(ids)
}

async fn list(
    site: &Site,
    visitor: &Visitor,
    ids: &[String],
    status: StatusCode,
    notice: Option<Notice>,
) -> Response {
    let found = match site.connections.list_own(ids).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "connections could not be listed");
            return site.message(visitor, StatusCode::SERVICE_UNAVAILABLE, Message::broken());
        }
    };
    let now = site.now();
    let rows = found.into_iter().map(|connection| row(connection, now)).collect();
    let page = ConnectionsPage { frame: site.frame(visitor), rows, notice };
    site.page(visitor, status, &page)
}

fn row(connection: OwnConnection, now: i64) -> ConnectionRow {
    let advice =
        "The server does not accept this login any more. The next request that needs it shows you a link.";
    let (tone, state, advice) = match connection.needs_login {
        false => ("good", "connected", None),
        true => ("warn", "needs you", Some(advice.to_owned())),
    };
    ConnectionRow {
        host: words::address(&connection.host),
        resource: words::address(&connection.resource),
        account_text: connection.account.clone().unwrap_or_default(),
        account: connection.account.as_deref().map(words::line),
        application: words::sentence(&connection.application.name),
        project: connection.project.strip_prefix("project:").map(words::line),
        profile: Some(words::line(&connection.profile)).filter(|profile| !profile.is_empty()),
        scopes: words::scopes(&connection.scopes),
        scope_text: connection.scopes.join(" "),
        used: words::ago(now, connection.last_used_at_ms),
        tone,
        state,
        advice,
        can_change: true,
        id: connection.id,
        namespace: connection.project,
    }
}
