//! Who sends a request, and under which namespace it is kept apart from others.
//!
//! Never decides what a caller may reach, and never sends a key anywhere.

mod caller;
mod cookie;
mod error;
mod key_ending;
mod peer;
mod scope;
mod session;
mod sign_in;
mod stored;

pub use caller::{Caller, CallerKind, Callers, Surface, has_provider_key};
pub use cookie::{CookieKind, Cookies};
pub use error::Error;
pub use key_ending::KeyEnding;
pub use peer::Peer;
pub use scope::{Scopes, word_of};
pub use session::{Person, Sessions};
pub use sign_in::{Returned, SignIn, SignInError, SignedIn, Whom};
