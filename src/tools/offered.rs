//! A tool as a model is offered it. Repairing a schema costs; it is done once for as long as the list is cached.

use std::sync::OnceLock;

use serde_json::value::RawValue;

use super::{Tool, schema};

/// What [`Tool::parameters`] and [`Tool::description_for_models`] have worked out.
#[derive(Debug, Clone, Default)]
pub struct Offered {
    parameters: OnceLock<Box<RawValue>>,
    simple_parameters: OnceLock<Box<RawValue>>,
    description: OnceLock<String>,
}

impl Tool {
    /// The schema of its arguments as providers take it; `simple` for those that know few keywords.
    pub fn parameters(&self, simple: bool) -> &RawValue {
        let place = if simple { &self.offered.simple_parameters } else { &self.offered.parameters };
        place.get_or_init(|| schema::repair(self.input_schema.get(), simple))
    }

    /// Its description, or its title where it has none, as models may read it.
    pub fn description_for_models(&self) -> &str {
        self.offered.description.get_or_init(|| {
            schema::description(self.description.as_deref().or(self.title.as_deref()).unwrap_or_default())
        })
    }
}
