//! What prompts and schemas become.

use serde_json::json;

use super::*;

fn tool(name: &str, description: &str, parameters: Value) -> Tool {
    Tool { name: name.to_owned(), description: description.to_owned(), parameters }
}

/// The demo server's tools under the names the gateway gives them, beside two foreign ones.
fn tools(label: &str) -> Vec<Tool> {
    let listed = crate::demo::tools::list(true);
    let mut tools: Vec<Tool> = listed
        .iter()
        .map(|one| {
            let name = format!("{label}{}", one["name"].as_str().unwrap());
            tool(&name, one["description"].as_str().unwrap(), one["inputSchema"].clone())
        })
        .collect();
    tools.push(tool(
        "get_weather",
        "Get the weather of a city",
        json!({
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
            "required": ["city"],
        }),
    ));
    tools.push(tool(
        "send_message",
        "Send a message to a person",
        json!({
            "type": "object",
            "properties": {"recipient": {"type": "string"}, "text": {"type": "string"}, "urgent": {"type": "boolean"}},
            "required": ["recipient", "text"],
        }),
    ));
    tools
}

fn ask(tools: &[Tool], prompt: &str, choice: &Choice, parallel: bool) -> Decision {
    decide(tools, &[json!({"role": "user", "content": prompt})], choice, parallel)
}

/// The calls as `name {arguments}`, without the label.
fn calls(decision: &Decision, label: &str) -> Vec<String> {
    match decision {
        Decision::Say(_) => Vec::new(),
        Decision::Call(calls) => calls
            .iter()
            .map(|call| {
                let name = call.name.strip_prefix(label).unwrap_or(&call.name);
                format!("{name} {}", Value::Object(call.arguments.clone()))
            })
            .collect(),
    }
}

