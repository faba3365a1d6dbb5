//! The gateway's own options of a request: the `toolgate` object of the body, or one header each.

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::durable::Visibility;
use super::render::Output;
use crate::clean_json;
use crate::config;
use crate::openai::{ChatRequest, InvalidField};

/// What a missing login does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OnAuth {
    /// The answer names it and ends there.
    #[default]
    Link,
    /// The request waits for it, then goes on; as [`OnAuth::Link`] when it does not come in time.
    Wait,
    /// HTTP 401.
    Fail,
}

/// A condition that ends the run once its tool results are in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopWhen {
    Turns(u32),
    /// The tool's own name, or the function name the model knows.
    Tool(String),
}

/// All options, with their defaults filled in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    pub on_auth: OnAuth,
    /// The request says what a missing login does.
    pub on_auth_given: bool,
    /// How long [`OnAuth::Wait`] waits; `None` is the default for the kind of answer.
    pub wait_seconds: Option<u32>,
    /// Where to tell that a login is missing.
    #[serde(with = "address")]
    pub authorization_callback_url: Option<http::Uri>,
    pub output: Output,
    pub stop_when: Vec<StopWhen>,
    pub max_turns: u32,
    pub max_tool_calls: u32,
    /// Bytes over all turns; `None` is the operator's bound.
    #[serde(default)]
    pub max_bytes: Option<usize>,
    pub profile: Option<String>,
    /// Who may read a run that is kept.
    pub visibility: Option<Visibility>,
    /// Where to tell that a task has ended.
    #[serde(with = "address")]
    pub webhook_url: Option<http::Uri>,
    /// For how long the same request may be given the same run.
    pub cache_seconds: Option<u32>,
    /// Whether the request gave any option.
    pub given: bool,
}

const NAMES: [&str; 12] = [
    "on_auth",
    "wait_seconds",
    "authorization_callback_url",
    "output",
    "stop_when",
    "max_turns",
    "max_tool_calls",
    "max_bytes",
    "profile",
    "visibility",
    "webhook_url",
    "cache_seconds",
];
/// Fields of the body that are the gateway's.
const CONSUMED: [&str; 2] = ["toolgate", "authorizationRequestCallback"];
/// Longest address of a callback.
const LONGEST_URL: usize = 2048;
const PREFIX: &str = "x-toolgate-";
/// Headers with that prefix that are no options.
const OTHER_HEADERS: [&str; 1] = ["user"];

impl Options {
    /// Reads the options of `request`; a field of the body wins over its header.
    ///
    /// # Errors
    /// [`InvalidField`] naming the option, and the nearest known one where it is unknown.
    pub fn read(
        request: &ChatRequest,
        headers: &HeaderMap,
        defaults: &config::Run,
    ) -> Result<Self, InvalidField> {
        let mut options = Options {
            on_auth: OnAuth::default(),
            on_auth_given: false,
            wait_seconds: None,
            authorization_callback_url: None,
            output: Output::default(),
            stop_when: Vec::new(),
            max_turns: defaults.max_turns,
            max_tool_calls: defaults.max_tool_calls,
            max_bytes: None,
            profile: None,
            visibility: None,
            webhook_url: None,
            cache_seconds: None,
            given: false,
        };
        for (name, value) in headers {
            let Some(option) =
                name.as_str().strip_prefix(PREFIX).filter(|rest| !OTHER_HEADERS.contains(rest))
            else {
                continue;
            };
            let text = value
                .to_str()
                .map_err(|_| InvalidField::new(name.as_str(), format!("`{name}` is not plain text")))?;
            options.set(name.as_str(), &option.replace('-', "_"), header_value(text), defaults)?;
        }
        // Also an empty object is the gateway's own, and must not reach a provider.
        options.given |= request.fields().any(|(key, _)| CONSUMED.contains(&key));
        if let Some(object) = request.get::<Map<String, Value>>("toolgate", "an object")? {
            for (option, value) in object {
                options.set(&format!("toolgate.{option}"), &option, value, defaults)?;
            }
        }
        if request.raw("authorizationRequestCallback").is_some() {
            let url = request.get("authorizationRequestCallback", "an address")?.unwrap_or_default();
            options.set("authorizationRequestCallback", "authorization_callback_url", url, defaults)?;
        }
        Ok(options)
    }

