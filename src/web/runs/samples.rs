//! Lines that do by program what a page does: to be copied into a shell, an editor, or the settings of an MCP client.
//!
//! Pure. Whatever stands in a name or a message, pasting it runs nothing: it stays inside one quoted string. No key is
//! ever printed; the lines read `TOOLGATE_KEY` from the environment.

use serde_json::{Map, Value, json};

use crate::tools::text;

/// The same request three times.
#[derive(Debug)]
pub(in crate::web) struct Samples {
    pub curl: String,
    pub python: String,
    pub javascript: String,
}

impl Samples {
    /// A request to `base`, which ends without a slash; `servers` are addresses of MCP servers. `local` needs no key.
    pub fn new(base: &str, model: &str, message: &str, servers: &[String], local: bool) -> Self {
        Samples::written(base, (model, message, servers), local, false)
    }

    /// As [`Samples::new`], of a request that is kept.
    pub fn stored(base: &str, model: &str, message: &str, servers: &[String], local: bool) -> Self {
        Samples::written(base, (model, message, servers), local, true)
    }

    fn written(base: &str, asked: (&str, &str, &[String]), local: bool, stored: bool) -> Self {
        let (model, message, servers) = asked;
        let tools: Vec<Value> =
            servers.iter().map(|server| json!({ "type": "mcp", "server_url": clean(server) })).collect();
        let messages = json!([{ "role": "user", "content": clean(message) }]);
        let (model, tools) = (json!(clean(model)), Some(Value::Array(tools)).filter(|_| !servers.is_empty()));
        let mut body = format!("{{\n    \"model\": {model},\n    \"messages\": {messages}");
        if stored {
            body.push_str(",\n    \"store\": true");
        }
        if let Some(tools) = &tools {
            body.push_str(&format!(",\n    \"tools\": {tools}"));
        }
        body.push_str("\n  }");
        let base = clean(base);
        let mut curl = format!("curl {}", in_shell(&format!("{base}/chat/completions")));
        if !local {
            curl.push_str(" \\\n  -H \"Authorization: Bearer $TOOLGATE_KEY\"");
        }
        curl.push_str(" \\\n  -H \"Content-Type: application/json\"");
        curl.push_str(&format!(" \\\n  -d {}", in_shell(&body)));

        let base = json!(base);
        let (python_key, javascript_key) = if local {
            ("\"local\"", "\"local\"")
        } else {
            ("os.environ[\"TOOLGATE_KEY\"]", "process.env.TOOLGATE_KEY")
        };
        let import = if local { "" } else { "import os\n" };
        let (python_tools, javascript_tools) = match &tools {
            None => (String::new(), String::new()),
            Some(tools) => (format!("\n    tools={tools},"), format!("\n  tools: {tools},")),
        };
        let (python_store, javascript_store) =
            if stored { ("\n    store=True,", "\n  store: true,") } else { ("", "") };
        let python = format!(
            "{import}from openai import OpenAI\n\nclient = OpenAI(base_url={base}, api_key={python_key})\n\
             completion = client.chat.completions.create(\n    model={model},\n    messages={messages},{python_store}{python_tools}\n)\n\
             print(completion.choices[0].message.content)"
        );
        let javascript = format!(
            "import OpenAI from \"openai\";\n\nconst client = new OpenAI({{ baseURL: {base}, apiKey: {javascript_key} }});\n\
             const completion = await client.chat.completions.create({{\n  model: {model},\n  messages: {messages},{javascript_store}{javascript_tools}\n}});\n\
             console.log(completion.choices[0].message.content);"
        );
        Samples { curl, python, javascript }
    }
}

/// Longest name of a server in the settings of an MCP client, which many put before the names of its tools.
const LONGEST_NAME: usize = 32;

/// The entry of an MCP client's settings for the run at `address`, which ends without a slash and has this title.
pub(in crate::web) fn mcp_settings(address: &str, title: &str, local: bool) -> String {
    let mut server = json!({ "type": "http", "url": format!("{}/mcp", clean(address)) });
    if !local {
        server["headers"] = json!({ "Authorization": "Bearer ${TOOLGATE_KEY}" });
    }
    let mut servers = Map::new();
    servers.insert(server_name(title), server);
    format!("{:#}", json!({ "mcpServers": servers }))
}

