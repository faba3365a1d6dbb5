//! Whatever JSON comes from outside can be made a tree of, and cleaning it once more changes nothing.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use toolgate::clean_json::{CleanJson, clean, from_slice};

fuzz_target!(|bytes: &[u8]| {
    let _ = from_slice::<serde_json::Value>(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    let cleaned = CleanJson::read(text);
    assert_eq!(cleaned.is_ok(), is_json);
    if let Ok(cleaned) = cleaned {
        assert!(serde_json::to_value(&cleaned).is_ok());
        assert!(matches!(clean(cleaned.get()), Cow::Borrowed(_)));
    }
});
