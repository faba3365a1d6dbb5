//! "Run again": what a run was asked, with the question and the servers of a form.
//!
//! Pure. Who runs something again means the same request: instructions, earlier messages, and what its servers may be
//! used for come along, although the form has no field for them. A restriction that fell away without a word would give a
//! model more than its owner ever allowed.

use serde_json::{Map, Value, json};
use url::Url;

use crate::completion::{Options, Record, Visibility};
use crate::tools::text;

/// Fields of a request that are the form's, the page's, or of one request only. Options are taken from where they were
/// kept, since some came as headers.
const LEFT_OUT: [&str; 12] = [
    "model",
    "messages",
    "tools",
    "store",
    "stream",
    "stream_options",
    "metadata",
    "toolgate",
    "authorizationRequestCallback",
    "user",
    "safety_identifier",
    "n",
];

/// The fields of the request, without those that the page decides. Who owns the run and did not send its request gets
/// no more of it than they may read: its messages, and what limits a server whose address they know.
pub(super) fn body(record: &Record, message: &str, servers: &[&str]) -> Map<String, Value> {
    let goes_along = |key: &str| record.is_callers && !LEFT_OUT.contains(&key);
    let fields = record.request.iter().filter(|(key, _)| goes_along(key));
    let mut body: Map<String, Value> = fields.map(|(key, value)| (key.clone(), value.clone())).collect();
    body.insert("messages".into(), messages(record.messages(), message).into());
    let known = entries(&record.request).iter().filter(|entry| record.is_callers || is_mcp(entry));
    let tools = tools(&known.cloned().collect::<Vec<_>>(), servers);
    if !tools.is_empty() {
        body.insert("tools".into(), tools.into());
    }
    body
}

/// As [`body`], of nothing but the form.
pub(super) fn plain(message: &str, servers: &[&str]) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("messages".into(), json!([{ "role": "user", "content": message }]));
    if !servers.is_empty() {
        body.insert("tools".into(), tools(&[], servers).into());
    }
    body
}

/// The options of the run, but for those that somebody else is told by, and for the one that gives an old result.
/// `None` when they cannot be read.
pub(super) fn options(record: &Record, most_turns: u32) -> Option<Options> {
    let kept = record.options.clone()?;
    Some(Options {
        authorization_callback_url: None,
        webhook_url: None,
        cache_seconds: None,
        // Who published one result has not published the next.
        visibility: kept.visibility.filter(|visibility| *visibility == Visibility::Private),
        max_turns: kept.max_turns.min(most_turns),
        ..kept
    })
}

/// Whether more belongs to the run than a form shows.
pub(super) fn has_more(record: &Record) -> bool {
    let (question, servers) = (last_question(record.messages()), servers(record));
    let servers: Vec<&str> = servers.split_whitespace().collect();
    let same = body(record, &question, &servers) == plain(&question, &servers);
    !same || record.options.as_ref().is_none_or(|options| options.given) || names_somebody(record)
}

/// Whether the request says for whom it is.
fn names_somebody(record: &Record) -> bool {
    record.is_callers && ["user", "safety_identifier"].iter().any(|field| record.request.contains_key(*field))
}

/// The text of the last message of the user.
pub(super) fn last_question(messages: &[Value]) -> String {
    let last = messages.iter().rev().find(|message| is_users(message));
    match last.and_then(|message| message.get("content")) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
            texts.collect::<Vec<_>>().join("\n\n")
        }
        _ => String::new(),
    }
}

/// The addresses of the MCP servers, one a line, for who sent the request: they may hold what nobody else may know.
pub(super) fn servers(record: &Record) -> String {
    let known = entries(&record.request).iter().filter(|_| record.is_callers);
    known.filter_map(address).collect::<Vec<_>>().join("\n")
}

fn is_users(message: &Value) -> bool {
    message.get("role").is_some_and(|role| role == "user")
}

