//! What 2026-07-28 asks of each request: headers that say the same as the body, and the client's own description.

use base64::Engine;
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::message::{HEADER_MISMATCH, INVALID_PARAMS, Message, Refusal, UNSUPPORTED_VERSION};

/// The revision in which every request describes itself.
pub const MODERN: &str = "2026-07-28";
/// Revisions that begin with `initialize`, newest first.
pub const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

const VERSION_META: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_META: &str = "io.modelcontextprotocol/clientCapabilities";

const VERSION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD_HEADER: HeaderName = HeaderName::from_static("mcp-method");
const NAME_HEADER: HeaderName = HeaderName::from_static("mcp-name");

/// Which rules a request is served under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    Modern,
    Legacy,
}

/// The revisions that servers here speak, newest first.
pub fn supported() -> Vec<&'static str> {
    std::iter::once(MODERN).chain(LEGACY).collect()
}

/// The revision to answer `initialize` with: the one that is asked for, else the newest.
pub fn accepted_version(asked: Option<&str>) -> &'static str {
    LEGACY.into_iter().find(|known| asked == Some(known)).unwrap_or(LEGACY[0])
}

/// Tells the era of a request and checks everything that the era asks of headers and `_meta`
/// (MCP 2026-07-28 streamable HTTP, "Request Metadata" and "Server Validation"; basic, "_meta").
///
/// # Errors
/// The error the specification names, with status 400.
pub fn check(headers: &HeaderMap, message: &Message) -> Result<Era, Refusal> {
    let meta = message.params.get("_meta").and_then(Value::as_object);
    let named = meta.and_then(|meta| meta.get(VERSION_META));
    let named = match named {
        None => None,
        Some(Value::String(version)) => Some(version.as_str()),
        Some(_) => {
            return Err(Refusal::bad_request(INVALID_PARAMS, format!("`{VERSION_META}` must be a string")));
        }
    };
    let header = single(headers, &VERSION_HEADER)?;
    let version = match (header, named) {
        // Only revisions before 2025-06-18 have no header, and `initialize` carries the version in its body.
        (None, None) => return Ok(Era::Legacy),
        (None, Some(_)) => return Err(missing(&VERSION_HEADER)),
        (Some(header), Some(named)) if header != named => {
            return Err(mismatch(&VERSION_HEADER, header, named));
        }
        (Some(header), _) => header,
    };
    if LEGACY.contains(&version) {
        return Ok(Era::Legacy);
    }
    if version != MODERN {
        return Err(Refusal {
            data: Some(json!({"supported": supported(), "requested": version})),
            ..Refusal::bad_request(UNSUPPORTED_VERSION, "Unsupported protocol version")
        });
    }
    if message.id.is_none() {
        // "header requirements for notification POSTs are not defined by this revision"
        return Ok(Era::Modern);
    }
    equal(&METHOD_HEADER, single(headers, &METHOD_HEADER)?, &message.method)?;
    let name = match message.method.as_str() {
        "tools/call" | "prompts/get" => message.params.get("name"),
        "resources/read" => message.params.get("uri"),
        _ => None,
    };
    if let Some(name) = name.and_then(Value::as_str) {
        let header = single(headers, &NAME_HEADER)?.map(decode).transpose()?;
        equal(&NAME_HEADER, header.as_deref(), name)?;
    }
    for (key, valid) in [
        (VERSION_META, named.is_some()),
        (CAPABILITIES_META, meta.and_then(|meta| meta.get(CAPABILITIES_META)).is_some_and(Value::is_object)),
    ] {
        if !valid {
            return Err(Refusal::bad_request(INVALID_PARAMS, format!("`params._meta` lacks `{key}`")));
        }
    }
    Ok(Era::Modern)
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(value) if values.next().is_none() => Ok(Some(value.trim())),
        _ => Err(Refusal::bad_request(HEADER_MISMATCH, format!("Header mismatch: `{name}` is malformed"))),
    }
}

