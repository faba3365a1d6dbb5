//! The rows of runs, on either engine: two stores at one place are two instances.

mod ends;
mod lists;
mod rows;
mod rows_of;
mod takeover;
