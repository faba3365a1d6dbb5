//! `/v1/chat/completions`.

mod authorization;
mod bad_input;
mod bounds;
mod faults;
mod logins;
mod offered;
mod output;
mod own_functions;
mod own_links;
mod pages;
mod pages_in_calls;
mod relay;
mod results;
mod retries;
mod tools;
mod waiting;
