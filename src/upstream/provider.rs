//! One model provider.

use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Uri};

use super::models::ModelList;
use crate::config::Images;
use crate::egress::Reach;

/// How a provider departs from OpenAI's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quirks {
    /// Most tools in one request.
    pub max_tools: Option<usize>,
    /// Refuses `stream_options`.
    pub no_stream_options: bool,
    /// Refuses its own reasoning fields in messages given back to it.
    pub drop_reasoning: bool,
    /// Refuses JSON schema keywords beyond a simple set.
    pub simple_schemas: bool,
    /// Overrides what is known of its models.
    pub images: Option<Images>,
    /// Fields of a request that it refuses.
    pub refused_fields: RefusedFields,
}

/// Fields of a request that a provider refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusedFields {
    /// By what is known of it.
    Known(&'static [&'static str]),
    /// By the operator's own list.
    Configured(Arc<[String]>),
}

impl RefusedFields {
    fn contains(&self, field: &str) -> bool {
        match self {
            RefusedFields::Known(list) => list.contains(&field),
            RefusedFields::Configured(list) => list.iter().any(|name| name == field),
        }
    }
}

impl Quirks {
    /// A provider that behaves like OpenAI, without known limits.
    pub const NONE: Quirks = Quirks {
        max_tools: None,
        no_stream_options: false,
        drop_reasoning: false,
        simple_schemas: false,
        images: None,
        refused_fields: RefusedFields::Known(&[]),
    };

    /// The name under which the provider takes a field of a request; `None` when it takes none such. The two bounds on
    /// tokens stand for each other.
    pub fn sent_as<'f>(&self, field: &'f str) -> Option<&'f str> {
        if !self.refused_fields.contains(field) {
            return Some(field);
        }
        let other = match field {
            "max_completion_tokens" => "max_tokens",
            "max_tokens" => "max_completion_tokens",
            _ => return None,
        };
        (!self.refused_fields.contains(other)).then_some(other)
    }
}

/// Where a provider's key comes from. Never the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    Configuration,
    Environment(String),
    File(String),
    /// It has none: callers bring their own, or it needs none.
    None,
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeySource::Configuration => f.write_str("key from the configuration"),
            KeySource::Environment(name) => write!(f, "key from {name}"),
            KeySource::File(path) => write!(f, "key from {path}"),
            KeySource::None => f.write_str("no key"),
        }
    }
}

const COMPLETIONS: &str = "/chat/completions";

/// A model provider that requests can be sent to.
pub struct Provider {
    /// Its name in `provider/model`, or its host when a request names it by address.
    pub name: Arc<str>,
    /// Everything before `/chat/completions`, without a trailing slash.
    pub base: Uri,
    /// `Authorization`, marked sensitive.
    pub(super) key: Option<HeaderValue>,
    pub key_source: KeySource,
    pub quirks: Quirks,
    /// Who named its address.
    pub reach: Reach,
    pub(super) models: ModelList,
    /// Whether it shows in lists and answers to bare model names.
    pub active: bool,
    /// Whether its models can be used without any key.
    pub keyless: bool,
    /// The address of its chat completions.
    pub(super) completions: OnceLock<Uri>,
}

impl Provider {
    /// The address of one of its endpoints. `path_and_query` begins with a slash.
    ///
    /// # Errors
    /// When the two do not make an address.
    pub fn endpoint(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        if path_and_query == COMPLETIONS {
            // Put together once: nearly every request goes there.
            if let Some(known) = self.completions.get() {
                return Ok(known.clone());
            }
            let made = self.join(path_and_query)?;
            return Ok(self.completions.get_or_init(|| made).clone());
        }
        self.join(path_and_query)
    }

    fn join(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        let base_path = self.base.path().trim_end_matches('/');
        Uri::builder()
            .scheme(self.base.scheme_str().unwrap_or("https"))
            .authority(self.base.authority().map_or("", http::uri::Authority::as_str))
            .path_and_query(format!("{base_path}{path_and_query}"))
            .build()
    }

    /// Host, and port where it is not the scheme's.
    pub fn host(&self) -> &str {
        self.base.authority().map_or("", http::uri::Authority::as_str)
    }
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).field("base", &self.base).finish_non_exhaustive()
    }
}
