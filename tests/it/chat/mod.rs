//! Chat completions.
