//! Runs that are kept: they survive crashes, are watched by many, are found, changed and deleted by whom they belong to,
//! and have pages.

mod contract;
mod crashes;
mod interleavings;
mod keeping;
mod lists;
pub mod mcp;
mod mcp_attacks;
pub mod outside;
pub mod pages;
mod pages_again;
mod pages_attacks;
pub mod pages_of_people;
mod polled;
mod scene;
mod secrets;
mod storing;
mod viewers;
mod watcher;
