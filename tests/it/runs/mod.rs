//! Runs that are kept: they survive crashes, are watched by many, and are found, changed and deleted by whom they
//! belong to.

mod contract;
mod crashes;
mod interleavings;
mod keeping;
mod outside;
mod scene;
mod secrets;
mod viewers;
mod watcher;
