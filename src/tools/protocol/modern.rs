//! The modern era (MCP 2026-07-28): one POST that says everything, one answer. No session, no second request.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::deadline::Deadline;
use super::link::{Answer, Rejection, cut};
use super::message::{Message, code};
use super::peer::Peer;
use super::request::{Ask, MODERN};
use super::{Core, Follow};
use crate::tools::Error;

/// What became of a request.
pub(crate) enum Asked {
    Result(Bytes),
    Rejected(Rejection),
}

/// Asks once; a second time only when the server refused the version and names the same one as supported.
///
/// # Errors
/// What kept the request from being answered.
pub(crate) async fn ask(
    core: &Core,
    peer: &Peer,
    ask: Ask<'_>,
    deadline: &mut Deadline,
    follow: Follow<'_>,
) -> Result<Asked, Error> {
    let first = ask_once(core, peer, ask, deadline, follow).await?;
    match first {
        Asked::Rejected(Rejection { rpc: Some(rpc), .. })
            if rpc.code == code::UNSUPPORTED_VERSION
                && rpc.supported_versions().iter().any(|version| version == MODERN) =>
        {
            ask_once(core, peer, ask, deadline, follow).await
        }
        other => Ok(other),
    }
}

async fn ask_once(
    core: &Core,
    peer: &Peer,
    ask: Ask<'_>,
    deadline: &mut Deadline,
    follow: Follow<'_>,
) -> Result<Asked, Error> {
    let id = core.next_id();
    let mut headers = HeaderMap::new();
    ask.mirror(&mut headers);
    let mut messages = match core.link.post(peer, &peer.uri, headers, ask.modern(id), deadline).await? {
        Answer::Messages(messages, _) => messages,
        Answer::Rejected(rejection) => return Ok(Asked::Rejected(rejection)),
        Answer::Accepted => {
            let (status, about_session) = (StatusCode::ACCEPTED, false);
            return Ok(Asked::Rejected(Rejection { status, rpc: None, about_session, challenge: None }));
        }
    };
    // Dropping `messages` closes the stream, which is how a modern request is cancelled.
    loop {
        match deadline.within(messages.next()).await?? {
            Some(Message::Response { id: Some(other), .. }) if other != id => {}
            Some(Message::Response { outcome, .. }) => {
                messages.finish().await;
                return Ok(match outcome {
                    Ok(result) => Asked::Result(result),
                    Err(rpc) => Asked::Rejected(Rejection::by_rpc(rpc)),
                });
            }
            Some(Message::Progress { token: Some(token), progress: said }) if token == id => {
                deadline.extend();
                follow.progress(said);
            }
            Some(Message::ToolsChanged) => core.lists.forget(peer),
            Some(_) => {}
            None => return Err(cut("the answer ended without a result")),
        }
    }
}
