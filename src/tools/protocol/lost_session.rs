//! Telling a session that its server has forgotten from a request that it refuses.
//!
//! The specification has one answer for a lost session, 404, and servers have many: 400, 401, 410, 422, 500, or an error
//! under 200. Where an answer can mean either, a `ping` in the same session decides. It is harmless, and a server that
//! refuses it in the very same way refuses the session, not the request.

use http::StatusCode;

use super::link::Rejection;
use super::message::{UNKNOWN_SESSION, code};
use super::modern::Asked;
use super::request::Ask;
use crate::tools::Error;

/// What an answer says of the session that its request was in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionDoubt {
    /// Nothing: the answer is about the request.
    None,
    /// The session may be lost; a `ping` tells.
    Ping,
    /// The session is lost, and the request was not carried out.
    Lost,
}

/// How a request was refused, as far as two refusals can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusalSign {
    status: Option<StatusCode>,
    code: Option<i64>,
}

/// What `outcome` says of the session. `is_named` when the server gave the session a name.
pub(super) fn doubt(outcome: &Result<Asked, Error>, is_named: bool) -> SessionDoubt {
    let rejection = match outcome {
        Ok(Asked::Rejected(rejection)) => rejection,
        Ok(Asked::Result(_)) => return SessionDoubt::None,
        Err(Error::Protocol(_)) => return SessionDoubt::Ping,
        Err(_) => return SessionDoubt::None,
    };
    let status = rejection.status.as_u16();
    let is_said = matches!(status, 404 | 410) || (status == 400 && rejection.about_session);
    if is_named && (is_said || rejection.challenge.is_some()) {
        return SessionDoubt::Lost;
    }
    let may_be_meant = match &rejection.rpc {
        // The server has become another one; that is dealt with elsewhere.
        Some(rpc) if rpc.code == code::UNSUPPORTED_VERSION => false,
        _ if matches!(status, 400 | 404 | 410 | 422 | 500) => true,
        Some(rpc) => {
            rpc.code == code::INVALID_REQUEST
                || code::SERVER.contains(&rpc.code)
                || (rpc.code == code::INTERNAL && rejection.about_session)
        }
        None => false,
    };
    if may_be_meant { SessionDoubt::Ping } else { SessionDoubt::None }
}

/// The refusal in `outcome`; `None` when there is none.
pub(super) fn sign(outcome: &Result<Asked, Error>) -> Option<RefusalSign> {
    match outcome {
        Ok(Asked::Rejected(rejection)) => {
            let code = rejection.rpc.as_ref().map(|rpc| rpc.code);
            // A server that does not know `ping` answers, in a session that it knows.
            let sign = RefusalSign { status: Some(rejection.status), code };
            (code != Some(code::METHOD_NOT_FOUND)).then_some(sign)
        }
        Err(Error::Protocol(_)) => Some(RefusalSign { status: None, code: None }),
        Ok(Asked::Result(_)) | Err(_) => None,
    }
}

/// Whether a request in a session that turned out to be lost may be sent again in another one: a call only when the
/// server refused it before it ran. A failure of the server itself leaves that open, unless it speaks of the session.
pub(super) fn may_repeat(ask: &Ask<'_>, outcome: &Result<Asked, Error>) -> bool {
    match outcome {
        _ if !matches!(ask, Ask::Call { .. }) => true,
        Ok(Asked::Rejected(Rejection { status, about_session, .. })) => {
            !status.is_server_error() || *about_session
        }
        Err(Error::Protocol(what)) => what == UNKNOWN_SESSION,
        Ok(Asked::Result(_)) | Err(_) => false,
    }
}
