//! The `{"type":"mcp"}` entries of a request's `tools`, and the credentials given for them.

use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::name;
use crate::clean_json;
use crate::config::Secret;
use crate::openai::{ChatRequest, InvalidField};

/// One MCP server as the request wants it used.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its place in the request's `tools`.
    pub position: usize,
    /// As the request spells it.
    pub server_url: String,
    pub uri: Uri,
    /// Unique in the request.
    pub label: String,
    pub allowed: Allowed,
    /// The value of `Authorization`.
    pub authorization: Option<Secret>,
    pub headers: Vec<(HeaderName, Secret)>,
    /// Go on without it, visibly, when it cannot be used.
    pub optional: bool,
}

impl Spec {
    /// Host, and port where it is given.
    pub fn host(&self) -> &str {
        self.uri.authority().map_or("", http::uri::Authority::as_str)
    }

    /// The path of one of its fields in the request, for errors.
    pub fn param(&self, field: &str) -> String {
        format!("tools[{}].{field}", self.position)
    }
}

/// Which of a server's tools may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `None` allows every name.
    pub names: Option<Vec<String>>,
    /// Only tools that say they change nothing.
    pub read_only: bool,
}

/// Fields of an entry: OpenAI's own, and the gateway's.
const FIELDS: [&str; 12] = [
    "type",
    "server_url",
    "server_label",
    "server_description",
    "authorization",
    "headers",
    "allowed_tools",
    "require_approval",
    "connector_id",
    "defer_loading",
    "url",
    "optional",
];
/// What others call a field, and its name here.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("authorization_token", "authorization"),
    ("access_token", "authorization"),
    ("name", "server_label"),
    ("label", "server_label"),
    ("tool_names", "allowed_tools"),
    ("tool_configuration", "allowed_tools"),
];

/// Whether `tools` has an entry that the gateway acts on.
pub fn has_gateway_tools(tools: &str) -> bool {
    let mentions = |word: &[u8]| memchr::memmem::find(tools.as_bytes(), word).is_some();
    // Nearly all requests without such an entry do not have the words either; an escape could hide them.
    let words: [&[u8]; 4] = [b"\"mcp\"", b"\"url_context\"", b"\"server_url\"", b"\\u"];
    if !words.into_iter().any(mentions) {
        return false;
    }
    let is_ours = |kind: Option<&str>| matches!(kind, Some("mcp" | "url_context"));
    match clean_json::borrowed::<Vec<Kind<'_>>>(tools.as_bytes()) {
        Ok(kinds) => kinds.iter().any(|kind| is_ours(kind.kind.as_deref()) || kind.names_server()),
        // With an entry among them that is none: they must not reach a provider, credentials and all.
        Err(_) => clean_json::from_str::<Vec<Value>>(tools).is_ok_and(|entries| {
            entries.iter().any(|entry| {
                is_ours(entry.get("type").and_then(Value::as_str)) || entry.get("server_url").is_some()
            })
        }),
    }
}

#[derive(Deserialize)]
struct Kind<'k> {
    #[serde(borrow, rename = "type")]
    kind: Option<std::borrow::Cow<'k, str>>,
    #[serde(default)]
    server_url: Option<serde::de::IgnoredAny>,
}

impl Kind<'_> {
    /// Whether it is meant for us, whatever its `type` says: no provider's tool has an address of its own.
    fn names_server(&self) -> bool {
        self.server_url.is_some()
    }
}