fn equal(name: &HeaderName, header: Option<&str>, body: &str) -> Result<(), Refusal> {
    match header {
        None => Err(missing(name)),
        Some(header) if header == body => Ok(()),
        Some(header) => Err(mismatch(name, header, body)),
    }
}

/// Reads the Base64 sentinel form (MCP 2026-07-28 streamable HTTP, "Value Encoding").
fn decode(value: &str) -> Result<String, Refusal> {
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(value.to_owned());
    };
    base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Refusal::bad_request(HEADER_MISMATCH, "Header mismatch: a Base64 value is malformed"))
}

fn missing(name: &HeaderName) -> Refusal {
    Refusal::bad_request(HEADER_MISMATCH, format!("Header mismatch: `{name}` is missing"))
}

fn mismatch(name: &HeaderName, header: &str, body: &str) -> Refusal {
    let (header, body): (String, String) =
        (header.chars().take(100).collect(), body.chars().take(100).collect());
    Refusal::bad_request(
        HEADER_MISMATCH,
        format!("Header mismatch: `{name}` is `{header}`, the body says `{body}`"),
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::mcp::read;

    fn era(headers: &[(&'static str, &str)], body: Value) -> Result<Era, i64> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        check(&map, &read(body).unwrap()).map_err(|refusal| refusal.code)
    }

    fn list(meta: Value) -> Value {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}})
    }

    fn call(name: &str) -> Value {
        let meta = json!({VERSION_META: MODERN, CAPABILITIES_META: {}});
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "_meta": meta}})
    }

    #[test]
    fn the_version_says_which_rules_apply() {
        let full = json!({VERSION_META: MODERN, CAPABILITIES_META: {}});
        let modern = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/list")];
        assert_eq!(era(&modern, list(full.clone())), Ok(Era::Modern));
        assert_eq!(era(&[], list(json!({}))), Ok(Era::Legacy));
        assert_eq!(era(&[("mcp-protocol-version", "2025-06-18")], list(json!({}))), Ok(Era::Legacy));
        for (headers, meta, code) in [
            (&modern[..0], full.clone(), HEADER_MISMATCH),
            (&modern[..1], full.clone(), HEADER_MISMATCH),
            (&[("mcp-protocol-version", "2025-11-25")], full.clone(), HEADER_MISMATCH),
            (&[modern[0], ("mcp-method", "Tools/List")], full.clone(), HEADER_MISMATCH),
            (&[modern[0], modern[0]], full.clone(), HEADER_MISMATCH),
            (&[("mcp-protocol-version", "1999-01-01")], json!({}), UNSUPPORTED_VERSION),
            (&modern, json!({}), INVALID_PARAMS),
            (&modern, json!({VERSION_META: MODERN}), INVALID_PARAMS),
            (&modern, json!({CAPABILITIES_META: {}}), INVALID_PARAMS),
            (&modern, json!({VERSION_META: 7}), INVALID_PARAMS),
        ] {
            assert_eq!(era(headers, list(meta.clone())), Err(code), "{headers:?} {meta}");
        }
    }

    #[test]
    fn the_name_header_says_what_the_body_says() {
        let headers =
            |name| [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", name)];
        assert_eq!(era(&headers("draw"), call("draw")), Ok(Era::Modern));
        assert_eq!(era(&headers("  draw "), call("draw")), Ok(Era::Modern));
        assert_eq!(era(&headers("=?base64?ZHJhdw==?="), call("draw")), Ok(Era::Modern));
        for wrong in ["drew", "Draw", "=?base64?ZHJhd?=", "=?base64?/w==?="] {
            assert_eq!(era(&headers(wrong), call("draw")), Err(HEADER_MISMATCH), "{wrong}");
        }
        assert_eq!(era(&headers("draw")[..2], call("draw")), Err(HEADER_MISMATCH));
    }
}
