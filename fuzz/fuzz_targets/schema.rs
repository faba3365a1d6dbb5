//! A repaired schema is an object schema, bounded, and not repaired again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate::tools::schema;

fuzz_target!(|input: (bool, &str)| {
    let (simple, text) = input;
    let once = schema::repair(text, simple);
    let value: serde_json::Value = serde_json::from_str(once.get()).expect("valid JSON");
    assert_eq!(value["type"], "object");
    assert!(value["properties"].is_object());
    assert_eq!(schema::repair(once.get(), simple).get(), once.get());
    schema::description(text);
});
