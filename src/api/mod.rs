//! The JSON API: one file per resource. Handlers read the request, call a feature, and map its outcome.

mod any_host;
mod app;
mod body;
mod chat;
mod connections;
mod error;
mod flows;
mod keep;
mod lists;
mod mcp;
mod models;
mod operating;
mod prompts;
mod reading;
mod relay;
mod relay_body;
mod result;
mod runs;
mod stored;
mod tasks;
mod view;
mod webhooks;

pub use any_host::{any_host, method_not_allowed, split as split_provider_path};
pub use app::App;
pub use body::BodyShares;
pub use chat::create as create_chat_completion;
pub use connections::{
    check as check_connections, create as create_connection, delete as delete_connection,
    list as list_connections, reauthorize as reauthorize_connection, tokens as give_out_tokens,
};
pub use error::ApiError;
pub use flows::confirm as confirm_flow;
pub use lists::list as list_runs;
pub use mcp::serve as serve_run_as_mcp;
pub use models::{find as find_model, list as list_models};
pub use operating::{healthz, metrics, readyz};
pub use prompts::complete as complete_at;
pub use relay::by_model as relay_by_model;
pub use result::{Form, show as show_result};
pub use runs::{
    cancel as cancel_run, change as change_run, delete as delete_run, events as follow_run, find as find_run,
    resume as resume_run,
};
pub use stored::{
    delete as delete_stored_completion, find as find_stored_completion, list as list_stored_completions,
    messages as list_stored_messages, update as update_stored_completion,
};
pub use tasks::create as create_task;
pub use webhooks::secret as show_webhook_secret;
