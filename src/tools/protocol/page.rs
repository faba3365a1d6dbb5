//! Reading `tools/list`. One broken tool costs that tool, not the list; none disappears without a reason.
//!
//! Pure.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::annotation;
use super::message::harmless;
use crate::clean_json;
use crate::tools::offered::Offered;
use crate::tools::{Error, Tool, ToolList, text};

/// Longest name of a tool, in bytes: beyond it no provider could be told of it anyway.
const LONGEST_NAME: usize = 512;
/// Longest title and description that are kept, in bytes; models are offered less.
const LONGEST_TITLE: usize = 1 << 10;
const LONGEST_DESCRIPTION: usize = 64 << 10;
/// Most bytes of all pages of one list.
const LONGEST_LIST: usize = 64 << 20;
/// Longest time a list is kept, whatever the server says.
const LONGEST_AGE: Duration = Duration::from_secs(24 * 3600);

/// A list being gathered, page by page.
pub(crate) struct Pages {
    list: ToolList,
    names: HashSet<String>,
    most_tools: usize,
    /// Bytes of the pages so far.
    bytes: usize,
    cursors: HashSet<String>,
    /// How long it may be kept, as far as the server says; the shortest of all pages.
    age: Option<Duration>,
    /// Every page may be shared between users.
    public: bool,
}

/// A complete list with what its server says about keeping it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) list: ToolList,
    pub(crate) age: Option<Duration>,
    pub(crate) public: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
    #[serde(default)]
    next_cursor: Option<String>,
    #[serde(borrow, default)]
    ttl_ms: Option<&'a RawValue>,
    #[serde(default)]
    cache_scope: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    name: String,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    description: Option<String>,
    input_schema: Box<RawValue>,
    #[serde(default)]
    annotations: Option<Annotations>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Annotations {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    read_only_hint: Option<bool>,
    #[serde(default)]
    idempotent_hint: Option<bool>,
}

impl Pages {
    /// Takes at most `most_tools`.
    pub(crate) fn new(most_tools: usize) -> Self {
        Pages {
            list: ToolList::default(),
            names: HashSet::new(),
            most_tools,
            bytes: 0,
            cursors: HashSet::new(),
            age: None,
            public: true,
        }
    }

    /// Adds a page and says where the next one is.
    ///
    /// # Errors
    /// [`Error::Protocol`] when it is not a page, or the pages go in a circle.
    pub(crate) fn add(&mut self, result: &Bytes) -> Result<Option<String>, Error> {
        self.bytes += result.len();
        if self.bytes > LONGEST_LIST {
            return Err(Error::TooLarge { limit: LONGEST_LIST });
        }
        let page: Page<'_> = clean_json::borrowed(result)
            .map_err(|_| Error::Protocol("its answer to `tools/list` is not a list of tools".into()))?;
        let age = page.ttl_ms.and_then(|ttl| ttl.get().parse::<f64>().ok()).map(|milliseconds| {
            Duration::from_secs_f64((milliseconds / 1000.0).clamp(0.0, LONGEST_AGE.as_secs_f64()))
        });
        self.age = [self.age, age].into_iter().flatten().min();
        self.public &= page.cache_scope.as_deref() == Some("public");
        let more = page.next_cursor.filter(|cursor| !cursor.is_empty());
        let room = self.most_tools - self.list.tools.len().min(self.most_tools);
        for raw in page.tools.iter().take(room) {
            self.list.is_repaired |= matches!(clean_json::clean(raw.get()), Cow::Owned(_));
            match read_tool(raw) {
                Ok(tool) if self.names.insert(tool.name.clone()) => self.list.tools.push(tool),
                Ok(tool) => self.list.dropped.push((tool.name, "the server lists this name twice".into())),
                Err(dropped) => self.list.dropped.push(dropped),
            }
        }
        let full = self.list.tools.len() >= self.most_tools || self.list.dropped.len() >= self.most_tools;
        if page.tools.len() > room || (full && more.is_some()) {
            let reason = format!("more than {} tools; the rest is left out", self.most_tools);
            self.list.dropped.push(("…".into(), reason));
            return Ok(None);
        }
        match more {
            Some(cursor) if !self.cursors.insert(cursor.clone()) || page.tools.is_empty() => {
                Err(Error::Protocol("the pages of its list of tools do not end".into()))
            }
            more => Ok(more),
        }
    }

    /// The whole list.
    pub(crate) fn finish(self) -> Listed {
        Listed { list: self.list, age: self.age, public: self.public }
    }
}

