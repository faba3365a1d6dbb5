//! Breaking the gateway's own login links where they do not come from the gateway.
//!
//! Pure. A login link is shown by the gateway alone. What a tool says may not show one, or anything that looks like
//! one, to a reader or to the model: it could be somebody else's link, offered to be clicked.

use std::borrow::Cow;

use serde_json::Value;
use url::Url;

use crate::clean_json::CleanJson;
use crate::tools::{Part, ToolResult, text};

/// What stands where a link was.
const BROKEN: &str = "(login link removed: only the gateway shows those)";
/// The first part of the path of every login link.
const PATH: &str = "connect";
/// How often encodings inside encodings are undone.
const MOST_ROUNDS: usize = 8;
/// Longer runs without white space or brackets are looked at in pieces of this size, which overlap.
const LONGEST_RUN_BYTES: usize = 16 << 10;

/// Knows the gateway's own links.
#[derive(Debug, Clone)]
pub struct OwnLinks {
    /// The names of our host, in lower case; all those of this machine when it is one of them.
    hosts: Vec<String>,
    /// The port, `None` for the scheme's own.
    port: Option<u16>,
    /// The beginning of our links as we write them.
    prefix: String,
}

impl OwnLinks {
    /// The links below `public_url`, which has no trailing slash.
    pub fn new(public_url: &str) -> Self {
        let url = Url::parse(public_url).ok();
        let host = url.as_ref().and_then(Url::host_str).unwrap_or_default().to_ascii_lowercase();
        let this_machine = ["localhost", "127.0.0.1", "[::1]"];
        let hosts = if this_machine.contains(&host.as_str()) {
            this_machine.map(str::to_owned).to_vec()
        } else {
            vec![host]
        };
        let prefix = format!("{public_url}/{PATH}/");
        OwnLinks { hosts, port: url.and_then(|url| url.port()), prefix }
    }

    /// Whether `url` leads to the gateway itself, at any path.
    pub fn lead_to(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        self.hosts.contains(&host) && self.is_port(url.port())
    }

    /// Whether a login link is in `text`.
    pub fn are_in(&self, text: &str) -> bool {
        matches!(self.broken_in(text), Cow::Owned(_))
    }

    /// `text` with every login link replaced by words.
    pub fn broken_in<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if !text.bytes().any(|byte| matches!(byte, b'/' | b'%' | b'&' | b'\\' | 0x80..)) {
            return Cow::Borrowed(text);
        }
        let mut out = String::new();
        let mut copied = 0;
        for run in runs(text) {
            if self.is_link(&text[run.clone()]) {
                out.push_str(&text[copied..run.start.max(copied)]);
                // Pieces of one long run overlap; its words stand once.
                if run.start >= copied || copied == 0 {
                    out.push_str(BROKEN);
                }
                copied = run.end;
            }
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[copied..]);
        Cow::Owned(out)
    }

    /// The result with every login link in it replaced by words, in what is read and in what is structured.
    #[must_use]
    pub fn broken_in_result(&self, mut result: ToolResult) -> ToolResult {
        let fix = |text: &mut String| {
            if let Cow::Owned(broken) = self.broken_in(text) {
                *text = broken;
            }
        };
        for part in &mut result.parts {
            match part {
                Part::Text(text) => fix(text),
                Part::Link { uri, name, mime_type, .. } => {
                    fix(uri);
                    fix(name);
                    mime_type.as_mut().map(fix);
                }
                Part::ResourceText { uri, mime_type, text } => {
                    fix(uri);
                    fix(text);
                    mime_type.as_mut().map(fix);
                }
                Part::ResourceData { uri, mime_type, .. } => {
                    fix(uri);
                    mime_type.as_mut().map(fix);
                }
                Part::Image { mime_type, .. } | Part::Audio { mime_type, .. } => fix(mime_type),
                Part::Unknown { kind, .. } => fix(kind),
            }
        }
        if let Some(broken) = result.structured.as_ref().and_then(|json| self.broken_in_json(json)) {
            result.structured = Some(broken);
        }
        result
    }

    /// `messages`, JSON texts, without the links that the gateway wrote into earlier answers: a model that reads
    /// one might repeat it.
    pub fn forgotten_in(&self, messages: Vec<u8>) -> Vec<u8> {
        let prefix = self.prefix.as_bytes();
        let mut places = memchr::memmem::find_iter(&messages, prefix).peekable();
        if places.peek().is_none() {
            return messages;
        }
        let mut out = Vec::with_capacity(messages.len());
        let mut copied = 0;
        for place in places {
            let end = place + prefix.len();
            let id = messages[end..]
                .iter()
                .take_while(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte));
            out.extend_from_slice(&messages[copied..end]);
            out.extend_from_slice("…".as_bytes());
            copied = end + id.count();
        }
        out.extend_from_slice(&messages[copied..]);
        out
    }

    fn broken_in_json(&self, json: &CleanJson) -> Option<CleanJson> {
        // Most results are only scanned; one that has a link is taken apart, so that it stays JSON.
        if !runs(json.get()).any(|run| self.is_link(&json.get()[run])) {
            return None;
        }
        let mut value = json.to_value();
        self.break_in_value(&mut value);
        Some(CleanJson::from(&value))
    }

    fn break_in_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(broken) = self.broken_in(text) {
                    *text = broken;
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|value| self.break_in_value(value)),
            Value::Object(fields) => {
                for (key, mut value) in std::mem::take(fields) {
                    self.break_in_value(&mut value);
                    fields.insert(self.broken_in(&key).into_owned(), value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Whether a run of text, its encodings undone, names our host and the path of login links.
    fn is_link(&self, run: &str) -> bool {
        if run.len() < PATH.len()
            || !run.bytes().any(|byte| matches!(byte, b'/' | b'%' | b'&' | b'\\' | 0x80..))
        {
            return false;
        }
        let mut plain = text::for_reader(run).to_lowercase();
        for _ in 0..MOST_ROUNDS {
            if self.names_link(&plain) {
                return true;
            }
            match decoded(&plain) {
                Some(next) => plain = next.to_lowercase(),
                None => return false,
            }
        }
        // Encoded deeper than any reader decodes.
        plain.contains(PATH) || plain.contains('%')
    }

    fn names_link(&self, plain: &str) -> bool {
        let slashes = plain.replace('\\', "/");
        let mentions = self.hosts.iter().any(|host| {
            slashes.match_indices(host.as_str()).any(|(place, _)| {
                // Not the end of a longer name.
                if slashes[..place].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.')) {
                    return false;
                }
                let after = &slashes[place + host.len()..];
                after
                    .find('/')
                    .is_some_and(|slash| self.fits(&after[..slash]) && after[slash..].contains(PATH))
            })
        });
        // A browser also reads other spellings of a host: full-width letters, other dots, other numbers.
        mentions
            || slashes.match_indices("//").any(|(place, _)| {
                let rest = slashes[place..].trim_start_matches('/');
                rest.contains(PATH)
                    && Url::parse(&format!("http://{rest}"))
                        .is_ok_and(|url| self.lead_to(&url) && url.path().contains(PATH))
            })
    }

    /// Whether what stands between a host and its path leaves it our host: nothing, a dot, or our port.
    fn fits(&self, between: &str) -> bool {
        let port = between.trim_start_matches('.').strip_prefix(':');
        match port {
            Some("") => self.is_port(None),
            Some(port) => port.parse().is_ok_and(|port| self.is_port(Some(port))),
            None => between.trim_start_matches('.').is_empty() && self.is_port(None),
        }
    }

    fn is_port(&self, port: Option<u16>) -> bool {
        match self.port {
            Some(own) => port == Some(own),
            None => matches!(port, None | Some(80 | 443)),
        }
    }
}

/// The runs of `text` that white space, quotes and brackets leave: what a reader could take for one address.
fn runs(text: &str) -> impl Iterator<Item = std::ops::Range<usize>> {
    let ends = |c: char| {
        c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '(' | ')' | '{' | '}' | '|')
    };
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(|c| !ends(c))?;
        let end = start + text[start..].find(ends).unwrap_or(text.len() - start);
        if end - start <= LONGEST_RUN_BYTES {
            at = end;
            return Some(start..end);
        }
        let cut = text.floor_char_boundary(start + LONGEST_RUN_BYTES);
        // The next piece begins well before this one ends, so that no link is cut in two.
        at = text.floor_char_boundary(start + LONGEST_RUN_BYTES / 2);
        Some(start..cut)
    })
}