#[test]
fn prompts_become_exactly_the_calls_they_ask_for() {
    let cases: &[(&str, &[&str])] = &[
        (
            "Roll 2 dice and tell me the time in Tokyo",
            &[r#"roll_dice {"count":2}"#, r#"current_time {"place":"Tokyo"}"#],
        ),
        ("What time is it in New York?", &[r#"current_time {"place":"New York"}"#]),
        ("what time is it in tokyo", &[r#"current_time {"place":"tokyo"}"#]),
        (
            "Tell me the current time in Europe/Berlin, please.",
            &[r#"current_time {"place":"Europe/Berlin"}"#],
        ),
        ("Roll a die", &["roll_dice {}"]),
        ("Please roll three 20-sided dice.", &[r#"roll_dice {"count":3,"sides":20}"#]),
        ("roll 3d20", &[r#"roll_dice {"count":3,"sides":20}"#]),
        ("Rolling two dice with 12 sides would be nice", &[r#"roll_dice {"count":2,"sides":12}"#]),
        ("What's the weather in Paris?", &[r#"get_weather {"city":"Paris"}"#]),
        (
            "What's the weather in Paris in fahrenheit?",
            &[r#"get_weather {"city":"Paris","unit":"fahrenheit"}"#],
        ),
        (
            "What's the weather in São Paulo, and roll two dice.",
            &[r#"get_weather {"city":"São Paulo"}"#, r#"roll_dice {"count":2}"#],
        ),
        ("What is 12 * (3 + 4)?", &[r#"calculate {"expression":"12 * (3 + 4)"}"#]),
        ("How much is 3 plus 4", &[r#"calculate {"expression":"3 + 4"}"#]),
        (
            "Calculate 2^10 then draw a red circle",
            &[r#"calculate {"expression":"2^10"}"#, r#"draw {"shape":"circle","colour":"red"}"#],
        ),
        ("Search the notes for streaming and logins", &[r#"search_notes {"query":"streaming and logins"}"#]),
        ("What do the notes say about the fast path?", &[r#"search_notes {"query":"the fast path"}"#]),
        ("Do something slow for 2 seconds", &[r#"slow {"seconds":2}"#]),
        ("Call the tool that fails with “disk full”", &[r#"fail {"message":"disk full"}"#]),
        ("Let it fail, and then draw a ring.", &["fail {}", r#"draw {"shape":"ring"}"#]),
        ("Who am I?", &["whoami {}"]),
        (
            "Send a message to Bob saying \"lunch at noon, ok?\"",
            &[r#"send_message {"recipient":"Bob","text":"lunch at noon, ok?"}"#],
        ),
        ("call current_time with place=Oslo", &[r#"current_time {"place":"Oslo"}"#]),
        ("roll_dice count: 4 sides: 8", &[r#"roll_dice {"count":4,"sides":8}"#]),
        ("Hello!", &[]),
        ("Tell me a joke about cats and dogs", &[]),
        ("Say it three times", &[]),
        ("Translate this sentence into French", &[]),
        ("Explain in one paragraph what Rust is", &[]),
        ("", &[]),
    ];
    let mut wrong = Vec::new();
    for label in ["", "demo_", "server_1_", "mcp-example_"] {
        let tools = tools(label);
        for (prompt, expected) in cases {
            let made = calls(&ask(&tools, prompt, &Choice::Auto, true), label);
            if made != *expected {
                wrong.push(format!("{label} {prompt}: {made:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_single_labelled_tool_is_recognised() {
    for wanted in ["roll_dice", "current_time", "whoami"] {
        let mut only = tools("docs_");
        only.retain(|tool| tool.name.ends_with(wanted));
        let decision = ask(&only, "Who am I? Roll 2 dice and tell me the time in Tokyo", &Choice::Auto, true);
        assert_eq!(calls(&decision, "docs_").len(), 1, "{wanted}: {decision:?}");
    }
}

#[test]
fn one_clause_does_not_call_several_tools_for_the_same_words() {
    let schema =
        json!({"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]});
    let names = ["github_create_issue", "github_list_issues", "github_get_issue", "github_search_issues"];
    let tools: Vec<_> = names.map(|name| tool(name, "", schema.clone())).into();
    let decision = ask(&tools, "Search the issues for panics", &Choice::Auto, true);
    assert_eq!(calls(&decision, ""), [r#"github_search_issues {"query":"panics"}"#]);
}

#[test]
fn the_choice_of_the_request_is_obeyed() {
    let tools = tools("");
    let dice_and_time = "Roll 2 dice and tell me the time in Tokyo";
    assert!(matches!(ask(&tools, dice_and_time, &Choice::None, true), Decision::Say(_)));
    assert_eq!(calls(&ask(&tools, dice_and_time, &Choice::Auto, false), ""), [r#"roll_dice {"count":2}"#]);
    let time = Choice::Function("current_time".to_owned());
    assert_eq!(calls(&ask(&tools, dice_and_time, &time, true), ""), [r#"current_time {"place":"Tokyo"}"#]);
    assert_eq!(calls(&ask(&tools, "Hello", &time, true), ""), [r#"current_time {"place":""}"#]);
    assert_eq!(calls(&ask(&tools, "Hello", &Choice::Required, true), "").len(), 1);
    let unknown = Choice::Function("unknown".to_owned());
    assert!(matches!(ask(&tools, dice_and_time, &unknown, true), Decision::Say(_)));
}

#[test]
fn what_a_call_lacks_is_asked_for() {
    let Decision::Say(text) = ask(&tools(""), "What is the weather like?", &Choice::Auto, true) else {
        panic!("called without a city")
    };
    assert!(text.contains("`get_weather`") && text.contains("`city`"), "{text}");
}

#[test]
fn no_tool_is_called_twice_for_one_question_and_results_are_told() {
    let tools = tools("");
    let call = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
    let mut messages = vec![
        json!({"role": "user", "content": "Roll 2 dice and tell me the time in Tokyo"}),
        json!({"role": "assistant", "tool_calls": [call("a", "roll_dice")]}),
        json!({"role": "tool", "tool_call_id": "a", "content": "2 dice show\n```3``` and <b>5</b>"}),
    ];
    for choice in [Choice::Auto, Choice::Required] {
        let decision = decide(&tools, &messages, &choice, true);
        assert_eq!(calls(&decision, ""), [r#"current_time {"place":"Tokyo"}"#]);
    }
    messages.push(json!({"role": "assistant", "tool_calls": [call("b", "current_time")]}));
    messages.push(json!({"role": "tool", "tool_call_id": "b", "content": "It is late."}));
    for choice in [Choice::Auto, Choice::Required, Choice::Function("roll_dice".to_owned())] {
        let Decision::Say(text) = decide(&tools, &messages, &choice, true) else { panic!("called again") };
        assert!(text.contains("- `roll_dice` says: 2 dice show ʼʼʼ3ʼʼʼ and &lt;b>5"), "{text}");
        assert!(text.contains("- `current_time` says: It is late."), "{text}");
        assert!(text.ends_with(LABEL));
    }
}

#[test]
fn schemas_of_every_kind_get_arguments_of_their_type() {
    let foreign = tool(
        "book_trip",
        "Book a trip",
        json!({
            "type": "object",
            "$defs": {"Class": {"type": "string", "enum": ["economy", "first class"]}},
            "properties": {
                "destination": {"anyOf": [{"type": "null"}, {"type": "string"}]},
                "class": {"$ref": "#/$defs/Class"},
                "nights": {"type": ["integer", "null"], "minimum": 1},
                "budget": {"type": "number"},
                "flexible": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "contact": {"type": "object", "properties": {"email": {"type": "string"}}, "required": ["email"]},
                "version": {"const": 2},
            },
            "required": ["destination", "class", "nights", "budget", "flexible", "tags", "contact", "version"],
        }),
    );
    let prompt = "Book a trip to Lisbon for 3 nights in first class with a budget of 1200.50, tags 'sea' and 'food', mail ann@example.com.";
    let Decision::Call(made) = ask(&[foreign], prompt, &Choice::Auto, true) else { panic!("no call") };
    assert_eq!(
        Value::Object(made[0].arguments.clone()),
        json!({
            "destination": "Lisbon", "class": "first class", "nights": 3, "budget": 1200.5, "flexible": false,
            "tags": ["sea", "food"], "contact": {"email": "ann@example.com"}, "version": 2,
        })
    );
}

proptest::proptest! {
    #[test]
    fn no_prompt_and_no_schema_panics(prompt in "\\PC{0,80}|[a-zA-Z0-9 '\"“”=:.,?*+()-]{0,80}", schema in "\\PC{0,40}") {
        let mut tools = tools("demo_");
        let schema: Value = serde_json::from_str(&schema).unwrap_or(json!({"properties": {schema.as_str(): {"type": schema}}, "required": [schema]}));
        tools.push(tool(&prompt, &prompt, schema));
        for choice in [Choice::Auto, Choice::Required, Choice::Function(prompt.clone())] {
            ask(&tools, &prompt, &choice, true);
        }
    }
}
