//! What single authorization servers do differently: rows of data, each with a test against a server that does so.

use crate::config::OauthQuirk;

/// The rows that come with the program; the operator's are stronger.
pub(super) fn built_in() -> Vec<OauthQuirk> {
    Vec::new()
}
