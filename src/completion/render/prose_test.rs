use super::*;
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser};

const BLOCK: &str = "<details><summary>ours</summary>\n\nprose\n\n</details>\n\n";

fn broken(prose: &str) -> String {
    let mut state = Prose::default();
    state.push(prose);
    state.break_block()
}

/// Whether the block's first line is HTML of the outermost level.
fn stands_alone(markdown: &str) -> bool {
    let mut depth = 0_usize;
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
        match event {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth -= 1,
            Event::Html(text) if text.trim_end() == "<details><summary>ours</summary>" => return depth == 1,
            _ => {}
        }
    }
    false
}

#[test]
fn what_is_open_is_closed_and_nothing_more() {
    for (prose, expect) in [
        ("", ""),
        ("Hello", "\n\n"),
        ("Hello\n", "\n"),
        ("Hello\n\n", ""),
        ("Hello\r\n\r\n", ""),
        ("Hello\n \t", "\n"),
        ("```py\nx = 1", "\n```\n\n"),
        ("```py\nx = 1\n```", "\n\n"),
        ("```py\nx = 1\n```\n", "\n"),
        ("~~~~\n~~~\n```\n", "~~~~\n\n"),
        ("  ```\ncode\n", "  ```\n\n"),
        ("- item\n  ```\n  code\n", "  ```\n\n"),
        ("- ```\n  code\n", "  ```\n\n"),
        ("- ```\nno longer code\n", "\n"),
        ("1. a\n   - b\n     ~~~\n     code", "\n     ~~~\n\n"),
        ("> ```\n> code\n", "\n"),
        ("    ```\n    code\n", "\n"),
        ("`` ``` `` is a fence\n", "\n"),
        ("``` not `a` fence\n", "\n"),
        ("<!-- a note\n\n", "-->\n\n"),
        ("<!-- a note -->\n", "\n"),
        ("<pre>\n\n```\n</PRE>\n", "\n"),
        ("<div>\n```\n</div>\n\n", ""),
        ("text <!-- in a line\n", "\n"),
        (" - item\n   <div>\n```", "\n```\n\n"),
        ("1. one\n10. ~~~\n    <?php\n", "    ~~~\n\n"),
        ("> quote\n2) two\n   ```\nover", "\n\n"),
        ("-\n\n  ```\n1", "\n  ```\n\n"),
        ("title\n===\n</pre>\n```\n", "\n"),
    ] {
        assert_eq!(broken(prose), expect, "{prose:?}");
        assert!(stands_alone(&format!("{prose}{expect}{BLOCK}")), "{prose:?}");
    }
}

#[test]
fn a_block_after_a_block_needs_nothing() {
    let mut state = Prose::default();
    state.push("```\n");
    assert_eq!(state.break_block(), "```\n\n");
    state.block_sent();
    assert_eq!(state.break_block(), "");
    state.push("more");
    assert_eq!(state.break_block(), "\n\n");
}

#[test]
fn endless_lines_take_bounded_memory() {
    let mut state = Prose::default();
    for _ in 0..1000 {
        state.push(&"é".repeat(1000));
    }
    assert!(state.line.capacity() < 4 * LINE_BYTES);
    assert_eq!(state.break_block(), "\n\n");
}

fn markdown() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just(""),
        Just("text"),
        Just("```"),
        Just("```rust"),
        Just("````"),
        Just("~~~"),
        Just("- item"),
        Just("-"),
        Just("* ```"),
        Just("1. one"),
        Just("2) two"),
        Just("10. ~~~ info"),
        Just("> quote"),
        Just("> ```"),
        Just("# heading"),
        Just("---"),
        Just("==="),
        Just("* * *"),
        Just("<div>"),
        Just("</div>"),
        Just("<b>"),
        Just("<b> bold"),
        Just("<!-- open"),
        Just("close -->"),
        Just("<pre>"),
        Just("</pre>"),
        Just("<?php"),
        Just("`code"),
        Just("| a | b |"),
        Just("|---|---|"),
        Just("[a]: <"),
        Just("\\"),
    ];
    let indent = prop_oneof![4 => Just(""), 1 => Just(" "), 2 => Just("  "), 1 => Just("   "), 1 => Just("    "), 1 => Just("      ")];
    // No carriage return alone: the parser here does not take it for the end of a line everywhere, others do.
    let end = prop_oneof![8 => Just("\n"), 1 => Just("\r\n"), 1 => Just(" \n")];
    proptest::collection::vec((indent, line, end), 0..10).prop_map(|lines| {
        lines.into_iter().map(|(indent, line, end)| format!("{indent}{line}{end}")).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_block_stands_alone_after_any_prose(prose in markdown(), cut in any::<prop::sample::Index>()) {
        let prose = &prose[..cut.index(prose.len() + 1)];
        let sent = broken(prose);
        prop_assert!(stands_alone(&format!("{prose}{sent}{BLOCK}")), "{prose:?} + {sent:?}");
    }

    #[test]
    fn any_split_of_the_prose_gives_the_same(prose in markdown(), cut in any::<prop::sample::Index>()) {
        let (a, b) = prose.split_at(cut.index(prose.len() + 1));
        let mut state = Prose::default();
        state.push(a);
        state.push(b);
        prop_assert_eq!(state.break_block(), broken(&prose));
    }
}
