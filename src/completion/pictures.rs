//! Pictures and sound that tools return, for models that take them.

use serde_json::{Value, json};

use super::execute::Executed;
use crate::tools::{Part, is_base64};
use crate::upstream::{Target, takes_audio, takes_images};

/// A message of the user with all pictures and sounds of these results that the model takes; `None` without any.
/// (OpenAI's tool messages hold text only.)
pub fn message(target: &Target, results: &[(String, Executed)]) -> Option<Value> {
    let images = takes_images(&target.provider, &target.model);
    let audio = takes_audio(&target.model);
    let mut parts = Vec::new();
    for (function, executed) in results {
        let mut given = Vec::new();
        if images {
            let shown = executed.result.images();
            given.extend(
                shown
                    .iter()
                    .map(|image| json!({ "type": "image_url", "image_url": { "url": image.data_url() } })),
            );
        }
        if audio {
            given.extend(executed.result.parts.iter().filter_map(sound));
        }
        if !given.is_empty() {
            parts.push(json!({ "type": "text", "text": format!("Returned by the tool {function}:") }));
            parts.extend(given);
        }
    }
    (!parts.is_empty()).then(|| json!({ "role": "user", "content": parts }))
}

fn sound(part: &Part) -> Option<Value> {
    let Part::Audio { mime_type, data } = part else { return None };
    let format = match mime_type.as_str() {
        "audio/wav" | "audio/x-wav" | "audio/wave" => "wav",
        "audio/mpeg" | "audio/mp3" => "mp3",
        _ => return None,
    };
    let data = is_base64(data).then(|| std::str::from_utf8(data).ok())??;
    Some(json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } }))
}
