//! Attacks on the policy, with real listeners, and the uses it must not break.

mod peer;

mod addresses;
mod network;
mod redirects;
mod tls;
