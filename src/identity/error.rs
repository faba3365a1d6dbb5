//! Why a caller is not let in. Always HTTP 401; the text says what to send and never repeats a key.

/// The outcomes of looking at `Authorization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a key is needed: send `Authorization: Bearer KEY`")]
    Missing,
    #[error("the `Authorization` header must be `Bearer KEY`")]
    NotBearer,
    #[error("this key is not known here")]
    Unknown,
    /// A key that is none of the gateway's, where nobody may bring a provider's.
    #[error(
        "this gateway takes its own keys (`tgk_…`) only, and did not pass yours on; use one of those, or ask the operator \
         to allow providers' keys with `[pass_through] enabled = true`"
    )]
    PassThroughOff,
    /// A project's key where the key would be sent to a provider.
    #[error(
        "a gateway key (`tgk_…`) cannot be used on this path, because the key given here goes to that host; \
         use `/v1/chat/completions`, or the provider's own key where this gateway takes one"
    )]
    GatewayKeyForHost,
}