/// Takes a request's `tools` apart and checks every entry for an MCP server.
///
/// # Errors
/// [`InvalidField`] naming entry and field.
pub fn read(tools: &str, headers: &HeaderMap, max_servers: usize) -> Result<Vec<Spec>, InvalidField> {
    let list: Vec<&RawValue> = clean_json::borrowed(tools.as_bytes())
        .map_err(|_| InvalidField::new("tools", "`tools` must be a list"))?;
    let mut servers = Vec::new();
    for (position, raw) in list.into_iter().enumerate() {
        let kind = clean_json::borrowed::<Kind<'_>>(raw.get().as_bytes()).map_err(|_| {
            InvalidField::new(
                format!("tools[{position}]"),
                format!("`tools[{position}]` must be an object with a `type`"),
            )
        })?;
        match kind.kind.as_deref() {
            Some("mcp") => servers.push(entry(position, raw)?),
            Some("url_context") => {
                return Err(InvalidField::new(
                    format!("tools[{position}].type"),
                    "`url_context` is not available yet; remove it",
                ));
            }
            _ if kind.names_server() => {
                let message =
                    format!("`tools[{position}].type` must be `mcp`, as the entry has a `server_url`");
                return Err(InvalidField::new(format!("tools[{position}].type"), message));
            }
            _ => {}
        }
    }
    if servers.len() > max_servers {
        return Err(InvalidField::new(
            "tools",
            format!("a request may name at most {max_servers} MCP servers"),
        ));
    }
    label(&mut servers)?;
    credentials(&mut servers, headers)?;
    Ok(servers)
}

/// The entries that are none of the gateway's. `tools` has been read before.
pub fn others(tools: &str) -> Vec<&RawValue> {
    let list: Vec<&RawValue> = clean_json::borrowed(tools.as_bytes()).unwrap_or_default();
    let is_ours = |raw: &RawValue| {
        clean_json::borrowed::<Kind<'_>>(raw.get().as_bytes())
            .is_ok_and(|kind| kind.kind.as_deref() == Some("mcp"))
    };
    list.into_iter().filter(|raw| !is_ours(raw)).collect()
}

fn entry(position: usize, raw: &RawValue) -> Result<Spec, InvalidField> {
    let at = |field: &str| format!("tools[{position}].{field}");
    let wrong =
        |field: &str, message: &str| InvalidField::new(at(field), format!("`{}` {message}", at(field)));
    let given = ChatRequest::parse(Bytes::copy_from_slice(raw.get().as_bytes()));
    let given = given.map_err(|error| match error.param {
        Some(field) => wrong(&field, "is given twice"),
        None => InvalidField::new(
            format!("tools[{position}]"),
            format!("`tools[{position}]` is not a valid MCP tool: {}", error.message),
        ),
    })?;
    let entry = Entry { given, position };
    entry.check_names()?;
    if entry.is_given("connector_id") {
        let message =
            "names a connector of OpenAI, which only OpenAI can use; give the `server_url` of an MCP server";
        return Err(wrong("connector_id", message));
    }
    // They say nothing that the gateway acts on, and are OpenAI's all the same.
    entry.get::<String>("server_description", "text")?;
    entry.get::<bool>("defer_loading", "true or false")?;
    let url = entry.get::<String>("url", "the address of an MCP server")?;
    let server_url = match (entry.get::<String>("server_url", "the address of an MCP server")?, url) {
        (Some(one), Some(other)) if one != other => {
            return Err(wrong("url", "names another address than `server_url`; give one of them"));
        }
        (Some(url), _) | (None, Some(url)) => url,
        (None, None) => return Err(wrong("server_url", "is missing: give the address of the MCP server")),
    };
    let uri = address(&server_url).map_err(|reason| wrong("server_url", &reason))?;
    match entry.get::<Value>("require_approval", "`never`")? {
        None => {}
        Some(Value::String(never)) if never == "never" => {}
        Some(_) => return Err(wrong("require_approval", "must be `never`: approvals are not available yet")),
    }
    let allowed = entry.get::<Value>("allowed_tools", SHAPE)?.as_ref().map(allowed_tools).transpose();
    let allowed = allowed.map_err(|reason| wrong("allowed_tools", &reason))?;
    let authorization = entry.get::<Secret>("authorization", "text")?;
    let mut authorization = authorization.map(|value| scheme(&value));
    let mut headers = Vec::new();
    let given = entry.get::<Map<String, Value>>("headers", "an object of names and texts")?;
    for (key, value) in given.unwrap_or_default() {
        let name = HeaderName::try_from(key.as_str()).map_err(|_| {
            wrong("headers", &format!("has a name that is no header: `{}`", key.escape_default()))
        })?;
        let value =
            value.as_str().map(Secret::new).filter(|value| HeaderValue::try_from(value.expose()).is_ok());
        let value = value
            .ok_or_else(|| wrong("headers", &format!("has a value for `{name}` that no header can carry")))?;
        if name == http::header::AUTHORIZATION {
            authorization.get_or_insert(value);
        } else {
            headers.push((name, value));
        }
    }
    let mut given = headers.iter().map(|(_, value)| value).chain(&authorization);
    if given.any(|value: &Secret| is_gateway_key(value.expose())) {
        return Err(wrong(
            "authorization",
            "holds a key of this gateway, which must not be sent to an MCP server",
        ));
    }
    if authorization.as_ref().is_some_and(|value| HeaderValue::try_from(value.expose()).is_err()) {
        return Err(wrong("authorization", "has characters that no header can carry"));
    }
    Ok(Spec {
        position,
        server_url,
        uri,
        label: entry.get::<String>("server_label", "text")?.unwrap_or_default(),
        allowed: allowed.unwrap_or_default(),
        authorization,
        headers,
        optional: entry.get::<bool>("optional", "true or false")?.unwrap_or(false),
    })
}

