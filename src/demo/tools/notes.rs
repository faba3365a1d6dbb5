//! A few notes about toolgate, to be searched.

const NOTES: &[(&str, &str)] = &[
    (
        "About toolgate",
        "toolgate gives any language model any MCP server. An app keeps its OpenAI SDK, changes the base URL and adds `tools: [{\"type\": \"mcp\", \"server_url\": \"…\"}]`.",
    ),
    (
        "The tool loop",
        "The gateway asks each MCP server for its tools, offers them to the model as functions, executes the calls, gives the results back and repeats until the model is done: one ordinary chat completion comes out.",
    ),
    (
        "Streaming",
        "The answer is one stream: one id, one role chunk, one finish_reason, usage summed over all turns. Tool activity appears as Markdown in the content and as data in a `toolgate` object.",
    ),
    (
        "Your own functions",
        "Function tools of the caller work beside MCP tools. The gateway executes its own calls and hands the caller's back with finish_reason `tool_calls`.",
    ),
    (
        "Logins",
        "A server that wants a login is never dropped silently: the answer says which host needs what, and carries `authorization_required` as data. Send `authorization` in the tool entry or the `X-MCP-Authorization` header.",
    ),
    (
        "Failures",
        "A failing tool does not end the completion: the model is told, the reader sees it, the run goes on. An unreachable server is an error that names it, or a notice when it is `optional`.",
    ),
    (
        "Providers",
        "`model` is `provider/model`, an alias, or a model that a provider lists. Presets become active when the provider's usual environment variable is set; any OpenAI-compatible server can be configured.",
    ),
    (
        "Fast path",
        "A completion that uses no gateway feature is relayed as bytes: nothing is parsed twice, nothing is encoded again.",
    ),
    (
        "Outbound policy",
        "Every outbound address is checked when it is dialled and at every redirect. What a request names must be public; loopback is allowed in local mode only.",
    ),
    (
        "Local mode",
        "Listening on loopback without configured API keys is local mode: one person's machine. Only there the demo model and the demo MCP servers exist.",
    ),
    (
        "Demo",
        "The demo model is not a language model. It compares the words of the prompt with the offered tools, calls what the prompt asks for, and answers from the results.",
    ),
];

/// The notes that share the most words with `query`, best first, as Markdown; at most three.
pub fn search(query: &str) -> String {
    let wanted: Vec<String> = words(query).collect();
    let mut found: Vec<(usize, &(&str, &str))> = NOTES
        .iter()
        .map(|note| {
            let title: Vec<String> = words(note.0).collect();
            let text: Vec<String> = words(note.1).collect();
            let score = wanted
                .iter()
                .map(|word| 3 * usize::from(title.contains(word)) + usize::from(text.contains(word)))
                .sum();
            (score, note)
        })
        .filter(|(score, _)| *score > 0)
        .collect();
    found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    if found.is_empty() {
        let titles: Vec<_> = NOTES.iter().map(|(title, _)| *title).collect();
        return format!("No note has these words. The notes are: {}.", titles.join(", "));
    }
    let shown: Vec<_> = found.iter().take(3).map(|(_, (title, text))| format!("{title}: {text}")).collect();
    shown.join("\n\n")
}

/// Lower-case words of four letters and more, without a plural `s`: short ones say too little.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().count() >= 4).take(200).map(
        |word| {
            let word = word.to_lowercase();
            word.strip_suffix('s').map_or(word.clone(), str::to_owned)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_note_comes_first() {
        for (query, title) in
            [("streaming", "Streaming:"), ("what happens at failures", "Failures:"), ("LOGIN", "Logins:")]
        {
            assert!(search(query).starts_with(title), "{query}: {}", search(query));
        }
    }

    #[test]
    fn nothing_found_says_what_there_is() {
        assert!(search("zebra").contains("Local mode"));
    }
}
