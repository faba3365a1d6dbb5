//! The page of a login link: shows who asks for what, proves the person, and sends them on.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};

use super::connect_page::{Asked, BatchPage, BatchRow, ConnectPage, Next, NextServer};
use super::form::Fields;
use super::hosts;
use super::limits::is_only_looked_at;
use super::message::{Action, Message};
use super::return_to::is_link;
use super::site::{Sent, Site, Visitor};
use super::words;
use crate::config::Secret;
use crate::connections::{FlowPage, LinkView, NotBegun, PageError, Proof, Proven, Question, Reason, Stage};

/// After a link for several: the page of the first that is still to be done.
const NEXT: &str = "next";

/// What is said on the way to the authorization server.
const LEAVING: &str = "You sign in there, agree, and come back by yourself.";
/// What is said where the flow that a form was about is over.
const CHANGED: &str =
    "What you answered is over already, so nothing was done. This is another server: look at it anew.";

/// `GET /connect/{link}`. Changes nothing: what previews links looks at it too. The one exception is the browser that
/// comes back from the application's verifier with a proof: it goes on by itself, unless it only prefetches.
pub(super) async fn show(
    State(site): State<Arc<Site>>,
    Path(link): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let visitor = site.visitor(&headers).await;
    if !is_link(&link) {
        return site.message(&visitor, StatusCode::NOT_FOUND, Message::unknown_link());
    }
    let known = site.browser(&headers);
    let opened = !is_only_looked_at(&method, &headers);
    let given = Fields::parse(query.as_deref().unwrap_or_default().as_bytes());
    if let Some(proof) = given.get("proof") {
        if !opened {
            return site.message(&visitor, StatusCode::TOO_EARLY, Message::not_opened());
        }
        match site.connections.come_proven(&link, proof, known.as_ref()).await {
            Ok(Some(target)) => return site.leave(&visitor, &target, LEAVING),
            Ok(None) => {}
            Err(error) => return site.page_error(&visitor, error),
        }
    }
    match site.connections.view_link(&link, known.as_ref()).await {
        Ok(LinkView::One(flow)) if is_open(&flow) => {
            match site.connections.waits_for_word(&link, &visitor.browser).await {
                Ok(Some(question)) => site.ask_about_account(&visitor, &flow, &question),
                Ok(None) => ask(&site, &visitor, &flow, opened, None).await,
                Err(error) => site.page_error(&visitor, error),
            }
        }
        Ok(LinkView::One(flow)) => site.ended(&visitor, &flow),
        Ok(LinkView::Several(flows)) => match next_of(&flows).filter(|_| query.as_deref() == Some(NEXT)) {
            Some(flow) => ask(&site, &visitor, flow, opened, None).await,
            None => several(&site, &visitor, &link, &flows),
        },
        Err(error) => site.page_error(&visitor, error),
    }
}

/// The first that is still to be done.
fn next_of(flows: &[FlowPage]) -> Option<&FlowPage> {
    flows.iter().find(|flow| is_open(flow))
}

/// Whether somebody can go on with it. Also where an answer about another account is missing: in the browser that was
/// asked it is asked again, in others it begins anew.
fn is_open(flow: &FlowPage) -> bool {
    matches!(flow.stage, Stage::Open | Stage::OtherAccount)
}

/// `POST /connect/{link}`: goes on with what the page showed, or declines it. What the page did not show stays as it is.
pub(super) async fn act(
    State(site): State<Arc<Site>>,
    Path(link): Path<String>,
    Sent { visitor, fields }: Sent,
) -> Response {
    if !is_link(&link) {
        return site.message(&visitor, StatusCode::NOT_FOUND, Message::unknown_link());
    }
    let view = match site.connections.view_link(&link, Some(&visitor.browser)).await {
        Ok(view) => view,
        Err(error) => return site.page_error(&visitor, error),
    };
    let flows = match &view {
        LinkView::One(flow) => std::slice::from_ref(&**flow),
        LinkView::Several(flows) => flows,
    };
    let shown = fields.get("flow").and_then(|id| flows.iter().find(|flow| flow.flow == id));
    match (shown.filter(|flow| is_open(flow)), fields.get("action")) {
        (Some(flow), Some("continue")) => go_on(&site, &visitor, flow).await,
        (Some(flow), Some("decline")) => decline(&site, &visitor, flow).await,
        _ => match (&view, next_of(flows)) {
            (LinkView::One(flow), None) => site.ended(&visitor, flow),
            (LinkView::One(_), Some(flow)) => ask(&site, &visitor, flow, true, None).await,
            (LinkView::Several(_), Some(flow)) => ask(&site, &visitor, flow, true, Some(CHANGED)).await,
            (LinkView::Several(_), None) => several(&site, &visitor, &link, flows),
        },
    }
}

