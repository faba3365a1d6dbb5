//! Login links: whose they are, what they show, and every way to get somebody else's documents by one. Each attack ends
//! with nothing stored and an entry in the audit log.

mod accounts;
mod app_proof;
mod callbacks;
mod consent;
mod house;