/// The tool, or its name and why it cannot be used.
fn read_tool(raw: &RawValue) -> Result<Tool, (String, String)> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let wire: Wire = clean_json::from_str(raw.get()).map_err(|error| {
        let name = clean_json::from_str::<Named>(raw.get()).map(|named| named.name).unwrap_or_default();
        (harmless(&name), format!("its definition is invalid: {}", harmless(&error.to_string())))
    })?;
    let name = harmless(&wire.name);
    if wire.name.is_empty() || wire.name.len() > LONGEST_NAME || name != wire.name {
        return Err((name, "its name is empty, too long or not printable".into()));
    }
    if !wire.input_schema.get().starts_with('{') {
        return Err((name, "its input schema is not an object".into()));
    }
    let header_arguments = annotation::find(wire.input_schema.get()).map_err(|reason| (name, reason))?;
    let annotations = wire.annotations.unwrap_or_default();
    Ok(Tool {
        name: wire.name,
        title: wire
            .title
            .or(annotations.title)
            .map(|title| text::cut(title.into(), LONGEST_TITLE).into_owned()),
        description: wire.description.map(|said| text::cut(said.into(), LONGEST_DESCRIPTION).into_owned()),
        input_schema: wire.input_schema,
        read_only: annotations.read_only_hint.unwrap_or(false),
        idempotent: annotations.idempotent_hint.unwrap_or(false),
        header_arguments,
        offered: Offered::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn tool(name: &str) -> String {
        format!(r#"{{"name":"{name}","inputSchema":{{"type":"object"}}}}"#)
    }

    #[test]
    fn what_no_json_value_can_hold_is_replaced_and_noted() {
        let read = |description: &str| {
            let mut pages = Pages::new(10);
            let tool =
                format!(r#"{{"name":"a","description":"{description}","inputSchema":{{"type":"object"}}}}"#);
            pages.add(&page(&format!(r#"{{"tools":[{tool}]}}"#))).unwrap();
            let list = pages.finish().list;
            (list.tools[0].description.clone().unwrap(), list.is_repaired)
        };
        assert_eq!(read("good"), ("good".to_owned(), false));
        assert_eq!(read(r"bad \ud800"), ("bad \u{fffd}".to_owned(), true));
    }

    #[test]
    fn a_broken_tool_is_named_and_the_others_stay() {
        let mut pages = Pages::new(10);
        let text = format!(
            r#"{{"tools":[{},{{"name":"no_schema"}},{{"name":"bad","inputSchema":true}},7,{},{}]}}"#,
            tool("a"),
            tool("a"),
            r#"{"name":"b","title":"B","inputSchema":{"x": 1.50},"annotations":{"readOnlyHint":true,"title":"no"}}"#,
        );
        assert_eq!(pages.add(&page(&text)).unwrap(), None);
        let listed = pages.finish();
        let names: Vec<_> = listed.list.tools.iter().map(|tool| tool.name.as_str()).collect();
        let dropped: Vec<_> = listed.list.dropped.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, dropped), (vec!["a", "b"], vec!["no_schema", "bad", "", "a"]));
        let b = &listed.list.tools[1];
        assert_eq!(
            (b.title.as_deref(), b.read_only, b.input_schema.get()),
            (Some("B"), true, r#"{"x": 1.50}"#)
        );
    }

    #[test]
    fn a_list_is_bounded_and_says_so() {
        let mut pages = Pages::new(2);
        let text = format!(r#"{{"tools":[{},{},{}],"nextCursor":"x"}}"#, tool("a"), tool("b"), tool("c"));
        assert_eq!(pages.add(&page(&text)).unwrap(), None);
        let listed = pages.finish();
        assert_eq!(listed.list.tools.len(), 2);
        assert!(listed.list.dropped[0].1.contains("more than 2"));
    }

    #[test]
    fn pages_that_go_in_a_circle_are_an_error() {
        let mut pages = Pages::new(10);
        let one = page(&format!(r#"{{"tools":[{}],"nextCursor":"x"}}"#, tool("a")));
        assert_eq!(pages.add(&one).unwrap().as_deref(), Some("x"));
        assert!(matches!(pages.add(&one), Err(Error::Protocol(_))));
        assert!(matches!(
            Pages::new(10).add(&page(r#"{"tools":[],"nextCursor":"x"}"#)),
            Err(Error::Protocol(_))
        ));
    }

    #[test]
    fn age_and_scope_are_those_of_the_most_careful_page() {
        for (first, second, age, public) in [
            ("", "", None, false),
            (r#","ttlMs":0,"cacheScope":"public""#, r#","cacheScope":"public""#, Some(0), true),
            (r#","ttlMs":5000,"cacheScope":"public""#, r#","ttlMs":1500.5"#, Some(1500), false),
            (r#","ttlMs":1e300"#, "", Some(24 * 3600 * 1000), false),
            (r#","ttlMs":-5"#, "", Some(0), false),
            (r#","ttlMs":"soon""#, "", None, false),
        ] {
            let mut pages = Pages::new(10);
            pages.add(&page(&format!(r#"{{"tools":[{}],"nextCursor":"x"{first}}}"#, tool("a")))).unwrap();
            pages.add(&page(&format!(r#"{{"tools":[{}]{second}}}"#, tool("b")))).unwrap();
            let listed = pages.finish();
            assert_eq!((listed.age.map(|a| a.as_millis()), listed.public), (age, public), "{first} {second}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(text in "[\\[\\]{}\",:a-z0-9 -]{0,60}") {
            let _ = Pages::new(3).add(&Bytes::from(format!(r#"{{"tools":[{text}]}}"#)));
        }
    }
}
