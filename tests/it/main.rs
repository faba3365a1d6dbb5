//! Integration tests: a real gateway in this process, spoken to over HTTP. Fakes stand only for peers on the network,
//! and only for what real ones cannot do: exact timing, faults, scripts. Folders mirror the URL tree.

mod any_host;
mod callers;
mod chat;
mod cli;
mod egress;
mod operating;
mod support;
