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
    /// A project's key where the key would be sent to a provider.
    #[error(
        "a gateway key (`tgk_…`) cannot be used on this path, because the key given here goes to that host; \
         send the provider's own key, or use `/v1/chat/completions`"
    )]
    GatewayKeyForHost,
}
