//! A user's stored authorisations at protected resources. The outline only: nothing is stored, and no login offered.

pub mod doctor;
mod outline;
mod outline_pages;
pub mod quirks;

pub use outline::*;
pub use outline_pages::*;
