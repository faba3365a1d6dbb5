//! Who one is here, and where one is signed in.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use super::frame::Frame;
use super::message::Message;
use super::site::{Sent, Site};
use super::words;
use crate::identity::Person;

#[derive(Template)]
#[template(path = "account.html")]
pub(super) struct AccountPage {
    pub frame: Frame,
    pub local: bool,
    pub label: String,
    pub provider: String,
    pub ids: Vec<String>,
    pub sessions: Vec<SessionRow>,
}

/// A browser in which the person is signed in.
pub(super) struct SessionRow {
    pub id: String,
    pub agent: String,
    pub since: String,
    pub used: String,
    pub is_this: bool,
}

/// `GET /account`
pub(super) async fn show(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    let visitor = site.visitor(&headers).await;
    if site.is_only_local() || (site.local && visitor.person.is_none()) {
        let page = AccountPage {
            frame: site.frame(&visitor),
            local: true,
            label: "You, on this machine".to_owned(),
            provider: String::new(),
            ids: vec!["local".to_owned()],
            sessions: Vec::new(),
        };
        return site.page(&visitor, StatusCode::OK, &page);
    }
    let Some(person) = &visitor.person else { return site.see(&visitor, "/login?return_to=/account") };
    let now = site.now();
    let sessions = match site.sessions.list(person).await {
        Ok(sessions) => sessions,
        Err(error) => {
            tracing::warn!(%error, "sessions could not be listed");
            return site.message(&visitor, StatusCode::SERVICE_UNAVAILABLE, Message::broken());
        }
    };
    let row = |session: crate::store::Session| SessionRow {
        agent: words::browser(&session.agent),
        since: words::ago(now, session.created_at),
        used: words::ago(now, session.used_at),
        is_this: session.id == person.session,
        id: session.id,
    };
    let page = AccountPage {
        frame: site.frame(&visitor),
        local: false,
        label: words::line(&person.label),
        provider: title(&site, person),
        ids: person.ids().to_vec(),
        sessions: sessions.into_iter().map(row).collect(),
    };
    site.page(&visitor, StatusCode::OK, &page)
}

fn title(site: &Site, person: &Person) -> String {
    let mut providers = site.sign_in.providers();
    let found = providers.find(|(name, _)| *name == person.provider);
    found.map_or_else(|| person.provider.clone(), |(_, title)| title.to_owned())
}

/// `POST /account/sessions/{id}`: ends one session.
pub(super) async fn end_session(
    State(site): State<Arc<Site>>,
    Path(session): Path<String>,
    Sent { visitor, .. }: Sent,
) -> Response {
    let Some(person) = &visitor.person else { return site.see(&visitor, "/login?return_to=/account") };
    match site.sessions.end(person, &session).await {
        Ok(_) => site.see(&visitor, "/account"),
        Err(error) => {
            tracing::warn!(%error, "a session could not be ended");
            site.message(&visitor, StatusCode::SERVICE_UNAVAILABLE, Message::broken())
        }
    }
}

/// `POST /account/sign-out-everywhere`
pub(super) async fn sign_out_everywhere(
    State(site): State<Arc<Site>>,
    Sent { mut visitor, .. }: Sent,
) -> Response {
    let Some(person) = visitor.person.take() else { return site.see(&visitor, "/login?return_to=/account") };
    match site.sessions.end_all(&person).await {
        Ok(count) => {
            let mut response = site.message(&visitor, StatusCode::OK, Message::signed_out(Some(count)));
            site.take_session(&mut response);
            response
        }
        Err(error) => {
            tracing::warn!(%error, "sessions could not be ended");
            site.message(&visitor, StatusCode::SERVICE_UNAVAILABLE, Message::broken())
        }
    }
}
