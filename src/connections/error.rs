//! Why a connection or a login could not be had.

use super::pages::FlowPage;
use crate::config::Secret;
use crate::rate_limit::RetryAfterSeconds;
use crate::store;

/// What is stored cannot be read or written now.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the store cannot be used")]
    Store,
    /// A sealed value does not open: the keyring is another one, or the value was changed.
    #[error("a stored secret cannot be opened")]
    Sealed,
    /// The token has expired, and the authorization server does not renew it just now.
    #[error("the login cannot be renewed at the moment; try again later")]
    NotNow,
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        tracing::warn!(%error, "the store failed");
        Error::Store
    }
}

/// Why there is no login.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlowError {
    /// The server of this name answers without one, and names none for anything else.
    #[error("{0} answers without a login, and offers none")]
    NotNeeded(String),
    /// The server offers none, or none that this gateway could be a client of.
    #[error("{0}")]
    NotOffered(String),
    /// The server, or the login it offers, cannot be used as it is now.
    #[error("{0}")]
    Unusable(String),
    #[error("too many logins are open for this user; finish one, or wait ten minutes")]
    TooMany,
    /// The person at the browser is somebody else.
    #[error("the login was asked for by another user")]
    UserMismatch,
    /// No such link or reference, or it was used, or has expired.
    #[error("there is no such login; ask for a new link")]
    Unknown,
    /// Callers that nobody vouches for begin too many, all of them together.
    #[error("too many logins are being asked for; try again in {} s", .0.0)]
    Busy(RetryAfterSeconds),
    #[error(transparent)]
    Store(#[from] Error),
}

/// Why a page cannot be what was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PageError {
    #[error("there is no such link")]
    Unknown,
    #[error("the link has expired")]
    Expired(Box<FlowPage>),
    #[error("the person is not the user of the link")]
    UserMismatch(Box<FlowPage>),
    /// The browser is not the one that was proven.
    #[error("nobody was proven in this browser")]
    NotProven,
    /// The browser that comes back is not the one that left; with the link, where it may be begun anew.
    #[error("the way back does not belong to this browser")]
    NotThisBrowser(Option<Secret>),
    /// The answer is about a login that does not wait any more; with the link, where the present state is.
    #[error("the answer is about something else")]
    NotAsked(Secret),
    /// The authorization server said no.
    #[error("the server refused")]
    Refused(Box<FlowPage>),
    /// The server cannot be used now.
    #[error("the server cannot be used")]
    Failed(Box<FlowPage>),
    /// No login could be begun at the server of this name.
    #[error("no login can be begun: {why}")]
    NotBegun { host: String, why: NotBegun },
    #[error(transparent)]
    Store(#[from] Error),
}

/// Why no login could be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBegun {
    #[error("the server offers none")]
    NotOffered,
    #[error("the server cannot be used")]
    Unusable,
    #[error("too many are open")]
    TooMany,
}

impl From<store::Error> for FlowError {
    fn from(error: store::Error) -> Self {
        FlowError::Store(error.into())
    }
}

impl From<store::Error> for PageError {
    fn from(error: store::Error) -> Self {
        PageError::Store(error.into())
    }
}
