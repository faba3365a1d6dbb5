//! Every setting, with its default. Read from a TOML file and the environment, checked before anything starts.

mod de;
mod environment;
mod error;
mod load;
mod login_links;
mod node;
mod oauth;
mod schema;
mod secret;
mod settings;
mod sign_in;
#[cfg(test)]
mod tests;
mod validate;

pub use environment::Environment;
pub use error::Error;
pub use load::{Override, load};
pub use login_links::{Admission, LinkObstacle};
pub use node::Origin;
pub use oauth::{AuthMethod, OauthClient, OauthEndpoints, OauthQuirk, SendResource};
pub use secret::Secret;
pub use settings::*;
pub use sign_in::{SignIn, SignInKind, SignInOauth2};
pub use validate::{is_name, is_public_or_own_url};
