//! Two processes on one database: logins, renewals and revocations of one reach the other, neither undoes what the
//! other does at the same moment, and a crash or a pause of one loses nothing. On PostgreSQL alone: a database in a file has one process at a time.

mod clocks;
mod database;
mod house;
mod keys;
mod logins;
mod renewals;

pub use house::until_blocked;
