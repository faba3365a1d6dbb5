//! `WWW-Authenticate` is read without panic, and what is read is bounded.
#![no_main]

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use toolgate::oauth::Challenge;

fuzz_target!(|values: Vec<&[u8]>| {
    let mut headers = HeaderMap::new();
    for value in values.iter().take(64).filter_map(|value| HeaderValue::from_bytes(value).ok()) {
        headers.append(WWW_AUTHENTICATE, value);
    }
    let challenge = Challenge::read(401, &headers);
    let kept = [&challenge.error, &challenge.scope, &challenge.resource_metadata];
    assert!(kept.into_iter().flatten().all(|value| value.len() <= 4096));
    let scopes = challenge.scopes();
    assert!(scopes.len() <= 100);
    assert!(scopes.iter().all(|scope| scope.bytes().all(|byte| byte.is_ascii_graphic())));
});
