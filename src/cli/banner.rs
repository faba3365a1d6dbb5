//! The first lines on stderr: where it listens, for whom, with which providers, and one line to try.

use crate::server::Started;

/// The greeting. It ends with a command that works when it is pasted into a shell.
pub fn banner(started: &Started) -> String {
    let Started { addr, public_url, local, .. } = started;
    let own_url = format!("http://{addr}");
    let mut lines = vec![if *public_url == own_url {
        format!("toolgate {} listens on {own_url}", env!("CARGO_PKG_VERSION"))
    } else {
        format!("toolgate {} listens on {own_url}, reached as {public_url}", env!("CARGO_PKG_VERSION"))
    }];
    lines.push(mode(started));
    lines.push(providers(started));
    lines.extend(if *local { local_lines(started, &own_url) } else { remote_lines(started, public_url) });
    lines.join("\n")
}

fn mode(started: &Started) -> String {
    let keys = match started.project_keys {
        1 => "1 project key".to_owned(),
        number => format!("{number} project keys"),
    };
    match (started.local, started.project_keys, started.pass_through) {
        (true, ..) if !started.keeps => {
            "local mode: only this machine can call, and needs no key; without a home \
                                         directory, logins are forgotten at the end (`--data DIR` keeps them)"
                .to_owned()
        }
        (true, ..) => "local mode: only this machine can call, and needs no key".to_owned(),
        (false, 0, false) => "nobody can call yet: make a key with `toolgate key create`".to_owned(),
        (false, 0, true) if !started.is_pass_through_chosen => {
            "pass-through: callers bring a provider's own key, until the first project is created".to_owned()
        }
        (false, 0, true) => "pass-through: callers bring a provider's own key".to_owned(),
        (false, _, true) => format!("{keys}; pass-through for callers with a provider's own key"),
        (false, _, false) if !started.is_pass_through_chosen => {
            format!("{keys}; other callers are refused, unless `[pass_through] enabled = true`")
        }
        (false, _, false) => format!("{keys}; other callers are refused"),
    }
}

fn providers(started: &Started) -> String {
    let mut list: Vec<String> =
        started.providers.iter().map(|(name, source)| format!("{name} ({source})")).collect();
    if started.demo {
        list.push("demo (built in)".to_owned());
    }
    let list = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    if started.providers.is_empty() {
        return format!("providers: {list}; set OPENAI_API_KEY or another provider's variable for more");
    }
    format!("providers: {list}")
}

fn local_lines(started: &Started, url: &str) -> Vec<String> {
    if !started.demo {
        return vec!["try it:".to_owned(), format!("curl {url}/v1/models")];
    }
    let curl = |question: &str, tool: &str, more: &str| {
        format!(
            "curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{{\"model\":\"demo\",\
             \"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"{question}\"}}],\
             \"tools\":[{{\"type\":\"mcp\",{tool}}}]{more}}}'"
        )
    };
    let open = format!("\"server_url\":\"{url}/demo/mcp\"");
    let private = format!("\"server_label\":\"demo\",\"server_url\":\"{url}/demo/private/mcp\"");
    vec![
        "try it, in another terminal:".to_owned(),
        String::new(),
        curl("Roll 2 dice and tell me the time in Tokyo", &open, ""),
        String::new(),
        "with a login: open the link that appears, and the answer goes on by itself:".to_owned(),
        String::new(),
        curl("Who am I?", &private, ",\"toolgate\":{\"on_auth\":\"wait\"}"),
        String::new(),
    ]
}

