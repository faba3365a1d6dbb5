//! Lines that do by program what a page does: to be copied into a shell or an editor.
//!
//! Pure. Whatever stands in a name or a message, pasting it runs nothing: it stays inside one quoted string. No key is
//! ever printed; the lines read `TOOLGATE_KEY` from the environment.

use serde_json::{Value, json};

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
        let tools: Vec<Value> =
            servers.iter().map(|server| json!({ "type": "mcp", "server_url": clean(server) })).collect();
        let messages = json!([{ "role": "user", "content": clean(message) }]);
        let (model, tools) = (json!(clean(model)), Some(Value::Array(tools)).filter(|_| !servers.is_empty()));
        let mut body = format!("{{\n    \"model\": {model},\n    \"messages\": {messages}");
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
        let python = format!(
            "{import}from openai import OpenAI\n\nclient = OpenAI(base_url={base}, api_key={python_key})\n\
             completion = client.chat.completions.create(\n    model={model},\n    messages={messages},{python_tools}\n)\n\
             print(completion.choices[0].message.content)"
        );
        let javascript = format!(
            "import OpenAI from \"openai\";\n\nconst client = new OpenAI({{ baseURL: {base}, apiKey: {javascript_key} }});\n\
             const completion = await client.chat.completions.create({{\n  model: {model},\n  messages: {messages},{javascript_tools}\n}});\n\
             console.log(completion.choices[0].message.content);"
        );
        Samples { curl, python, javascript }
    }
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
        let local = Samples::new("http://127.0.0.1:8787/v1", "demo/demo", "Hello", &[], true);
        assert!(!local.curl.contains("Authorization") && !local.python.contains("tools"));
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
