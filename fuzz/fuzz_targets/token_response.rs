//! Token responses are read without panic, and tokens that are read fit into a header.
#![no_main]

use http::{HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use toolgate::oauth::{Quirks, read_token_response};

fuzz_target!(|input: (u16, bool, bool, &[u8])| {
    let (status, is_form, is_aside, body) = input;
    let status = StatusCode::from_u16(100 + status % 500).expect("in range");
    let media_type = if is_form { "application/x-www-form-urlencoded" } else { "application/json" };
    let token_field = is_aside.then(|| "a".to_owned());
    let quirks = Quirks { token_field, ..Quirks::default() };
    match read_token_response(status, media_type, None, body, &quirks) {
        Ok(tokens) => {
            assert!(HeaderValue::from_str(&format!("Bearer {}", tokens.access.expose())).is_ok());
        }
        Err(error) => assert!(error.to_string().len() < 200),
    }
});
