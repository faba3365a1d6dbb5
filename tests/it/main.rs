//! Integration tests: a real gateway in this process, spoken to over HTTP. Fakes stand only for peers on the network,
//! and only for what real ones cannot do: exact timing, faults, scripts. Folders mirror the URL tree.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test where they stand")]
#![expect(clippy::disallowed_methods, reason = "tests are the strangers who connect from outside")]

mod any_host;
mod apart;
mod asking;
mod attack;
mod callers;
mod chat;
mod cli;
mod clients;
mod connections_api;
mod connections_cli;
mod demo;
mod doctor;
mod egress;
mod flows;
mod instances;
mod keys;
mod oauth;
mod operating;
mod pages;
mod pages_links;
mod people;
mod projects;
mod quirks;
mod registrations;
mod rivals;
mod runs;
mod sealed;
mod secrets;
mod sign_in;
mod store;
mod support;
mod tokens;
mod unread;
mod webhooks;
mod work;
