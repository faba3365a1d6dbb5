//! What can come out, whatever goes in.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Every opening tag that may come out, without its attributes.
const TAGS: &[&str] = &[
    "p",
    "h3",
    "h4",
    "h5",
    "blockquote",
    "pre",
    "code",
    "ul",
    "ol",
    "li",
    "div",
    "table",
    "tr",
    "th",
    "td",
    "em",
    "strong",
    "del",
    "a",
    "br",
    "hr",
];

/// Reads HTML as strictly as our writer writes it; the names of all tags, or what is wrong.
fn check(html: &str) -> Result<Vec<String>, String> {
    let mut open: Vec<&str> = Vec::new();
    let mut names = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        let (text, from) = rest.split_at(at);
        if text.contains(['>', '"', '\'']) {
            return Err(format!("unescaped: {text:?}"));
        }
        let end = from.find('>').ok_or("a tag without an end")?;
        let tag = &from[1..end];
        rest = &from[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("</{name}> ends nothing"));
            }
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        if !TAGS.contains(&name) {
            return Err(format!("<{name}>"));
        }
        names.push(name.to_owned());
        check_attributes(name, attributes)?;
        if !matches!(name, "br" | "hr") {
            open.push(name);
        }
    }
    if open.is_empty() && !rest.contains(['>', '"']) {
        Ok(names)
    } else {
        Err(format!("left open: {open:?}"))
    }
}

fn check_attributes(tag: &str, mut rest: &str) -> Result<(), String> {
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").ok_or_else(|| format!("attribute {rest:?}"))?;
        let (value, after) = after.split_once('"').ok_or("an attribute without an end")?;
        let is_allowed = match (tag, name) {
            ("a", "href") => {
                ["http://", "https://", "mailto:"].iter().any(|scheme| value.starts_with(scheme))
            }
            ("a", "title") => true,
            ("a", "target") => value == "_blank",
            ("a", "rel") => value == REL,
            ("a", "class") => value == "image",
            ("pre", "data-language") => value.bytes().all(|byte| byte.is_ascii_graphic()),
            ("ol", "start") => value.parse::<u64>().is_ok(),
            ("div", "class") => value == "table",
            ("th" | "td", "class") => matches!(value, "right" | "center"),
            _ => false,
        };
        if !is_allowed {
            return Err(format!("<{tag} {name}=\"{value}\">"));
        }
        rest = after.trim_start();
    }
    Ok(())
}

#[test]
fn ordinary_markdown_looks_as_it_should() {
    for (markdown, expect) in [
        (
            "# A\n\nb *c* **d** ~~e~~ `f<`",
            "<h3>A</h3>\n<p>b <em>c</em> <strong>d</strong> <del>e</del> <code>f&lt;</code></p>\n",
        ),
        ("- [x] a\n- [ ] b", "<ul>\n<li>☑ a</li>\n<li>☐ b</li>\n</ul>\n"),
        ("3. a", "<ol start=\"3\">\n<li>a</li>\n</ol>\n"),
        ("```rust ignore\na < b\n```", "<pre data-language=\"rust\"><code>a &lt; b\n</code></pre>\n"),
        ("```\"><x\na\n```", "<pre><code>a\n</code></pre>\n"),
        (
            "|a|b|\n|-|-:|\n|1|2|",
            "<div class=\"table\"><table>\n<tr><th>a</th><th class=\"right\">b</th></tr>\n<tr><td>1</td><td class=\"right\">2</td></tr>\n</table></div>\n",
        ),
        ("a\nb  \nc\n\n---", "<p>a\nb<br>c</p>\n<hr>"),
        ("> a", "<blockquote>\n<p>a</p>\n</blockquote>\n"),
        ("snake_case_word and 2 * 3", "<p>snake_case_word and 2 * 3</p>\n"),
        ("a[^1]\n\n[^1]: b c", "<p>a[^1]</p>\n<p>[^1]: b c</p>\n"),
    ] {
        assert_eq!(html(markdown).replace("<blockquote><p>", "<blockquote>\n<p>"), expect, "{markdown:?}");
    }
}

#[test]
fn html_is_text() {
    for (markdown, expect) in [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a <b onclick=\"x\">c</b>", "a &lt;b onclick=&quot;x&quot;&gt;c&lt;/b&gt;"),
        ("<!-- a -->", "&lt;!-- a --&gt;"),
        ("<div>\n\n*a*\n\n</div>", "<em>a</em>"),
        ("&lt;script&gt; &#60;b", "&lt;script&gt; &lt;b"),
    ] {
        let html = html(markdown);
        assert!(html.contains(expect), "{markdown}: {html}");
        check(&html).unwrap();
    }
}