    /// The first option given that only means something for a run that is kept.
    pub fn kept_by_option(&self) -> Option<&'static str> {
        match self {
            Options { cache_seconds: Some(_), .. } => Some("cache_seconds"),
            Options { visibility: Some(_), .. } => Some("visibility"),
            Options { webhook_url: Some(_), .. } => Some("webhook_url"),
            _ => None,
        }
    }

    fn set(
        &mut self,
        param: &str,
        option: &str,
        value: Value,
        defaults: &config::Run,
    ) -> Result<(), InvalidField> {
        let wrong = |expected: &str| InvalidField::new(param, format!("`{param}` must be {expected}"));
        self.given = true;
        if value.is_null() && NAMES.contains(&option) {
            return Ok(());
        }
        match option {
            "on_auth" => {
                self.on_auth_given = true;
                self.on_auth = match value.as_str() {
                    Some("link") => OnAuth::Link,
                    Some("wait") => OnAuth::Wait,
                    Some("fail") => OnAuth::Fail,
                    _ => return Err(wrong("`link`, `wait` or `fail`")),
                };
            }
            "output" => {
                self.output = match value.as_str() {
                    Some("markdown") => Output::Markdown,
                    Some("text") => Output::Text,
                    Some("events") => Output::Events,
                    _ => return Err(wrong("`markdown`, `text` or `events`")),
                };
            }
            "wait_seconds" => {
                let seconds = within(&value, 1, 300).ok_or_else(|| wrong("a number from 1 to 300"))?;
                self.wait_seconds = Some(seconds);
            }
            "max_turns" => {
                let most = u64::from(defaults.max_turns_cap);
                self.max_turns =
                    within(&value, 1, most).ok_or_else(|| wrong(&format!("a number from 1 to {most}")))?;
            }
            "max_tool_calls" => {
                self.max_tool_calls =
                    within(&value, 1, 1000).ok_or_else(|| wrong("a number from 1 to 1000"))?;
            }
            "max_bytes" => {
                let most = defaults.max_bytes;
                let bytes = value.as_u64().and_then(|bytes| usize::try_from(bytes).ok());
                let bytes = bytes.filter(|bytes| (1..=most).contains(bytes));
                self.max_bytes = Some(bytes.ok_or_else(|| wrong(&format!("a number from 1 to {most}")))?);
            }
            "profile" => {
                let name = value
                    .as_str()
                    .filter(|name| (1..=64).contains(&name.len()) && !name.chars().any(char::is_control));
                self.profile = Some(name.ok_or_else(|| wrong("a name of 1 to 64 characters"))?.to_owned());
            }
            "visibility" => {
                let known = value.as_str().and_then(Visibility::parse);
                self.visibility = Some(known.ok_or_else(|| wrong("`private`, `unlisted` or `public`"))?);
            }
            "webhook_url" => {
                let url = value.as_str().filter(|text| text.len() <= LONGEST_URL).and_then(callback);
                self.webhook_url = Some(url.ok_or_else(|| wrong("an address that begins with https://"))?);
            }
            "cache_seconds" => {
                let seconds = within(&value, 1, 86_400).ok_or_else(|| wrong("a number from 1 to 86400"))?;
                self.cache_seconds = Some(seconds);
            }
            "authorization_callback_url" => {
                let url = value.as_str().filter(|text| text.len() <= LONGEST_URL).and_then(callback);
                let expected = "an address that begins with https://";
                self.authorization_callback_url = Some(url.ok_or_else(|| wrong(expected))?);
            }
            "stop_when" => {
                self.stop_when = stop_conditions(&value).ok_or_else(|| {
                    wrong(r#"a list of conditions such as {"turns":10} and {"tool":"name"}"#)
                })?;
            }
            _ => return Err(unknown(param, option)),
        }
        Ok(())
    }
}

