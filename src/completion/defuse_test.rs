use proptest::prelude::*;

use super::*;

fn links() -> OwnLinks {
    OwnLinks::new("https://gate.example")
}

#[test]
fn every_spelling_of_a_login_link_is_broken() {
    for text in [
        "https://gate.example/connect/abc",
        "HTTPS://GATE.EXAMPLE/CONNECT/abc",
        "[log in](https://gate.example/connect/abc)",
        "<https://gate.example/connect/abc>",
        "gate.example/connect/abc",
        "//gate.example/connect/abc",
        "https://gate.example:443/connect/abc",
        "https://user:pw@gate.example/connect/abc",
        "https://x@gate.example//connect/abc",
        "https://gate.example./connect/abc",
        "https://gate.example/x/../connect/abc",
        "https://gate.example/./connect/abc",
        r"https:\\gate.example\connect\abc",
        r"https:\/\/gate.example\/connect\/abc",
        r"https:\u002f\u002fgate.example\u002fconnect\u002fabc",
        "https&#58;&#47;&#x2F;gate&#46;example&#47;connect&#47;abc",
        "https://gate&period;example&sol;connect&sol;abc",
        "https&amp;#58;//gate.example&amp;#47;connect/abc",
        "https%3A%2F%2Fgate.example%2Fconnect%2Fabc",
        "https%253A%252F%252Fgate.example%252Fconnect%252Fabc",
        "https://gate.example/%63onnect/abc",
        "https://gate%2eexample/connect/abc",
        "https://ｇate.example/connect/abc",
        "https://gate。example/connect/abc",
        "https://gate.exam\u{200b}ple/conn\u{ad}ect/abc",
        "https://redirect.example/?to=https://gate.example/connect/abc",
        "https://redirect.example/?to=https%3A%2F%2Fgate.example%2Fconnect%2Fabc",
        r"https\:\/\/gate\.example\/connect/abc",
    ] {
        let shown = links().broken_in(text).into_owned();
        assert!(shown.contains(BROKEN) && !shown.contains("abc"), "{text} -> {shown}");
        let around = format!("before {text} after");
        let shown = links().broken_in(&around).into_owned();
        assert!(shown.starts_with("before ") && shown.ends_with(" after"), "{shown}");
    }
}

#[test]
fn other_texts_are_left_as_they_are() {
    for text in [
        "",
        "connect",
        "POST /connect/token",
        "https://id.example/connect/authorize?x=https%3A%2F%2Fother.example",
        "https://gate.example/docs",
        "gate.example connects",
        "https://gate.example.org/connect/abc",
        "https://notgate.example.com/connect/abc",
        "100% & more \\ than /that/",
        r"C:\connect\file",
        "größer/kleiner",
    ] {
        assert_eq!(links().broken_in(text), text);
    }
}

#[test]
fn on_one_machine_the_port_decides() {
    let local = OwnLinks::new("http://127.0.0.1:8787");
    for text in [
        "http://127.0.0.1:8787/connect/abc",
        "http://localhost:8787/connect/abc",
        "http://[::1]:8787/connect/abc",
        "localhost:8787/connect/abc",
        "http://2130706433:8787/connect/abc",
        "http://0x7f.1:8787/connect/abc",
    ] {
        assert!(local.broken_in(text).contains(BROKEN), "{text}");
    }
    for text in ["http://127.0.0.1:9999/connect/abc", "http://localhost/connect/abc"] {
        assert_eq!(local.broken_in(text), text);
    }
}

#[test]
fn a_link_beside_what_no_value_can_hold_is_removed() {
    let raw = r#"{"structuredContent":{"a":"https:\/\/gate.example\/connect\/abc","b":"\ud800","c":1e400}}"#;
    let broken = links().broken_in_result(ToolResult::parse(raw.as_bytes()).unwrap());
    let structured = broken.structured.unwrap();
    assert!(!structured.get().contains("gate.example"), "{structured:?}");
    assert!(structured.get().contains("\"b\""), "{structured:?}");
}

#[test]
fn structured_content_stays_json() {
    let json = r#"{"a":["\"https:\/\/gate.example\/connect\/abc\""],"https://gate.example/connect/k":1.50}"#;
    let result = ToolResult { structured: Some(CleanJson::read(json).unwrap()), ..ToolResult::default() };
    let broken = links().broken_in_result(result).structured.unwrap();
    let value: Value = serde_json::from_str(broken.get()).unwrap();
    assert!(!broken.get().contains("gate.example"), "{broken:?}");
    assert!(value["a"][0].as_str().unwrap().contains(BROKEN));
}

#[test]
fn links_of_earlier_answers_do_not_reach_the_model() {
    let messages = br#"{"content":"[a](https://gate.example/connect/flow_1-x) and [b](https://gate.example/connect/2)\n"}"#;
    let kept = String::from_utf8(links().forgotten_in(messages.to_vec())).unwrap();
    assert_eq!(
        kept,
        r#"{"content":"[a](https://gate.example/connect/…) and [b](https://gate.example/connect/…)\n"}"#
    );
    let plain = br#"{"content":"https://gate.example/"}"#.to_vec();
    assert_eq!(links().forgotten_in(plain.clone()), plain);
}

#[test]
fn a_link_in_a_very_long_run_is_found() {
    for before in [0, 8_000, 8_190, 16_380, 16_384, 40_000] {
        let text = format!("{}https://gate.example/connect/abc{}", "x/".repeat(before), "/y".repeat(20_000));
        assert!(!links().broken_in(&text).contains("gate.example/connect"), "{before}");
    }
}

proptest! {
    #[test]
    fn any_text_is_survived_and_nothing_is_broken_twice(text in "([%&#;\\\\/a-z0-9\u{ff47}é \"(]|gate\\.example|/connect/|%2f|&#47;){0,40}") {
        let once = links().broken_in(&text).into_owned();
        prop_assert_eq!(links().broken_in(&once), once.as_str());
    }

    #[test]
    fn percent_encoded_at_any_place_it_is_found(which in proptest::collection::vec(any::<bool>(), 32)) {
        let link = "https://gate.example/connect/abc";
        let encoded: String = link
            .chars()
            .zip(which)
            .map(|(c, encode)| if encode { format!("%{:02X}", u32::from(c)) } else { c.to_string() })
            .collect();
        prop_assert!(links().broken_in(&encoded).contains(BROKEN), "{}", encoded);
    }
}
