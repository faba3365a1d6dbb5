//! What models take, where no API tells: by the families in their names.

use super::{Provider, Quirks};
use crate::config::Images;

/// Whether the model reads images in user messages. A provider's `images` setting decides before the name.
pub fn takes_images(provider: &Provider, model: &str) -> bool {
    let Quirks { images, .. } = provider.quirks;
    match images {
        Some(Images::User) => true,
        Some(Images::None) => false,
        None => names_a_vision_model(model),
    }
}

/// Whether the model hears audio in user messages.
pub fn takes_audio(model: &str) -> bool {
    let model = model.to_ascii_lowercase();
    ["gpt-4o-audio", "gpt-audio", "gemini-", "voxtral"].iter().any(|family| model.contains(family))
}

fn names_a_vision_model(model: &str) -> bool {
    const FAMILIES: &[&str] = &[
        "gpt-4o",
        "gpt-4.1",
        "gpt-4-turbo",
        "gpt-5",
        "chatgpt-4o",
        "claude-3",
        "claude-opus",
        "claude-sonnet",
        "claude-haiku",
        "gemini",
        "grok-4",
        "pixtral",
        "mistral-small-3",
        "mistral-medium",
        "mistral-large-3",
        "llama-4",
        "llama-3.2-11b",
        "llama-3.2-90b",
        "gemma-3",
        "gemma-4",
        "qwen3-vl",
        "qwen2.5-vl",
        "llava",
        "vision",
        "-vl-",
    ];
    let model = model.to_ascii_lowercase();
    let name = model.rsplit('/').next().unwrap_or(&model);
    let reasoning = name.starts_with("o3") || name.starts_with("o4") || name == "o1";
    (reasoning && !name.starts_with("o3-mini")) || FAMILIES.iter().any(|family| name.contains(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_decide() {
        for (model, takes) in [
            ("gpt-5.4-mini", true),
            ("o3-mini", false),
            ("o3", true),
            ("openai/gpt-4o-2024-08-06", true),
            ("deepseek-chat", false),
            ("claude-sonnet-4-5", true),
            ("Qwen/Qwen2.5-VL-7B", true),
            ("gpt-3.5-turbo", false),
        ] {
            assert_eq!(names_a_vision_model(model), takes, "{model}");
        }
    }
}
