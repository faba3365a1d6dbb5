//! A user's stored authorisations at protected resources. The outline only: nothing is stored, and no login offered.

mod outline;
mod outline_pages;

pub use outline::*;
pub use outline_pages::*;