fn remote_lines(started: &Started, url: &str) -> Vec<String> {
    let line = if started.project_keys > 0 || !started.pass_through {
        format!("curl {url}/v1/models -H \"Authorization: Bearer $TOOLGATE_API_KEY\"")
    } else {
        format!("curl {url}/api.openai.com/v1/models -H \"Authorization: Bearer $OPENAI_API_KEY\"")
    };
    vec!["try it:".to_owned(), line]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> Started {
        Started {
            addr: "127.0.0.1:8787".parse().unwrap(),
            public_url: "http://127.0.0.1:8787".to_owned(),
            local: true,
            project_keys: 0,
            pass_through: true,
            is_pass_through_chosen: true,
            providers: vec![("openai".to_owned(), "key from OPENAI_API_KEY".to_owned())],
            demo: true,
            keeps: true,
        }
    }

    fn versionless(started: &Started) -> String {
        banner(started).replace(env!("CARGO_PKG_VERSION"), "VERSION")
    }

    #[test]
    fn local_mode_prints_a_line_that_needs_nothing() {
        insta::assert_snapshot!(versionless(&started()), @r#"
        toolgate VERSION listens on http://127.0.0.1:8787
        local mode: only this machine can call, and needs no key
        providers: openai (key from OPENAI_API_KEY), demo (built in)
        try it, in another terminal:

        curl -N http://127.0.0.1:8787/v1/chat/completions -H 'Content-Type: application/json' -d '{"model":"demo","stream":true,"messages":[{"role":"user","content":"Roll 2 dice and tell me the time in Tokyo"}],"tools":[{"type":"mcp","server_url":"http://127.0.0.1:8787/demo/mcp"}]}'

        with a login: open the link that appears, and the answer goes on by itself:

        curl -N http://127.0.0.1:8787/v1/chat/completions -H 'Content-Type: application/json' -d '{"model":"demo","stream":true,"messages":[{"role":"user","content":"Who am I?"}],"tools":[{"type":"mcp","server_label":"demo","server_url":"http://127.0.0.1:8787/demo/private/mcp"}],"toolgate":{"on_auth":"wait"}}'
        "#);
    }

    #[test]
    fn without_any_key_there_is_the_demo_and_a_word_on_how_to_get_more() {
        let bare = versionless(&Started { providers: Vec::new(), ..started() });
        let line = "providers: demo (built in); set OPENAI_API_KEY or another provider's variable for more";
        assert!(bare.lines().any(|written| written == line), "{bare}");
    }

    #[test]
    fn a_public_gateway_says_how_it_is_reached_and_who_may_call() {
        let public = Started {
            addr: "0.0.0.0:80".parse().unwrap(),
            public_url: "https://tools.example.com".to_owned(),
            local: false,
            project_keys: 2,
            providers: Vec::new(),
            demo: false,
            ..started()
        };
        insta::assert_snapshot!(versionless(&public), @r#"
        toolgate VERSION listens on http://0.0.0.0:80, reached as https://tools.example.com
        2 project keys; pass-through for callers with a provider's own key
        providers: none; set OPENAI_API_KEY or another provider's variable for more
        try it:
        curl https://tools.example.com/v1/models -H "Authorization: Bearer $TOOLGATE_API_KEY"
        "#);
        let open = versionless(&Started { project_keys: 0, ..public });
        insta::assert_snapshot!(open, @r#"
        toolgate VERSION listens on http://0.0.0.0:80, reached as https://tools.example.com
        pass-through: callers bring a provider's own key
        providers: none; set OPENAI_API_KEY or another provider's variable for more
        try it:
        curl https://tools.example.com/api.openai.com/v1/models -H "Authorization: Bearer $OPENAI_API_KEY"
        "#);
    }

    #[test]
    fn what_the_operator_left_open_is_said_with_what_changes_it() {
        let line = |project_keys, pass_through| {
            let remote = Started {
                local: false,
                project_keys,
                pass_through,
                is_pass_through_chosen: false,
                demo: false,
                ..started()
            };
            versionless(&remote).lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(
            line(1, false),
            "1 project key; other callers are refused, unless `[pass_through] enabled = true`"
        );
        assert_eq!(
            line(0, true),
            "pass-through: callers bring a provider's own key, until the first project is created"
        );
        assert_eq!(line(0, false), "nobody can call yet: make a key with `toolgate key create`");
    }
}
