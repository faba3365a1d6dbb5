//! Pictures and sound that tools return, for models that take them.

use serde_json::{Value, json};

use super::execute::Executed;
use crate::tools::Part;
use crate::upstream::{Target, takes_audio, takes_images};

/// Largest picture or sound handed to a model, in bytes of base64.
const MAX_BYTES: usize = 20 << 20;

/// A message of the user with all pictures and sounds of these results that the model takes; `None` without any.
/// (OpenAI's tool messages hold text only.)
pub fn message(target: &Target, results: &[(String, Executed)]) -> Option<Value> {
    let images = takes_images(&target.provider, &target.model);
    let audio = takes_audio(&target.model);
    if !images && !audio {
        return None;
    }
    let mut parts = Vec::new();
    for (function, executed) in results {
        let given: Vec<Value> = executed.result.parts.iter().filter_map(|part| convert(part, images, audio)).collect();
        if !given.is_empty() {
            parts.push(json!({ "type": "text", "text": format!("Returned by the tool {function}:") }));
            parts.extend(given);
        }
    }
    (!parts.is_empty()).then(|| json!({ "role": "user", "content": parts }))
}

fn convert(part: &Part, images: bool, audio: bool) -> Option<Value> {
    match part {
        Part::Image { mime_type, data } if images && is_base64(data) && is_picture(mime_type) => {
            let data = std::str::from_utf8(data).ok()?;
            Some(json!({ "type": "image_url", "image_url": { "url": format!("data:{mime_type};base64,{data}") } }))
        }
        Part::Audio { mime_type, data } if audio && is_base64(data) => {
            let format = match mime_type.as_str() {
                "audio/wav" | "audio/x-wav" | "audio/wave" => "wav",
                "audio/mpeg" | "audio/mp3" => "mp3",
                _ => return None,
            };
            Some(json!({ "type": "input_audio", "input_audio": { "data": std::str::from_utf8(data).ok()?, "format": format } }))
        }
        _ => None,
    }
}

fn is_picture(mime_type: &str) -> bool {
    matches!(mime_type, "image/png" | "image/jpeg" | "image/gif" | "image/webp")
}

fn is_base64(data: &[u8]) -> bool {
    data.len() <= MAX_BYTES && data.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
}
