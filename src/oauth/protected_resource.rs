//! Protected resource metadata (RFC 9728). Pure.

use http::Uri;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::scope;
use super::trace::visible;
use crate::clean_json;
use crate::egress::parse_uri;

/// Most authorization servers of one resource that are kept.
const MAX_SERVERS: usize = 4;
/// Longest address that is kept, in bytes.
const MAX_URL_BYTES: usize = 2048;

/// What a resource says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectedResource {
    /// As written: this is the text to send as `resource`.
    pub resource: String,
    /// For people, one line, at most 100 bytes.
    pub resource_name: Option<String>,
    pub authorization_servers: Vec<String>,
    pub scopes_supported: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    resource: Option<OneOrMany>,
    resource_name: Option<Value>,
    authorization_servers: Option<OneOrMany>,
    scopes_supported: Option<Vec<Value>>,
}

/// GitLab writes `resource` as a list of one, others `authorization_servers` as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
    Else(IgnoredAny),
}

impl OneOrMany {
    fn list(this: Option<OneOrMany>) -> Vec<String> {
        match this {
            Some(OneOrMany::One(text)) => vec![text],
            Some(OneOrMany::Many(texts)) => texts,
            Some(OneOrMany::Else(_)) | None => Vec::new(),
        }
    }
}

impl ProtectedResource {
    /// Reads a document.
    ///
    /// # Errors
    /// What is wrong with it; completes "the document …".
    pub fn parse(body: &[u8]) -> Result<ProtectedResource, &'static str> {
        let document: Document = clean_json::from_slice(body).map_err(|error| shape(&error))?;
        let resource = match &OneOrMany::list(document.resource)[..] {
            [one] if one.len() <= MAX_URL_BYTES => one.clone(),
            [] => return Err("names no `resource`"),
            _ => return Err("names more than one `resource`"),
        };
        let name = document.resource_name.as_ref().and_then(Value::as_str).map(str::trim);
        let mut servers = OneOrMany::list(document.authorization_servers);
        servers.retain(|server| server.len() <= MAX_URL_BYTES);
        servers.truncate(MAX_SERVERS);
        let scopes = document.scopes_supported.unwrap_or_default();
        Ok(ProtectedResource {
            resource,
            resource_name: name.filter(|name| !name.is_empty()).map(|name| visible(name, 100)),
            authorization_servers: servers,
            scopes_supported: scope::clean(
                scopes.iter().filter_map(|scope| scope.as_str().map(str::to_owned)),
            ),
        })
    }
}

/// Whether `resource` names `asked` or something it lies in: same origin, and the path is the same or a folder above.
/// RFC 9728 §3.3 wants the same; servers at a path often name their origin.
pub fn covers(resource: &str, asked: &Uri) -> bool {
    let Ok(resource) = parse_uri(resource) else { return false };
    // `asked` may be written in another way for the same origin.
    let Ok(asked) = parse_uri(&asked.to_string()) else { return false };
    if resource.scheme() != asked.scheme() || resource.authority() != asked.authority() {
        return false;
    }
    let folder = resource.path().trim_end_matches('/');
    // A dot segment in disguise would climb out of the folder at some servers.
    let asked_path = asked.path().to_ascii_lowercase();
    if asked_path.contains("%2e") || asked_path.contains("%2f") || asked_path.contains("%5c") {
        return folder.is_empty();
    }
    asked.path().strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is wrong with a document, without repeating it.
pub(super) fn shape(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Data => "has fields of another kind than the specification says",
        _ => "is not JSON",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_covers_itself_and_what_lies_in_it() {
        for (resource, asked, covered) in [
            ("https://a.example/mcp", "https://a.example/mcp", true),
            ("https://a.example/mcp", "https://a.example/mcp?x=1", true),
            ("https://a.example/mcp/", "https://a.example/mcp", true),
            ("https://a.example/mcp", "https://a.example/mcp/deeper", true),
            ("https://a.example", "https://a.example/mcp", true),
            ("https://A.example:443/", "https://a.example/mcp", true),
            ("https://a.example/mcp", "https://a.example/mcpx", false),
            ("https://a.example/mcp", "https://a.example/MCP", false),
            ("https://a.example/mcp", "https://a.example/", false),
            ("https://a.example/mcp", "https://a.example:8443/mcp", false),
            ("http://a.example/mcp", "https://a.example/mcp", false),
            ("https://a.example.evil.example/mcp", "https://a.example/mcp", false),
            ("https://b@a.example/mcp", "https://a.example/mcp", false),
            ("https://a.example/mcp", "https://a.example/mcp/%2e%2e/other", false),
            ("https://a.example/mcp", "https://a.example/mcp/..%2fother", false),
            ("https://a.example", "https://a.example/%2e%2e", true),
            ("urn:x", "https://a.example/mcp", false),
        ] {
            assert_eq!(covers(resource, &asked.parse().unwrap()), covered, "{resource} {asked}");
        }
    }
}