/// The messages with `asked` as the last question. What followed an old question answers that one alone.
fn messages(before: &[Value], asked: &str) -> Vec<Value> {
    let mut messages = before.to_vec();
    if is_same(&last_question(before), asked) {
        return messages;
    }
    let Some(last) = messages.iter().rposition(is_users) else {
        messages.push(json!({ "role": "user", "content": asked }));
        return messages;
    };
    messages.truncate(last + 1);
    let others = match messages[last].get("content") {
        Some(Value::Array(parts)) => {
            parts.iter().filter(|part| part.get("text").is_none()).cloned().collect()
        }
        _ => Vec::new(),
    };
    messages[last]["content"] = if others.is_empty() {
        asked.into()
    } else {
        [vec![json!({ "type": "text", "text": asked })], others].concat().into()
    };
    messages
}

/// Whether it is the same text, as browsers send back what stood in a form.
fn is_same(one: &str, other: &str) -> bool {
    let normal = |text: &str| text::for_reader(text).replace('\r', "").trim().to_owned();
    normal(one) == normal(other)
}

/// The entries as they were, without servers that the form does not name any more, and with those that are new in it.
fn tools(before: &[Value], servers: &[&str]) -> Vec<Value> {
    let names = |entry: &Value, server: &str| address(entry).is_some_and(|known| is_address(known, server));
    let is_kept = |entry: &&Value| !is_mcp(entry) || servers.iter().any(|server| names(entry, server));
    let mut tools: Vec<Value> = before.iter().filter(is_kept).cloned().collect();
    let new = servers.iter().filter(|server| !before.iter().any(|entry| names(entry, server)));
    let new: Vec<Value> = new.map(|server| json!({ "type": "mcp", "server_url": server })).collect();
    tools.extend(new);
    tools
}

/// Whether both are one address, however they are spelt.
fn is_address(known: &str, server: &str) -> bool {
    let parsed = |text: &str| Url::parse(&text::for_reader(text)).ok();
    known == server || parsed(known).is_some_and(|url| parsed(server) == Some(url))
}

fn is_mcp(entry: &Value) -> bool {
    entry.get("type").is_some_and(|kind| kind == "mcp")
}

/// The address of an MCP server.
fn address(entry: &Value) -> Option<&str> {
    let url = || entry.get("server_url").or(entry.get("url")).and_then(Value::as_str);
    is_mcp(entry).then(url).flatten()
}

fn entries(request: &Map<String, Value>) -> &[Value] {
    request.get("tools").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restrictions_stay_with_their_server_and_new_servers_come_last() {
        let limited =
            json!({ "type": "mcp", "url": "https://A.example/mcp", "allowed_tools": { "read_only": true } });
        let function = json!({ "type": "function", "function": { "name": "f" } });
        let gone = json!({ "type": "mcp", "server_url": "https://gone.example/mcp" });
        let before = [limited.clone(), function.clone(), gone];
        let new = json!({ "type": "mcp", "server_url": "https://new.example/mcp" });
        assert_eq!(
            tools(&before, &["https://new.example/mcp", "https://a.example/mcp"]),
            [limited, function.clone(), new]
        );
        assert_eq!(tools(&before, &[]), [function]);
    }

    #[test]
    fn another_question_takes_the_place_of_the_last_one() {
        let picture = json!({ "type": "image_url", "image_url": { "url": "https://p.example/a.png" } });
        let system = json!({ "role": "system", "content": "Be brief." });
        let asked = json!({ "role": "user", "content": [{ "type": "text", "text": "One\nTwo" }, picture] });
        let before = [system.clone(), asked, json!({ "role": "tool", "content": "x" })];
        assert_eq!(messages(&before, "One\r\nTwo "), before);
        let other = json!({ "role": "user", "content": [{ "type": "text", "text": "Three" }, picture] });
        assert_eq!(messages(&before, "Three"), [system.clone(), other]);
        let added = json!({ "role": "user", "content": "Three" });
        assert_eq!(messages(std::slice::from_ref(&system), "Three"), [system, added]);
    }
}
