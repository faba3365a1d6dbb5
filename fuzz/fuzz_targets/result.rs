//! Any bytes are a result or an error; a cut result is within its limit and cut once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate::tools::ToolResult;

const LIMIT: usize = 512;

fuzz_target!(|bytes: &[u8]| {
    let Ok(result) = ToolResult::parse(bytes) else { return };
    result.estimate_tokens();
    let cut = result.cut(LIMIT);
    let shown = cut.for_model();
    assert!(!shown.is_empty());
    // Separators between parts and the words about a failure are ours.
    assert!(shown.len() <= LIMIT + cut.parts.len() + 64, "{}", shown.len());
    assert_eq!(cut.clone().cut(LIMIT).for_model(), shown);
    for image in cut.images() {
        assert!(image.data_url().starts_with("data:image/"));
    }
});