#[test]
fn links_lead_to_the_web_and_to_mail_only() {
    let link = |url: &str| format!("<a href=\"{url}\" title=\"{url}\" target=\"_blank\" rel=\"{REL}\">");
    for (markdown, url) in [
        ("[a](https://a.example/b)", "https://a.example/b"),
        ("[a](HTTPS://a.example)", "https://a.example/"),
        ("<https://a.example>", "https://a.example/"),
        ("[a](mailto:a@b.example)", "mailto:a@b.example"),
        ("[a](https://a.example/\"onclick=x)", "https://a.example/%22onclick=x"),
        ("see https://a.example/b_c_d?e=1&f=2.", "https://a.example/b_c_d?e=1&amp;f=2"),
        ("(https://a.example/b)", "https://a.example/b"),
        ("*https://a.example*", "https://a.example/"),
    ] {
        let html = html(markdown);
        assert_eq!(html.matches("<a ").count(), 1, "{markdown}: {html}");
        assert!(html.contains(&link(url)), "{markdown}: {html}");
        check(&html).unwrap();
    }
    for markdown in [
        "[a](javascript:alert(1))",
        "[a](JaVaScRiPt:alert(1))",
        "[a](&#106;avascript:alert(1))",
        "[a](java\u{ad}script:alert(1))",
        "[a]( \u{1}javascript:alert(1))",
        "[a](data:text/html;base64,PHNjcmlwdD4=)",
        "[a](vbscript:x)",
        "[a](file:///etc/passwd)",
        "[a](blob:https://a.example/x)",
        "[a](//evil.example)",
        "[a](/account)",
        "[a](?x)",
        "[a](#x)",
        "[a](https://)",
        "[a](https://bank.example@evil.example/)",
        "<javascript:alert(1)>",
        "[a][b]\n\n[b]: javascript:alert(1)",
        "![a](javascript:alert(1))",
        "![a](data:image/png;base64,iVBORw0KGgo=)",
        "https://",
    ] {
        let html = html(markdown);
        assert!(!html.contains("<a ") && !html.contains("href"), "{markdown}: {html}");
        check(&html).unwrap();
    }
}

#[test]
fn images_are_links_that_say_where_they_are() {
    let html = html("![a *b* <i>](https://pictures.example/p.png?secret=1 \"t\")");
    assert!(html.contains(">image: a b &lt;i&gt; (pictures.example)</a>"), "{html}");
    assert!(!html.contains("<img") && !html.contains(" src"));
    check(&html).unwrap();
    let inside = super::html("[![b](https://pictures.example/p.png)](https://a.example/)");
    assert_eq!(inside.matches("<a ").count(), 1, "{inside}");
    assert!(inside.contains("href=\"https://a.example/\"") && inside.contains("image: b (pictures.example)"));
    check(&inside).unwrap();
}

#[test]
fn what_is_too_long_is_cut_and_said() {
    let html = html(&"a ".repeat(MAX_BYTES));
    assert!(html.len() < MAX_BYTES + 200 && html.contains("bytes not shown]"));
    // One long address, used very often.
    let grown = format!("[a]: https://a.example/{}\n\n{}", "b".repeat(2000), "[a] ".repeat(200_000));
    let grown = super::html(&grown);
    assert!(grown.len() < MAX_HTML_BYTES + (1 << 20), "{}", grown.len());
    check(&grown).unwrap();
}

#[test]
fn what_comes_later_leaves_finished_elements_alone() {
    let text = "# A\n\none\n\n- two\n- three\n\n```\nfour\n```\n\nfive";
    let all = elements(text);
    assert_eq!(all.len(), 5);
    let cut = elements(&text[..text.find("five").unwrap() + 2]);
    assert_eq!((cut.len(), &cut[..4]), (5, &all[..4]));
}

#[test]
fn no_text_takes_long() {
    let size = 1 << 18;
    for unit in [
        "> ",
        "- ",
        "* a\n  ",
        "[",
        "![",
        "[a](",
        "[[a]",
        "*a _b ",
        "**a",
        "`",
        "` ``",
        "<",
        "<a ",
        "<!--",
        "&",
        "|a",
        "|-|\n|",
        "\n\n1. a",
        "#",
        "~~a",
        "http://",
        "[a]: b\n",
        "\\",
        "(",
        "_*",
        "<?",
        "<![CDATA[",
        "~~~a\n",
        "\t- ",
        "a**b",
        "x\n===\n",
        "![a](b \"",
        "https://a.example/(",
    ] {
        let text = unit.repeat(size / unit.len());
        let begun = Instant::now();
        let html = html(&text);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(4), "{unit:?} took {took:?}");
        check(&html).unwrap_or_else(|problem| panic!("{unit:?}: {problem}"));
    }
    let nested: String = (0..600).map(|depth| format!("{}- a\n", "  ".repeat(depth))).collect();
    let wide = format!("|{}\n|{}\n{}", "a|".repeat(2000), "-|".repeat(2000), "|a\n".repeat(20_000));
    for text in [nested, wide] {
        let begun = Instant::now();
        check(&html(&text)).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}

proptest! {
    #[test]
    fn nothing_but_the_allowed_comes_out(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("<script>".to_owned()), Just("<img src=x onerror=alert(1)>".to_owned()),
                Just("javascript:".to_owned()), Just("data:text/html,".to_owned()), Just("](".to_owned()),
                Just("[".to_owned()), Just("![".to_owned()), Just(")".to_owned()), Just("\n".to_owned()),
                Just("\n\n".to_owned()), Just("```".to_owned()), Just("`".to_owned()), Just("> ".to_owned()),
                Just("- ".to_owned()), Just("|".to_owned()), Just("|-|\n".to_owned()), Just("\"".to_owned()),
                Just("'".to_owned()), Just("https://a.example/".to_owned()), Just("*".to_owned()),
                Just("<!--".to_owned()), Just("]]>".to_owned()), Just("&#60;".to_owned()), Just("\\".to_owned()),
                Just("<a href=\"".to_owned()), Just("    ".to_owned()), Just("<div>\n".to_owned()),
                "[ -~]{0,6}", "\\PC{0,4}",
            ],
            0..40,
        ),
    ) {
        let markdown = pieces.concat();
        let found = check(&html(&markdown));
        prop_assert!(found.is_ok(), "{:?}: {:?}", found, html(&markdown));
    }
}
