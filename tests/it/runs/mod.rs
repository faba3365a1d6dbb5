//! Runs that are kept, and their pages.

mod pages;
mod pages_attacks;
mod pages_of_people;
