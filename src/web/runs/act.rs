//! What the owner of a run does to it: share, stop, resume, delete.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;

use super::show::{self, broken};
use crate::completion::{Changed, ShownSharing, Visibility};
use crate::store::Error;
use crate::web::form::Fields;
use crate::web::message::Message;
use crate::web::site::{Sent, Site, Visitor};

/// `POST /{id}/share`: changes who may read it.
pub(in crate::web) async fn share(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    Sent { visitor, fields }: Sent,
) -> Response {
    let Some(visibility) = fields.get("visibility").and_then(Visibility::parse) else {
        return site.message(&visitor, StatusCode::BAD_REQUEST, Message::foreign_form());
    };
    let changed = site.runs().share(&id, &site.reader(&visitor), shown(&fields), visibility).await;
    if matches!(changed, Ok(Changed::Stale)) {
        return show::stale_page(&site, visitor, &id).await;
    }
    after(&site, &visitor, &id, changed, &format!("/{id}?now=shared"))
}

/// `POST /{id}/cancel`: asks it to end.
pub(in crate::web) async fn cancel(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    Sent { visitor, .. }: Sent,
) -> Response {
    let changed = site.runs().cancel(&id, &site.reader(&visitor)).await;
    let path = match &changed {
        Ok(Changed::Done(record)) if record.status.is_over() => format!("/{id}"),
        _ => format!("/{id}?now=stopping"),
    };
    after(&site, &visitor, &id, changed, &path)
}

/// `POST /{id}/resume`: continues an interrupted run, at an address of its own.
pub(in crate::web) async fn resume(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    Sent { visitor, .. }: Sent,
) -> Response {
    let changed = site.runs().resume_interrupted(&id, &site.reader(&visitor)).await;
    let path = match &changed {
        Ok(Changed::Done(resumed)) => format!("/{}", resumed.id),
        _ => format!("/{id}"),
    };
    after(&site, &visitor, &id, changed, &path)
}

/// `POST /{id}/delete` and `POST /runs/{id}/delete`: deletes it, for everybody.
pub(in crate::web) async fn delete(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    Sent { visitor, .. }: Sent,
) -> Response {
    let changed = site.runs().delete(&id, &site.reader(&visitor)).await;
    after(&site, &visitor, &id, changed, "/runs?now=deleted")
}

/// What the page showed when the choice was made; `None` of a page that does not say.
fn shown(fields: &Fields) -> Option<ShownSharing> {
    let visibility = Visibility::parse(fields.get("shown")?)?;
    let used_logins = match fields.get("logins")? {
        "used" => true,
        "unused" => false,
        _ => return None,
    };
    Some(ShownSharing { visibility, used_logins })
}

fn after(site: &Site, visitor: &Visitor, id: &str, changed: Result<Changed, Error>, path: &str) -> Response {
    match changed {
        Ok(Changed::Done(_)) => site.see(visitor, path),
        Ok(Changed::Unknown) => site.unknown_run(visitor, id),
        Ok(Changed::NotYours) => site.message(visitor, StatusCode::FORBIDDEN, Message::not_your_run(id)),
        Ok(Changed::Stale) => site.see(visitor, &format!("/{id}")),
        // Its page shows no such button.
        Ok(Changed::NotInterrupted) => site.see(visitor, path),
        Ok(Changed::StillRunning) => site.message(visitor, StatusCode::CONFLICT, Message::still_running(id)),
        Err(error) => broken(site, visitor, &error),
    }
}
