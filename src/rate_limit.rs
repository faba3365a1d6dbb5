//! How many requests a caller may send.
