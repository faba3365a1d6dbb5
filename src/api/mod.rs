//! The JSON API: one file per resource. Handlers read the request, call a feature, and map its outcome.

mod any_host;
mod app;
mod body;
mod chat;
mod connections;
mod error;
mod flows;
mod keep;
mod models;
mod operating;
mod relay;
mod view;
mod webhooks;

pub use any_host::{any_host, method_not_allowed};
pub use app::App;
pub use chat::create as create_chat_completion;
pub use connections::{
    check as check_connections, create as create_connection, delete as delete_connection,
    list as list_connections, reauthorize as reauthorize_connection, tokens as give_out_tokens,
};
pub use error::ApiError;
pub use flows::confirm as confirm_flow;
pub use models::{find as find_model, list as list_models};
pub use operating::{healthz, metrics, readyz};
pub use relay::by_model as relay_by_model;
pub use webhooks::secret as show_webhook_secret;
