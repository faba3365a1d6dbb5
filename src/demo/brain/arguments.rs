//! Filling a tool's arguments from the part of the prompt that asks for it, led by the tool's JSON schema.

use serde_json::{Map, Value, json};

use super::decide::Tool;
use super::extract::{self, Number};
use super::words;

const MAX_PROPERTIES: usize = 64;
const MAX_DEPTH: u32 = 3;

/// What a text argument is about, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Place,
    Person,
    Address,
    Email,
    Day,
    Expression,
    /// Free text: what is left of the prompt.
    Text,
}

/// What is left to be given to arguments.
struct Source<'a> {
    segment: &'a str,
    matched: &'a [String],
    numbers: Vec<Number>,
    quotations: Vec<String>,
}

/// The arguments of a call to `tool`, and the required ones for which `segment` holds nothing.
pub fn fill(tool: &Tool, segment: &str, matched: &[String]) -> (Map<String, Value>, Vec<String>) {
    let mut source = Source {
        segment,
        matched,
        numbers: extract::numbers(segment),
        quotations: extract::quotations(segment),
    };
    object(&tool.parameters, &tool.parameters, &mut source, 0)
}

fn object(
    root: &Value,
    schema: &Value,
    source: &mut Source<'_>,
    depth: u32,
) -> (Map<String, Value>, Vec<String>) {
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let required: Vec<&str> = match schema.get("required").and_then(Value::as_array) {
        Some(names) => names.iter().filter_map(Value::as_str).collect(),
        None => Vec::new(),
    };
    let fields: Vec<Field<'_>> = properties
        .iter()
        .take(MAX_PROPERTIES)
        .map(|(name, schema)| Field::read(root, name, schema, required.contains(&name.as_str())))
        .collect();
    let mut found: Vec<Option<Value>> = fields.iter().map(|field| explicit(field, source)).collect();
    numbers(&fields, &mut found, source);
    // Required texts choose first: a quotation belongs to them.
    for wanted in [true, false] {
        for (field, found) in fields.iter().zip(&mut found) {
            if found.is_none() && field.is_required == wanted {
                *found = other(root, field, source, depth);
            }
        }
    }
    let mut arguments = Map::new();
    let mut missing = Vec::new();
    for (field, found) in fields.iter().zip(found) {
        match found {
            Some(value) => _ = arguments.insert(field.name.to_owned(), value),
            None if field.is_required => missing.push(field.name.to_owned()),
            None => {}
        }
    }
    // A demanded call is made even so; an empty text is valid JSON of the right type.
    for name in &missing {
        arguments.insert(name.clone(), json!(""));
    }
    (arguments, missing)
}

/// One property of a schema.
struct Field<'a> {
    name: &'a str,
    schema: &'a Value,
    kind: &'a str,
    is_required: bool,
}

impl<'a> Field<'a> {
    fn read(root: &'a Value, name: &'a str, schema: &'a Value, is_required: bool) -> Self {
        let schema = plain(root, schema);
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(Value::Array(kinds)) => {
                kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("string")
            }
            _ if schema.get("properties").is_some() => "object",
            _ if schema.get("items").is_some() => "array",
            _ => "string",
        };
        Field { name, schema, kind, is_required }
    }

    fn is_number(&self) -> bool {
        matches!(self.kind, "integer" | "number") && self.schema.get("enum").is_none()
    }

    /// Whether the schema allows the number.
    fn admits(&self, value: f64) -> bool {
        let bound = |key: &str| self.schema.get(key).and_then(Value::as_f64);
        (self.kind == "number" || value.fract() == 0.0)
            && bound("minimum").is_none_or(|least| value >= least)
            && bound("maximum").is_none_or(|most| value <= most)
    }

    fn as_number(&self, value: f64) -> Value {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and far within the range")]
        if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
    }

    fn describing_words(&self) -> Vec<String> {
        let description = self.schema.get("description").and_then(Value::as_str).unwrap_or_default();
        words::content(description, 30)
    }
}

/// Follows one local `$ref` and looks into the first alternative that is not `null`.
fn plain<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    for _ in 0..MAX_DEPTH {
        let reference = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
        let alternatives = ["anyOf", "oneOf"].into_iter().find_map(|key| schema.get(key)?.as_array());
        let first = alternatives.into_iter().flatten().find(|one| one.get("type") != Some(&json!("null")));
        match reference.and_then(|path| root.pointer(path)).or(first) {
            Some(inner) => schema = inner,
            None => break,
        }
    }
    schema
}

/// `name=value` and `name: value` in the prompt, and words of an enumeration.
fn explicit(field: &Field<'_>, source: &Source<'_>) -> Option<Value> {
    if let Some(constant) = field.schema.get("const") {
        return Some(constant.clone());
    }
    if let Some(options) = field.schema.get("enum").and_then(Value::as_array) {
        let spoken: Vec<String> = words::split(source.segment).into_iter().map(words::stem).collect();
        let is_spoken = |option: &&Value| {
            let text = option.as_str().map_or_else(|| option.to_string(), str::to_owned);
            let words: Vec<String> = words::split(&text).into_iter().map(words::stem).collect();
            !words.is_empty() && spoken.windows(words.len()).any(|window| window == words)
        };
        return options.iter().take(200).find(is_spoken).cloned();
    }
    let text = extract::labelled(source.segment, field.name)?;
    match field.kind {
        "string" => Some(json!(text)),
        "integer" | "number" => {
            text.parse().ok().filter(|value| field.admits(*value)).map(|value| field.as_number(value))
        }
        "boolean" => text.parse::<bool>().ok().map(Value::Bool),
        _ => None,
    }
}

