//! Providers known by name: where they are, which variable holds their key, how they depart from OpenAI.

use super::Quirks;
use super::provider::RefusedFields;

/// A provider that needs nothing but a key.
#[derive(Debug, Clone)]
pub struct Preset {
    pub name: &'static str,
    pub base_url: &'static str,
    /// Environment variables that make it active, the first one set counts.
    pub key_variables: &'static [&'static str],
    /// For servers without keys: the variable that holds their address and makes them active.
    pub address_variable: Option<&'static str>,
    pub quirks: Quirks,
}

const fn hosted(
    name: &'static str,
    base_url: &'static str,
    key_variables: &'static [&'static str],
    quirks: Quirks,
) -> Preset {
    Preset { name, base_url, key_variables, address_variable: None, quirks }
}

/// Fields that say who asks and how the request is filed, and change nothing about the answer: these providers refuse
/// requests that have one of them.
const FILING: RefusedFields = RefusedFields::Known(&[
    "metadata",
    "store",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
]);
/// The same without `user`, which these take.
const FILING_BUT_USER: RefusedFields = RefusedFields::Known(&[
    "metadata",
    "store",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
]);
/// Mistral's: it has only the older bound on tokens, too.
const MISTRAL: RefusedFields = RefusedFields::Known(&[
    "metadata",
    "store",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
    "max_completion_tokens",
]);

/// All presets. Quirks come from the providers' own API references, and from what they were seen to refuse.
pub const PRESETS: &[Preset] = &[
    hosted(
        "openai",
        "https://api.openai.com/v1",
        &["OPENAI_API_KEY"],
        Quirks { max_tools: Some(128), ..Quirks::NONE },
    ),
    hosted("anthropic", "https://api.anthropic.com/v1", &["ANTHROPIC_API_KEY"], Quirks::NONE),
    hosted(
        "google",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        Quirks { simple_schemas: true, refused_fields: FILING, ..Quirks::NONE },
    ),
    hosted(
        "xai",
        "https://api.x.ai/v1",
        &["XAI_API_KEY"],
        Quirks {
            max_tools: Some(200),
            refused_fields: RefusedFields::Known(&["metadata", "store"]),
            ..Quirks::NONE
        },
    ),
    hosted(
        "groq",
        "https://api.groq.com/openai/v1",
        &["GROQ_API_KEY"],
        Quirks {
            max_tools: Some(128),
            drop_reasoning: true,
            refused_fields: FILING_BUT_USER,
            ..Quirks::NONE
        },
    ),
    hosted(
        "mistral",
        "https://api.mistral.ai/v1",
        &["MISTRAL_API_KEY"],
        Quirks { no_stream_options: true, drop_reasoning: true, refused_fields: MISTRAL, ..Quirks::NONE },
    ),
    hosted(
        "deepseek",
        "https://api.deepseek.com/v1",
        &["DEEPSEEK_API_KEY"],
        Quirks { max_tools: Some(128), ..Quirks::NONE },
    ),
    hosted("openrouter", "https://openrouter.ai/api/v1", &["OPENROUTER_API_KEY"], Quirks::NONE),
    hosted("together", "https://api.together.xyz/v1", &["TOGETHER_API_KEY"], Quirks::NONE),
    hosted("fireworks", "https://api.fireworks.ai/inference/v1", &["FIREWORKS_API_KEY"], Quirks::NONE),
    hosted(
        "cerebras",
        "https://api.cerebras.ai/v1",
        &["CEREBRAS_API_KEY"],
        Quirks { refused_fields: FILING_BUT_USER, ..Quirks::NONE },
    ),
    Preset {
        name: "ollama",
        base_url: "http://127.0.0.1:11434/v1",
        key_variables: &[],
        address_variable: Some("OLLAMA_HOST"),
        quirks: Quirks::NONE,
    },
];

/// The preset with this name.
pub fn find_preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// The preset at this host, for requests that name a provider by its address.
pub fn find_preset_by_host(host: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| {
        preset.base_url.split("://").nth(1).and_then(|rest| rest.split(['/', ':']).next()) == Some(host)
    })
}
