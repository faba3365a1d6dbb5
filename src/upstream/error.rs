//! Why a provider gave no answer.

use crate::egress;

/// A provider that could not be reached, or hung up before its answer began.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address policy refused a host that the request named.
    #[error("{provider}: {refusal}")]
    Refused { provider: String, refusal: egress::Refusal },
    /// No connection, or no answer.
    #[error("{provider} could not be reached: {reason}")]
    Unreachable { provider: String, reason: String },
    /// It took too long to begin.
    #[error("{provider} did not begin to answer within {seconds} s")]
    Timeout { provider: String, seconds: u64 },
}

impl Error {
    /// From what the outbound client says about `provider`.
    pub(super) fn from_egress(provider: &str, error: egress::Error) -> Self {
        let provider = provider.to_owned();
        match error {
            egress::Error::Refused(refusal) => Error::Refused { provider, refusal },
            egress::Error::Timeout { after, .. } => Error::Timeout { provider, seconds: after.as_secs() },
            other => Error::Unreachable { provider, reason: other.to_string() },
        }
    }
}