async fn go_on(site: &Site, visitor: &Visitor, flow: &FlowPage) -> Response {
    let link = &flow.link;
    match (proof_of(site, visitor, flow), flow.proof) {
        (Some(proven), _) => match site.connections.begin(link, &flow.flow, proven).await {
            Ok(target) => site.leave(visitor, &target, LEAVING),
            Err(error) => site.page_error(visitor, error),
        },
        (None, Proof::App) => {
            match site.connections.app_reference(link, &flow.flow, &visitor.browser).await {
                Ok(verifier) => {
                    let words = "The application confirms that it is you and sends you back by itself.";
                    site.leave(visitor, &verifier, words)
                }
                Err(error) => site.page_error(visitor, error),
            }
        }
        (None, Proof::Gateway | Proof::Local) => {
            site.see(visitor, &format!("/login?return_to=/connect/{link}"))
        }
    }
}

/// Who has proven nothing has nothing to decline: the page closes for them, and the flow stays for its user.
async fn decline(site: &Site, visitor: &Visitor, flow: &FlowPage) -> Response {
    let Some(proven) = proof_of(site, visitor, flow) else {
        let until = words::ago(site.now(), flow.expires_at_ms);
        let message = Message::left_alone(&flow.application.name, &flow.host, &until);
        return site.message(visitor, StatusCode::OK, message);
    };
    match site.connections.decline(&flow.link, &flow.flow, proven).await {
        Ok(flow) => site.ended(visitor, &flow),
        Err(error) => site.page_error(visitor, error),
    }
}

/// What this browser can prove now, for this flow.
pub(super) fn proof_of(site: &Site, visitor: &Visitor, flow: &FlowPage) -> Option<Proven> {
    let browser = || Secret::clone(&visitor.browser);
    match flow.proof {
        Proof::Local => site.local.then(|| Proven::Local { browser: browser() }),
        Proof::App => flow.proven.then(|| Proven::App { browser: browser() }),
        Proof::Gateway => visitor
            .person
            .as_ref()
            .map(|person| Proven::Gateway { ids: person.ids().to_vec(), browser: browser() }),
    }
}

/// The page that asks for consent. `opened` is false when it is only looked at: then nothing follows from it.
async fn ask(
    site: &Site,
    visitor: &Visitor,
    flow: &FlowPage,
    opened: bool,
    notice: Option<&'static str>,
) -> Response {
    let step_to = match flow.proof {
        Proof::Local => Next::Leave,
        Proof::App if flow.proven => Next::Leave,
        Proof::App => Next::App,
        Proof::Gateway => match &visitor.person {
            None => Next::SignIn,
            Some(person) if person.ids().contains(&flow.user) => Next::Leave,
            Some(person) => {
                if opened
                    && let Err(error) =
                        site.connections.note_wrong_person(&flow.link, &flow.flow, &person.ids()).await
                {
                    return site.page_error(visitor, error);
                }
                return site.wrong_person(visitor, flow);
            }
        },
    };
    let page = ConnectPage {
        frame: site.frame(visitor),
        asked: asked(flow, site.now()),
        step: None,
        person: visitor.person.as_ref().map(|person| words::line(&person.label)),
        step_to,
        path: format!("/connect/{}", flow.link),
        flow: flow.flow.clone(),
        notice,
    };
    site.page(visitor, StatusCode::OK, &page)
}

fn asked(flow: &FlowPage, now: i64) -> Asked {
    Asked {
        application: words::sentence(&flow.application.name),
        application_is_known: flow.application.verified,
        label: if flow.label.is_empty() { words::address(&flow.host) } else { words::line(&flow.label) },
        host: words::address(&flow.host),
        resource: words::address(&flow.resource),
        sign_in: words::address(&flow.sign_in_host),
        sign_in_elsewhere: !hosts::are_one_site(&flow.host, &flow.sign_in_host),
        // All of them: what matters must not hide behind a number.
        scopes: words::scopes(&flow.scopes),
        user: words::masked(&flow.user),
        profile: Some(words::line(&flow.profile)).filter(|profile| !profile.is_empty()),
        why: match flow.reason {
            Reason::FirstUse => None,
            Reason::Expired => Some("You connected it before, and that login has expired since."),
            Reason::Revoked => Some("You connected it before, and that login was withdrawn since."),
            Reason::Refused => Some("The server keeps refusing the login that was given before."),
            Reason::StepUp => {
                Some("For what is asked now, the server wants more rights than you gave before.")
            }
            Reason::ReAuthorize => Some("It was connected before. This changes what is allowed."),
        },
        since: words::ago(now, flow.created_at_ms),
        until: words::ago(now, flow.expires_at_ms),
    }
}

fn several(site: &Site, visitor: &Visitor, link: &str, flows: &[FlowPage]) -> Response {
    let Some(first) = flows.first() else {
        return site.message(visitor, StatusCode::NOT_FOUND, Message::unknown_link());
    };
    let rows = flows.iter().map(|flow| {
        let (tone, state) = state_words(flow.stage);
        BatchRow { host: words::address(&flow.host), label: words::line(&flow.label), tone, state }
    });
    let next = next_of(flows);
    let page = BatchPage {
        frame: site.frame(visitor),
        application: words::sentence(&first.application.name),
        application_is_known: first.application.verified,
        rows: rows.collect(),
        all_connected: flows.iter().all(|flow| flow.stage == Stage::Granted),
        done: flows.iter().filter(|flow| !is_open(flow)).count(),
        total: flows.len(),
        next: next.map(|flow| NextServer {
            host: words::address(&flow.host),
            path: format!("/connect/{link}?{NEXT}"),
        }),
    };
    site.page(visitor, StatusCode::OK, &page)
}