/// One entry as the request has it.
struct Entry {
    given: ChatRequest,
    position: usize,
}

impl Entry {
    fn is_given(&self, field: &str) -> bool {
        self.given.raw(field).is_some()
    }

    fn get<T: DeserializeOwned>(&self, field: &str, expected: &str) -> Result<Option<T>, InvalidField> {
        let at = format!("tools[{}].{field}", self.position);
        let value = self.given.get(field, expected);
        value.map_err(|_| InvalidField::new(at.as_str(), format!("`{at}` must be {expected}")))
    }

    /// A misspelled field would do nothing, and without `allowed_tools` every tool is offered.
    fn check_names(&self) -> Result<(), InvalidField> {
        let unknown = self.given.fields().find(|(field, value)| !FIELDS.contains(field) && *value != "null");
        let Some((field, _)) = unknown else { return Ok(()) };
        let at = format!("tools[{}].{field}", self.position);
        let message = format!("`{at}` is not a field of an MCP tool; {}", hint(field, &FIELDS));
        Err(InvalidField::new(at, message))
    }
}

/// The known name that was probably meant, or all there are.
fn hint(name: &str, known: &[&str]) -> String {
    let other = OTHER_NAMES.iter().find(|(other, _)| *other == name).map(|(_, here)| (1.0, *here));
    let nearest = known.iter().map(|known| (strsim::jaro_winkler(known, name), *known));
    match other.or_else(|| nearest.max_by(|a, b| a.0.total_cmp(&b.0))) {
        Some((score, near)) if score > 0.7 && known.contains(&near) => format!("did you mean `{near}`?"),
        _ => format!("known are {}", known.join(", ")),
    }
}

/// The address of an MCP server as a request spells it.
///
/// # Errors
/// What is wrong with it, in words that follow its name.
pub fn address(text: &str) -> Result<Uri, String> {
    if text.len() > 2048 {
        return Err("is longer than 2048 characters".into());
    }
    let url = url::Url::parse(text).map_err(|error| format!("is not an address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("must begin with https://, not {}://", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry a user name or password; use `authorization`".into());
    }
    // The normalised spelling is what is checked and dialled; a fragment never leaves the client.
    let mut url = url;
    url.set_fragment(None);
    url.as_str().parse().map_err(|_| "is not an address".into())
}

/// What `allowed_tools` may be.
const SHAPE: &str = r#"a list of tool names, or {"tool_names":[…],"read_only":true}"#;

fn allowed_tools(value: &Value) -> Result<Allowed, String> {
    let shape = || format!("must be {SHAPE}");
    let names = |list: &Value| -> Result<Vec<String>, String> {
        let list = list.as_array().ok_or_else(shape)?;
        list.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(shape)).collect()
    };
    match value {
        Value::Null => Ok(Allowed::default()),
        Value::Array(_) => Ok(Allowed { names: Some(names(value)?), read_only: false }),
        Value::Object(filter) => {
            let mut allowed = Allowed::default();
            for (key, value) in filter.iter().filter(|(_, value)| !value.is_null()) {
                match key.as_str() {
                    "tool_names" => allowed.names = Some(names(value)?),
                    "read_only" => allowed.read_only = value.as_bool().ok_or_else(shape)?,
                    other => {
                        let hint = hint(other, &["tool_names", "read_only"]);
                        let other: String = other.chars().take(100).collect();
                        return Err(format!("has the unknown field `{}`; {hint}", other.escape_default()));
                    }
                }
            }
            Ok(allowed)
        }
        _ => Err(shape()),
    }
}