/// The first words of a title as a name that every client takes.
fn server_name(title: &str) -> String {
    let mut name = String::new();
    for word in title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let dash = usize::from(!name.is_empty());
        if name.len() + dash + word.len() > LONGEST_NAME {
            break;
        }
        name.push_str(if name.is_empty() { "" } else { "-" });
        name.push_str(&word.to_ascii_lowercase());
    }
    if name.is_empty() { "toolgate".to_owned() } else { name }
}

/// Without what a terminal or an editor would obey or hide.
fn clean(text: &str) -> String {
    text::for_reader(text).into_owned()
}

/// One word of a shell's command line.
fn in_shell(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:.-_[]".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) && !text.contains('[') {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_say_what_the_page_does() {
        let servers = ["https://s.example/mcp".to_owned()];
        let samples = Samples::new("https://t.example/v1", "demo/demo", "Hello", &servers, false);
        assert!(samples.curl.starts_with(
            "curl https://t.example/v1/chat/completions \\\n  -H \"Authorization: Bearer $TOOLGATE_KEY\""
        ));
        assert!(samples.python.contains(
            "client = OpenAI(base_url=\"https://t.example/v1\", api_key=os.environ[\"TOOLGATE_KEY\"])"
        ));
        assert!(
            samples
                .python
                .contains("    tools=[{\"type\":\"mcp\",\"server_url\":\"https://s.example/mcp\"}],\n)")
        );
        assert!(samples.javascript.contains("  model: \"demo/demo\",\n"));
        assert!(
            ![&samples.curl, &samples.python, &samples.javascript].iter().any(|text| text.contains("store"))
        );
        let stored = Samples::stored("https://t.example/v1", "demo/demo", "Hello", &servers, false);
        assert!(stored.curl.contains(",\n    \"store\": true,\n"), "{}", stored.curl);
        assert!(stored.python.contains("],\n    store=True,\n    tools="), "{}", stored.python);
        assert!(stored.javascript.contains("],\n  store: true,\n  tools:"), "{}", stored.javascript);
        let local = Samples::new("http://127.0.0.1:8787/v1", "demo/demo", "Hello", &[], true);
        assert!(!local.curl.contains("Authorization") && !local.python.contains("tools"));
    }

    #[test]
    fn a_client_of_mcp_gets_the_address_and_reads_the_key_itself() {
        let text =
            mcp_settings("https://t.example/run_1", "What is *new* in the EU's budget for 2026?", false);
        let settings: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({ "mcpServers": { "what-is-new-in-the-eu-s-budget": {
            "type": "http",
            "url": "https://t.example/run_1/mcp",
            "headers": { "Authorization": "Bearer ${TOOLGATE_KEY}" },
        } } });
        assert_eq!(settings, expected);
        let local = mcp_settings("http://127.0.0.1:8787/run_1", "Hello", true);
        assert_eq!(
            local,
            "{\n  \"mcpServers\": {\n    \"hello\": {\n      \"type\": \"http\",\n      \"url\": \"http://127.0.0.1:8787/run_1/mcp\"\n    }\n  }\n}"
        );
    }

    #[test]
    fn no_title_makes_a_name_that_a_client_stumbles_over() {
        for (title, name) in [
            ("", "toolgate"),
            ("你好", "toolgate"),
            ("\"}},\"x\":{\u{202e}\u{1b}[2J", "x-2j"),
            ("${HOME} $(id) `id` ../../a", "home-id-id-a"),
            ("anextraordinarilylongwordthatfillseverything", "toolgate"),
            ("__proto__", "proto"),
        ] {
            assert_eq!(server_name(title), name, "{title:?}");
            let settings: Value =
                serde_json::from_str(&mcp_settings("https://t.example/run_1", title, false)).unwrap();
            assert_eq!(settings["mcpServers"].as_object().unwrap().len(), 1);
        }
    }

    #[test]
    fn pasting_a_strangers_words_runs_nothing() {
        let evil = "'; touch /tmp/x; echo '$(id)`id`\u{1b}[2J\u{202e}\n\"); import os #";
        let samples = Samples::new("https://t.example/run_1", evil, evil, &[evil.to_owned()], false);
        // Between the quotes: nothing else than quotes that are escaped.
        let data = samples.curl.split_once("-d ").unwrap().1.replace("'\\''", "");
        assert!(data.starts_with('\'') && data.ends_with('\'') && data.matches('\'').count() == 2, "{data}");
        for text in [&samples.curl, &samples.python, &samples.javascript] {
            assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
        }
        let literal = json!(clean(evil)).to_string();
        assert!(samples.python.contains(&format!("model={literal},")));
        assert!(samples.javascript.contains(&format!("model: {literal},")));
    }
}