/// One layer of encoding undone: `%2f`, `&#47;`, `&sol;`, `\/`, `\u002f`. `None` when there is none.
fn decoded(text: &str) -> Option<String> {
    if !text.contains(['%', '&', '\\']) {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut changed = false;
    while let Some(c) = rest.chars().next() {
        let (bytes, length) = match c {
            '%' => percent(rest),
            '&' => entity(rest),
            '\\' => escape(rest),
            _ => None,
        }
        .map_or_else(
            || (c.to_string(), c.len_utf8()),
            |(decoded, length)| {
                changed = true;
                (decoded, length)
            },
        );
        out.push(bytes);
        rest = &rest[length..];
    }
    changed.then(|| text::for_reader(&out.concat()).into_owned())
}

fn percent(rest: &str) -> Option<(String, usize)> {
    // A character of several bytes is written as several such triples.
    let mut bytes = Vec::new();
    while let Some(byte) = rest
        .get(bytes.len() * 3..bytes.len() * 3 + 3)
        .and_then(|triple| triple.strip_prefix('%'))
        .and_then(|digits| u8::from_str_radix(digits, 16).ok())
    {
        bytes.push(byte);
    }
    let length = bytes.len() * 3;
    (length > 0).then(|| (String::from_utf8_lossy(&bytes).into_owned(), length))
}

fn entity(rest: &str) -> Option<(String, usize)> {
    const NAMES: [(&str, &str); 11] = [
        ("&sol;", "/"),
        ("&colon;", ":"),
        ("&period;", "."),
        ("&amp;", "&"),
        ("&bsol;", "\\"),
        ("&percnt;", "%"),
        ("&num;", "#"),
        ("&semi;", ";"),
        ("&tab;", ""),
        ("&newline;", ""),
        ("&shy;", ""),
    ];
    if let Some((name, value)) = NAMES.iter().find(|(name, _)| rest.starts_with(name)) {
        return Some(((*value).to_owned(), name.len()));
    }
    let number = rest.strip_prefix("&#")?;
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
    let length = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let c = char::from_u32(u32::from_str_radix(&digits[..length], radix).ok()?)?;
    let end = rest.len() - digits.len() + length;
    Some((c.to_string(), end + usize::from(rest[end..].starts_with(';'))))
}

fn escape(rest: &str) -> Option<(String, usize)> {
    if let Some(digits) = rest.strip_prefix("\\u") {
        let digits = digits.get(..4)?;
        let c = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
        return Some((c.to_string(), 6));
    }
    // Markdown and JSON write a backslash before punctuation.
    let next = rest[1..].chars().next().filter(char::is_ascii_punctuation)?;
    Some((next.to_string(), 1 + next.len_utf8()))
}

#[cfg(test)]
#[path = "defuse_test.rs"]
mod tests;