/// A bare token is a bearer token; a value that names its scheme is kept.
fn scheme(value: &Secret) -> Secret {
    let text = value.expose().trim();
    if text.contains(' ') { Secret::new(text) } else { Secret::new(format!("Bearer {text}")) }
}

/// Gives every server a label: its own (then it must be unique), or one made from its host.
fn label(servers: &mut [Spec]) -> Result<(), InvalidField> {
    let mut taken = HashSet::new();
    for spec in servers.iter().filter(|spec| !spec.label.is_empty()) {
        if spec.label.len() > 64 || spec.label.chars().any(char::is_control) {
            let param = spec.param("server_label");
            return Err(InvalidField::new(
                param.clone(),
                format!("`{param}` must have 1 to 64 printable characters"),
            ));
        }
        if !taken.insert(spec.label.clone()) {
            let param = spec.param("server_label");
            let message =
                format!("`{param}`: the label `{}` is used twice; every server needs its own", spec.label);
            return Err(InvalidField::new(param, message));
        }
    }
    for spec in servers.iter_mut().filter(|spec| spec.label.is_empty()) {
        let base = name::label_from_host(spec.uri.host().unwrap_or_default());
        let unique = (1..)
            .map(|n| if n == 1 { base.clone() } else { format!("{base}{n}") })
            .find(|label| !taken.contains(label));
        spec.label = unique.unwrap_or(base);
        taken.insert(spec.label.clone());
    }
    Ok(())
}

/// Hands `X-MCP-Authorization` to the server it is for: a bare value for a single server, `host=value` pairs otherwise.
fn credentials(servers: &mut [Spec], headers: &HeaderMap) -> Result<(), InvalidField> {
    const NAME: &str = "x-mcp-authorization";
    let wrong = |message: &str| InvalidField::new(NAME, format!("`X-MCP-Authorization` {message}"));
    for header in headers.get_all(NAME) {
        let text = header.to_str().map_err(|_| wrong("is not plain text"))?;
        let pairs: Option<Vec<(&str, &str)>> = text.split(',').map(|part| pair(part, servers)).collect();
        match pairs {
            Some(pairs) => {
                for (host, value) in pairs {
                    let named = servers.iter_mut().filter(|spec| spec.host().eq_ignore_ascii_case(host));
                    for spec in named {
                        spec.authorization.get_or_insert_with(|| scheme(&Secret::new(value)));
                    }
                }
            }
            None => match servers {
                [only] if !text.split(',').any(names_a_host) => {
                    only.authorization.get_or_insert(scheme(&Secret::new(text)));
                }
                [] => {}
                _ => {
                    return Err(wrong(
                        "must be `host=value` pairs, separated by commas, each host being one of the request's servers",
                    ));
                }
            },
        }
    }
    Ok(())
}

/// Whether this reads as `host=value`: then it must not go to another host as if it were a bare token. Tokens
/// that end in base64 padding do not.
fn names_a_host(part: &str) -> bool {
    part.split_once('=').is_some_and(|(host, value)| {
        let host = host.trim();
        let like_a_host = host.parse::<http::uri::Authority>().is_ok();
        like_a_host && value.bytes().any(|byte| byte != b'=')
    })
}