/// An address as text.
mod address {
    use http::Uri;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(uri: &Option<Uri>, serializer: S) -> Result<S::Ok, S::Error> {
        uri.as_ref().map(ToString::to_string).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uri>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
    }
}

/// A callback's address; which hosts it may name is a matter of policy.
fn callback(text: &str) -> Option<http::Uri> {
    let mut url = url::Url::parse(text).ok()?;
    let bare = url.username().is_empty() && url.password().is_none();
    if !bare || !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    url.set_fragment(None);
    url.as_str().parse().ok()
}

/// A header's value: JSON where it is JSON (numbers, lists), text otherwise.
fn header_value(text: &str) -> Value {
    clean_json::from_str(text).unwrap_or_else(|_| Value::String(text.trim().to_owned()))
}

fn within(value: &Value, least: u64, most: u64) -> Option<u32> {
    value
        .as_u64()
        .filter(|number| (least..=most).contains(number))
        .and_then(|number| u32::try_from(number).ok())
}

fn stop_conditions(value: &Value) -> Option<Vec<StopWhen>> {
    let list = match value {
        Value::Array(list) if list.len() <= 100 => list.as_slice(),
        Value::Object(_) => std::slice::from_ref(value),
        _ => return None,
    };
    list.iter()
        .map(|condition| {
            let condition = condition.as_object().filter(|fields| fields.len() == 1)?;
            match condition.iter().next()? {
                (key, turns) if key == "turns" => within(turns, 1, 10_000).map(StopWhen::Turns),
                (key, tool) if key == "tool" => Some(StopWhen::Tool(tool.as_str()?.to_owned())),
                _ => None,
            }
        })
        .collect()
}

fn unknown(param: &str, option: &str) -> InvalidField {
    let nearest = NAMES
        .iter()
        .map(|name| (strsim::jaro_winkler(name, option), *name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        Some((score, name)) if score > 0.7 => format!("did you mean `{name}`?"),
        _ => format!("known are {}", NAMES.join(", ")),
    };
    InvalidField::new(param, format!("`{param}` is not an option of the gateway; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(body: &str, headers: &[(&'static str, &'static str)]) -> Result<Options, InvalidField> {
        let request = ChatRequest::parse(body.to_owned().into()).unwrap();
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        Options::read(&request, &headers, &config::Run::default())
    }

    #[test]
    fn the_body_wins_over_headers() {
        let headers =
            [("x-toolgate-on-auth", "fail"), ("x-toolgate-max-turns", "3"), ("x-toolgate-user", "u")];
        let options =
            read(r#"{"toolgate":{"on_auth":"link","stop_when":[{"tool":"done"}]}}"#, &headers).unwrap();
        assert_eq!((options.on_auth, options.max_turns), (OnAuth::Link, 3));
        assert_eq!(options.stop_when, [StopWhen::Tool("done".into())]);
    }

    #[test]
    fn mistakes_are_named() {
        for (body, param, text) in [
            (r#"{"toolgate":{"on_outh":"link"}}"#, "toolgate.on_outh", "did you mean `on_auth`"),
            (r#"{"toolgate":{"max_turns":0}}"#, "toolgate.max_turns", "1 to 100"),
            (r#"{"toolgate":{"wait_seconds":301}}"#, "toolgate.wait_seconds", "1 to 300"),
            (r#"{"authorizationRequestCallback":"ftp://a"}"#, "authorizationRequestCallback", "https://"),
            (r#"{"toolgate":[]}"#, "toolgate", "an object"),
            (r#"{"toolgate":{"stop_when":[{"turn":1}]}}"#, "toolgate.stop_when", "conditions"),
        ] {
            let error = read(body, &[]).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
            assert!(error.message.contains(text), "{}", error.message);
        }
    }
}