/// Gives the prompt's numbers to the number properties: by name, by description, then by order.
fn numbers(fields: &[Field<'_>], found: &mut [Option<Value>], source: &mut Source<'_>) {
    let only_numbers = fields.iter().all(Field::is_number);
    for pass in 0..3 {
        for (field, found) in fields.iter().zip(found.iter_mut()) {
            if !field.is_number() || found.is_some() {
                continue;
            }
            let words = match pass {
                0 => words::content(field.name, 8),
                1 => field.describing_words(),
                _ if field.is_required || only_numbers => Vec::new(),
                _ => continue,
            };
            let distance = |number: &Number| match pass {
                2 => Some(0),
                _ => number.distance_to(&words),
            };
            let fitting = source.numbers.iter().enumerate().filter(|(_, number)| field.admits(number.value));
            let nearest = fitting.filter_map(|(at, number)| Some((distance(number)?, at))).min();
            if let Some((_, at)) = nearest {
                *found = Some(field.as_number(source.numbers.remove(at).value));
            }
        }
    }
}

fn other(root: &Value, field: &Field<'_>, source: &mut Source<'_>, depth: u32) -> Option<Value> {
    let fallback = || field.schema.get("default").cloned();
    if !field.is_required && (field.is_number() || field.schema.get("enum").is_some()) {
        return None;
    }
    if let Some(options) = field.schema.get("enum").and_then(Value::as_array) {
        return fallback().or_else(|| options.first().cloned());
    }
    match field.kind {
        "integer" | "number" => {
            let least = field.schema.get("minimum").and_then(Value::as_f64).unwrap_or(1.0);
            fallback().or_else(|| Some(field.as_number(least.ceil())))
        }
        "boolean" => {
            let words = words::content(field.name, 4);
            let spoken = words::content(source.segment, 400);
            let is_spoken = !words.is_empty() && words.iter().all(|word| spoken.contains(word));
            match (is_spoken, field.is_required) {
                (true, _) => Some(Value::Bool(true)),
                (false, true) => fallback().or(Some(Value::Bool(false))),
                (false, false) => None,
            }
        }
        "array" if field.is_required => Some(array(root, field, source)),
        "object" if field.is_required && depth < MAX_DEPTH => {
            Some(Value::Object(object(root, field.schema, source, depth + 1).0))
        }
        "string" => text(field, source).map(Value::String),
        _ => None,
    }
}

fn array(root: &Value, field: &Field<'_>, source: &mut Source<'_>) -> Value {
    let nothing = json!({});
    let items = field.schema.get("items").unwrap_or(&nothing);
    let item = Field::read(root, field.name, items, true);
    if item.is_number() {
        let numbers: Vec<Number> = source.numbers.drain(..).collect();
        return numbers
            .iter()
            .filter(|number| item.admits(number.value))
            .map(|n| item.as_number(n.value))
            .collect();
    }
    if item.kind != "string" {
        return json!([]);
    }
    let quotations: Vec<String> = source.quotations.drain(..).collect();
    if quotations.is_empty() {
        return text(&item, source).into_iter().collect();
    }
    json!(quotations)
}

fn text(field: &Field<'_>, source: &mut Source<'_>) -> Option<String> {
    let segment = source.segment;
    let kind = kind(field);
    let places = ["in", "at", "near", "for", "of", "from", "to"];
    let people = ["to", "for", "by", "named", "called", "with", "of"];
    let certain = match kind {
        Kind::Address => extract::url(segment),
        Kind::Email => extract::email(segment),
        Kind::Day => extract::day(segment),
        Kind::Expression => extract::expression(segment),
        Kind::Place => extract::name_after(segment, &places),
        Kind::Person => extract::name_after(segment, &people),
        Kind::Text => None,
    };
    let takes_quotation = matches!(kind, Kind::Place | Kind::Person | Kind::Expression | Kind::Text);
    if certain.is_some() {
        return certain;
    }
    if takes_quotation && !source.quotations.is_empty() {
        return Some(source.quotations.remove(0));
    }
    if !field.is_required {
        return None;
    }
    match kind {
        Kind::Place => extract::any_name(segment).or_else(|| extract::words_after(segment, &places[..3])),
        Kind::Person => extract::any_name(segment),
        Kind::Text => Some(extract::remainder(segment, source.matched)).filter(|rest| !rest.is_empty()),
        Kind::Address | Kind::Email | Kind::Day | Kind::Expression => None,
    }
}

fn kind(field: &Field<'_>) -> Kind {
    let name = words::content(field.name, 8);
    let is = |known: &[&str]| known.iter().any(|word| name.contains(&words::stem(word)));
    if is(&["url", "uri", "link", "href"]) || field.schema.get("format") == Some(&json!("uri")) {
        Kind::Address
    } else if is(&["email", "mail"]) || field.schema.get("format") == Some(&json!("email")) {
        Kind::Email
    } else if is(&["date", "day"]) {
        Kind::Day
    } else if is(&["expression", "formula", "equation"]) {
        Kind::Expression
    } else if is(&[
        "city",
        "location",
        "place",
        "timezone",
        "zone",
        "country",
        "town",
        "region",
        "address",
        "destination",
    ]) {
        Kind::Place
    } else if is(&["recipient", "person", "user", "username", "name", "author", "owner"]) {
        Kind::Person
    } else {
        Kind::Text
    }
}