/// A credential for `host`, or `host:port` where the port is not the scheme's own.
fn pair<'t>(part: &'t str, servers: &[Spec]) -> Option<(&'t str, &'t str)> {
    let (host, value) = part.split_once('=')?;
    let host = host.trim();
    servers.iter().any(|spec| spec.host().eq_ignore_ascii_case(host)).then(|| (host, value.trim()))
}

/// A key of this gateway opens this gateway; it must not be given to anyone else.
fn is_gateway_key(value: &str) -> bool {
    value.contains("tgk_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(tools: &str) -> Result<Vec<Spec>, InvalidField> {
        read(tools, &HeaderMap::new(), 64)
    }

    #[test]
    fn an_entry_for_a_server_is_seen_among_entries_that_are_none() {
        let server = r#"{"type":"mcp","server_url":"https://a","authorization":"secret"}"#;
        for other in ["1", "null", "[]", r#"{"type":"\ud800"}"#, r#"{"type":7}"#, r#"{"a":1e400}"#] {
            let tools = format!("[{other},{server}]");
            assert!(has_gateway_tools(&tools), "{tools}");
            assert!(
                !has_gateway_tools(&format!(r#"[{other},{{"type":"function","x":"\u00e9 mcp"}}]"#)),
                "{other}"
            );
        }
    }

    #[test]
    fn fields_that_nothing_acts_on_are_refused_with_the_near_name() {
        let entry = |fields: &str| format!(r#"[{{"type":"mcp","server_url":"https://a",{fields}}}]"#);
        for (fields, param, text) in [
            (r#""allowed_tool":["x"]"#, "allowed_tool", "did you mean `allowed_tools`?"),
            (r#""allowedTools":["x"]"#, "allowedTools", "did you mean `allowed_tools`?"),
            (r#""authorisation":"t""#, "authorisation", "did you mean `authorization`?"),
            (r#""authorization_token":"t""#, "authorization_token", "did you mean `authorization`?"),
            (r#""name":"x""#, "name", "did you mean `server_label`?"),
            (r#""header":{}"#, "header", "did you mean `headers`?"),
            (r#""Optional":true"#, "Optional", "did you mean `optional`?"),
            (r#""zzz":1"#, "zzz", "known are type, server_url"),
            (r#""allowed_tools":["a"],"allowed_tools":null"#, "allowed_tools", "given twice"),
            (r#""allowed_tools":{"tool_name":["x"]}"#, "allowed_tools", "did you mean `tool_names`?"),
            (r#""allowed_tools":{"readonly":true}"#, "allowed_tools", "did you mean `read_only`?"),
            (r#""allowed_tools":{"a\u0000`":1}"#, "allowed_tools", "known are tool_names, read_only"),
            (r#""allowed_tools":[1]"#, "allowed_tools", "must be a list of tool names"),
            (r#""connector_id":"connector_gmail""#, "connector_id", "give the `server_url`"),
            (r#""require_approval":{"never":{"tool_names":["x"]}}"#, "require_approval", "must be `never`"),
            (r#""require_approval":"Never""#, "require_approval", "must be `never`"),
            (r#""headers":["x"]"#, "headers", "must be an object of names and texts"),
            (r#""headers":{"a":1}"#, "headers", "no header can carry"),
            (r#""authorization":["secret"]"#, "authorization", "must be text"),
            (r#""optional":"yes""#, "optional", "must be true or false"),
            (r#""defer_loading":1"#, "defer_loading", "must be true or false"),
        ] {
            let error = read_one(&entry(fields)).unwrap_err();
            assert_eq!(error.param, Some(format!("tools[0].{param}")), "{fields}");
            assert!(error.message.contains(text), "{}", error.message);
            assert!(!error.message.contains("secret"), "{}", error.message);
        }
        let all = r#""server_label":"l","server_description":"d","defer_loading":false,"connector_id":null,
            "require_approval":"never","allowed_tools":{"tool_names":null},"optional":null,"tomorrow":null"#;
        let specs = read_one(&entry(all)).unwrap();
        assert_eq!((specs[0].label.as_str(), &specs[0].allowed), ("l", &Allowed::default()));
    }

    #[test]
    fn bad_entries_are_named() {
        for (tools, param, text) in [
            (r#"{"type":"mcp"}"#, "tools", "must be a list"),
            (r#"[1]"#, "tools[0]", "an object"),
            (r#"[{"type":"mcp"}]"#, "tools[0].server_url", "missing"),
            (
                r#"[{"type":"mcp","server_url":"https://a","url":"https://b"}]"#,
                "tools[0].url",
                "another address",
            ),
            (r#"[{"type":"mcp","server_url":"ftp://a"}]"#, "tools[0].server_url", "https://"),
            (r#"[{"type":"mcp","server_url":"https://u:p@a"}]"#, "tools[0].server_url", "user name"),
            (
                r#"[{"type":"mcp","server_url":"https://a","require_approval":"always"}]"#,
                "tools[0].require_approval",
                "never",
            ),
            (
                r#"[{"type":"mcp","server_url":"https://a","allowed_tools":"x"}]"#,
                "tools[0].allowed_tools",
                "list of tool names",
            ),
            (
                r#"[{"type":"mcp","server_url":"https://a","headers":{"a b":"c"}}]"#,
                "tools[0].headers",
                "no header",
            ),
            (
                r#"[{"type":"mcp","server_url":"https://a","headers":{"a":"c\nd"}}]"#,
                "tools[0].headers",
                "no header can carry",
            ),
            (
                r#"[{"type":"mcp","server_url":"https://a","server_label":"x"},{"type":"mcp","server_url":"https://b","server_label":"x"}]"#,
                "tools[1].server_label",
                "used twice",
            ),
        ] {
            let error = read_one(tools).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{tools}");
            assert!(error.message.contains(text), "{tools}: {}", error.message);
        }
    }

    #[test]
    fn labels_are_made_unique() {
        let specs = read_one(r#"[{"type":"mcp","server_url":"https://mcp.notion.com/a"},{"type":"mcp","url":"https://mcp.notion.com/b"}]"#).unwrap();
        assert_ne!(specs[0].label, specs[1].label);
    }

    #[test]
    fn a_credential_goes_only_to_the_server_it_names() {
        let tools = r#"[{"type":"mcp","server_url":"https://a.example/x"},{"type":"mcp","server_url":"https://b.example/x"}]"#;
        let mut headers = HeaderMap::new();
        headers.insert("x-mcp-authorization", HeaderValue::from_static("a.example=one=="));
        let specs = read(tools, &headers, 64).unwrap();
        assert_eq!(specs[0].authorization.as_ref().unwrap().expose(), "Bearer one==");
        assert!(specs[1].authorization.is_none());
        headers.insert("x-mcp-authorization", HeaderValue::from_static("bare"));
        assert!(read(tools, &headers, 64).is_err());
        let single = r#"[{"type":"mcp","server_url":"https://a.example/x"}]"#;
        headers.insert("x-mcp-authorization", HeaderValue::from_static("Basic YTpiPT0="));
        assert_eq!(
            read(single, &headers, 64).unwrap()[0].authorization.as_ref().unwrap().expose(),
            "Basic YTpiPT0="
        );
        for other in [
            "evil.example=secret",
            "evil.example:8443=secret",
            "localhost=secret",
            "[::1]:9=secret",
            "a.example:8443=secret",
        ] {
            headers.insert("x-mcp-authorization", HeaderValue::from_static(other));
            assert!(
                read(single, &headers, 64).is_err(),
                "a credential for another host must not reach this one: {other}"
            );
        }
        headers.insert("x-mcp-authorization", HeaderValue::from_static("evil.example=secret"));
        assert!(read(single, &headers, 64).is_err(), "a credential for another host must not reach this one");
    }
}