fn state_words(stage: Stage) -> (&'static str, &'static str) {
    match stage {
        Stage::Open => ("", "to do"),
        Stage::OtherAccount => ("now", "to confirm"),
        Stage::Returned => ("now", "being connected"),
        Stage::Granted => ("good", "connected"),
        Stage::Declined => ("warn", "declined"),
        Stage::Failed => ("bad", "failed"),
        Stage::Mismatched => ("bad", "refused"),
        Stage::Expired => ("warn", "expired"),
    }
}

impl Site {
    /// The page of a flow that is over.
    pub(super) fn ended(&self, visitor: &Visitor, flow: &FlowPage) -> Response {
        let (app, host) = (&*flow.application.name, flow.host.as_str());
        let (status, message) = match flow.stage {
            Stage::Returned => (StatusCode::OK, Message::being_connected(host)),
            Stage::Granted => (StatusCode::OK, Message::already_connected(app, host)),
            Stage::Declined => {
                let had_it = matches!(flow.reason, Reason::StepUp | Reason::ReAuthorize);
                (StatusCode::OK, Message::declined(app, host, had_it))
            }
            Stage::Failed => (StatusCode::BAD_GATEWAY, Message::not_usable(host, None)),
            Stage::Mismatched => return self.wrong_person(visitor, flow),
            Stage::Expired | Stage::Open | Stage::OtherAccount => {
                (StatusCode::GONE, Message::expired(app, host))
            }
        };
        self.message(visitor, status, message)
    }

    /// The page for who is not the user of the flow.
    pub(super) fn wrong_person(&self, visitor: &Visitor, flow: &FlowPage) -> Response {
        let switch = visitor.person.as_ref().map(|_| Action::Post {
            path: "/logout".to_owned(),
            words: "Sign in with another account".to_owned(),
            fields: vec![("again", "yes".to_owned()), ("return_to", format!("/connect/{}", flow.link))],
            quiet: true,
        });
        self.message(visitor, StatusCode::FORBIDDEN, Message::wrong_person(&flow.host, switch))
    }

    /// The page that asks whether another account than before is right.
    pub(super) fn ask_about_account(
        &self,
        visitor: &Visitor,
        flow: &FlowPage,
        question: &Question,
    ) -> Response {
        let act = |words: &str, value: &str, quiet| Action::Post {
            path: format!("/connect/{}/account", flow.link),
            words: words.to_owned(),
            fields: vec![("question", question.id.clone()), ("action", value.to_owned())],
            quiet,
        };
        let message = Message::other_account(&flow.host, &question.before, &question.now)
            .with(act("Use this account", "keep", false))
            .with(act("Do not use it", "drop", true));
        self.message(visitor, StatusCode::OK, message)
    }

    /// The page for what went wrong with a link.
    pub(super) fn page_error(&self, visitor: &Visitor, error: PageError) -> Response {
        let again =
            |link: &str| Action::Link { path: format!("/connect/{link}"), words: "Start again".to_owned() };
        let (status, message) = match error {
            PageError::Unknown => (StatusCode::NOT_FOUND, Message::unknown_link()),
            PageError::Expired(flow) => {
                // It is over in one way or another, and what was asked for was not done.
                let mut response = self.ended(visitor, &flow);
                *response.status_mut() = StatusCode::GONE;
                return response;
            }
            PageError::UserMismatch(flow) => return self.wrong_person(visitor, &flow),
            PageError::NotProven => (StatusCode::FORBIDDEN, Message::no_cookie(None)),
            PageError::NotThisBrowser(link) => {
                (StatusCode::BAD_REQUEST, Message::no_cookie(link.as_ref().map(|link| again(link.expose()))))
            }
            PageError::NotAsked(link) => return self.see(visitor, &format!("/connect/{}", link.expose())),
            PageError::Refused(flow) => {
                let message = Message::not_granted(&flow.application.name, &flow.host);
                (StatusCode::FORBIDDEN, message)
            }
            PageError::Failed(flow) => {
                (StatusCode::BAD_GATEWAY, Message::not_usable(&flow.host, Some(again(&flow.link))))
            }
            PageError::NotBegun { host, why } => {
                let back =
                    Action::Link { path: "/connections".to_owned(), words: "Your connections".to_owned() };
                let (status, message) = match why {
                    NotBegun::NotOffered => (StatusCode::BAD_GATEWAY, Message::no_login(&host)),
                    NotBegun::Unusable => (StatusCode::BAD_GATEWAY, Message::not_changed(&host)),
                    NotBegun::TooMany => (StatusCode::TOO_MANY_REQUESTS, Message::too_many_logins(&host)),
                };
                (status, message.with(back))
            }
            PageError::Store(error) => {
                tracing::warn!(%error, "a link could not be looked up");
                (StatusCode::SERVICE_UNAVAILABLE, Message::broken())
            }
        };
        self.message(visitor, status, message)
    }
}
