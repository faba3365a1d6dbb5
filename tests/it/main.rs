//! Tests through the outside: the command line and HTTP.

mod cli;
