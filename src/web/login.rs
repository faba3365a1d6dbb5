//! Signing in and out.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, Uri};

use super::form::Fields;
use super::frame::Frame;
use super::limits::is_only_looked_at;
use super::message::Message;
use super::return_to::ReturnTo;
use super::site::{Sent, Site, Visitor};
use crate::identity::{Returned, SignInError, Whom};

#[derive(Template)]
#[template(path = "sign_in.html")]
pub(super) struct SignInPage {
    pub frame: Frame,
    pub providers: Vec<Choice>,
    pub return_to: String,
    pub another: bool,
    pub why: &'static str,
}

/// A provider to choose.
pub(super) struct Choice {
    pub name: String,
    pub title: String,
}

/// `GET /login?return_to=…`: where to sign in.
pub(super) async fn choose(State(site): State<Arc<Site>>, uri: Uri, headers: HeaderMap) -> Response {
    let visitor = site.visitor(&headers).await;
    let query = Fields::parse(uri.query().unwrap_or_default().as_bytes());
    let return_to = ReturnTo::of(query.get("return_to"));
    if site.is_only_local() {
        return site.see(&visitor, return_to.path());
    }
    let choices = site.sign_in.providers();
    let page = SignInPage {
        frame: site.frame(&visitor),
        providers: choices.map(|(name, title)| Choice { name: name.into(), title: title.into() }).collect(),
        another: query.get("another").is_some(),
        why: if return_to.is_connect() {
            "Before a server is connected, this gateway must know that it is you."
        } else {
            "Sign in to see what applications may use in your name."
        },
        return_to: return_to.path().to_owned(),
    };
    site.page(&visitor, StatusCode::OK, &page)
}

/// `POST /login/{provider}`: on to the provider.
pub(super) async fn begin(
    State(site): State<Arc<Site>>,
    Path(provider): Path<String>,
    Sent { visitor, fields }: Sent,
) -> Response {
    let return_to = ReturnTo::of(fields.get("return_to"));
    let whom = if fields.get("another").is_some() { Whom::Another } else { Whom::Anyone };
    match site.sign_in.begin(&provider, &visitor.browser, return_to.path(), whom).await {
        Ok(target) => site.leave(&visitor, &target, "You sign in there and come back by yourself."),
        Err(error) => refused(&site, &visitor, &error, &return_to),
    }
}

/// `GET /login/{provider}/callback`: back from the provider.
pub(super) async fn finish(
    State(site): State<Arc<Site>>,
    Path(provider): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let visitor = site.visitor(&headers).await;
    if is_only_looked_at(&method, &headers) {
        return site.message(&visitor, StatusCode::TOO_EARLY, Message::not_opened());
    }
    let query = Fields::parse(uri.query().unwrap_or_default().as_bytes());
    let field = |name: &str| query.get(name).map(str::to_owned);
    let returned = Returned { state: field("state"), code: field("code"), iss: field("iss") };
    let known = site.browser(&headers);
    let signed_in = match site.sign_in.finish(&provider, &returned, known.as_ref()).await {
        Ok(signed_in) => signed_in,
        Err(error) => return refused(&site, &visitor, &error, &ReturnTo::of(None)),
    };
    // A session of its own for every sign-in; the one before it, whoever's it was, ends here.
    if let Some(before) = &visitor.person
        && let Err(error) = site.sessions.end(before, &before.session).await
    {
        return refused(&site, &visitor, &error.into(), &ReturnTo::of(None));
    }
    match site.sessions.start(&signed_in.account, &visitor.agent).await {
        Ok(session) => {
            let mut response = site.see(&visitor, ReturnTo::of(Some(&signed_in.return_to)).path());
            site.give_session(&mut response, &session);
            response
        }
        Err(error) => refused(&site, &visitor, &error.into(), &ReturnTo::of(None)),
    }
}

/// `POST /logout`: ends this session. With `again`, somebody else is to sign in.
pub(super) async fn end(State(site): State<Arc<Site>>, sent: Sent) -> Response {
    let Sent { mut visitor, fields } = sent;
    if let Some(person) = &visitor.person
        && let Err(error) = site.sessions.end(person, &person.session).await
    {
        return refused(&site, &visitor, &error.into(), &ReturnTo::of(None));
    }
    visitor.person = None;
    let mut response = match fields.get("again") {
        Some(_) => {
            let return_to = ReturnTo::of(fields.get("return_to"));
            site.see(&visitor, &format!("/login?another=yes&return_to={}", return_to.path()))
        }
        None => site.message(&visitor, StatusCode::OK, Message::signed_out(None)),
    };
    site.take_session(&mut response);
    response
}

fn refused(site: &Site, visitor: &Visitor, error: &SignInError, return_to: &ReturnTo) -> Response {
    let again = |words: &str| Message::sign_in_again(words, return_to.path());
    let (status, message) = match error {
        SignInError::UnknownProvider => {
            (StatusCode::NOT_FOUND, again("This gateway has no such sign-in provider."))
        }
        SignInError::NotBegunHere => (
            StatusCode::BAD_REQUEST,
            again(
                "This sign-in was not begun in this browser, was finished before, or took longer than ten minutes.",
            ),
        ),
        SignInError::Declined { title } => {
            (StatusCode::FORBIDDEN, again(&format!("{title} did not sign you in.")))
        }
        SignInError::Failed { title } => (
            StatusCode::BAD_GATEWAY,
            again(&format!("{title} gave no answer that can be trusted. Try again in a minute.")),
        ),
        SignInError::NotAllowed { title } => (
            StatusCode::FORBIDDEN,
            again(&format!(
                "Your account at {title} has no verified e-mail address of a domain that is let in here."
            )),
        ),
        SignInError::Store(error) => {
            tracing::warn!(%error, "a sign-in could not be stored");
            (StatusCode::SERVICE_UNAVAILABLE, Message::broken())
        }
    };
    site.message(visitor, status, message)
}
