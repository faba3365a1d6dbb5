//! Signing people in at providers of the operator's choice.
//!
//! The providers are trusted to say who somebody is, and for nothing else: their tokens are used once and dropped,
//! their texts are never shown. What belongs to one attempt (state, nonce, PKCE verifier) follows from the browser's
//! cookie, so that it can be finished in that browser only and nothing secret has to be kept.

mod attempt;
mod claims;
mod providers;
mod userinfo;
mod wire;

pub use providers::{Returned, SignIn, SignInError, SignedIn, Whom};
