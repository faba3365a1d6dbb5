//! `toolgate demo`: a guided tour. Starts a gateway on a free loopback port, shows what it does, and ends it.
//!
//! It uses the built-in model and MCP servers only: no key is read, and nothing leaves the machine.

use std::future::pending;
use std::io::IsTerminal;
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::demo_person::Person;
use super::{Failure, Output};
use crate::clean_json;
use crate::config::{self, Environment, LogFormat, Settings};
use crate::egress::{self, Egress, Reach};
use crate::{demo, server, sse, telemetry};

const FIRST_BYTE: Duration = Duration::from_secs(30);
const EVENT_BYTES: usize = 4 << 20;
/// How long somebody at the terminal has to click on a login link before the tour does. Less than the gateway waits.
const TIME_TO_CLICK: Duration = Duration::from_secs(60);
/// Whom the tour logs in as.
const GUEST: &str = "a guest";

/// Shows what the gateway does.
///
/// # Errors
/// When no gateway can be started, or when one of the requests does not come out as the tour says.
pub fn run(environment: &Environment, output: Output) -> Result<(), Failure> {
    telemetry::init_logging(LogFormat::Text, environment.get("RUST_LOG").or(Some("error")))
        .map_err(|error| Failure::new(error.to_string()).hint("such as `RUST_LOG=info,toolgate=debug`"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start worker threads: {error}")))?;
    runtime.block_on(guide(output))
}

async fn guide(output: Output) -> Result<(), Failure> {
    let mut settings = Settings { listen: ([127, 0, 0, 1], 0).into(), ..Settings::default() };
    settings.limits.shutdown_seconds = 2;
    // Without any variable no provider but the built-in one is active.
    let nothing = Environment::default();
    let (tell_address, address) = oneshot::channel();
    let (end, ended) = oneshot::channel::<()>();
    let gateway = server::serve_until(
        settings,
        &nothing,
        server::World::default(),
        // Nobody to tell means that the tour has failed already.
        |started| _ = tell_address.send(started.addr),
        async { _ = ended.await },
    );
    let tour = async {
        let Ok(address) = address.await else { return Ok(()) };
        let visitor = Visitor::new(format!("http://{address}"), output)?;
        let result = visitor.tour().await;
        drop(visitor);
        drop(end);
        result
    };
    let (gateway, tour) = tokio::join!(gateway, tour);
    gateway?;
    tour
}

/// Who takes the tour.
struct Visitor {
    url: String,
    egress: Egress,
    output: Output,
}

/// What a streamed completion came to.
#[derive(Debug, Default)]
struct Answer {
    content: String,
    calls: Vec<Map<String, Value>>,
    /// To log in.
    link: Option<String>,
    finish_reason: Option<String>,
}

impl Visitor {
    fn new(url: String, output: Output) -> Result<Self, Failure> {
        let egress = Egress::new(&config::Egress::default(), true, egress::system_lookup())
            .map_err(|error| Failure::new(error.to_string()))?;
        Ok(Visitor { url, egress, output })
    }

    async fn tour(&self) -> Result<(), Failure> {
        self.output.line(
            "toolgate gives any model any MCP server. A tour in five steps; nothing leaves this machine.",
        );
        let mcp = format!("{}/demo/mcp", self.url);
        let private = format!("{}/demo/private/mcp", self.url);

        self.heading(1, "A chat completion like any other, from the built-in demo model.");
        self.ask(&request("Hello, what are you?", json!(null))).await?;

        self.heading(2, "The same with an MCP server: its tools are found, called and shown in one stream.");
        let tools = json!([{"type": "mcp", "server_url": mcp}]);
        self.ask(&request("Roll 2 dice and tell me the time in Tokyo", tools.clone())).await?;

        self.heading(3, "A tool that fails: the model is told, you see it, and the rest goes on.");
        self.ask(&request("Let it fail, then draw a red circle", tools)).await?;

        self.heading(
            4,
            "A server that wants a login: you get a link, and after the click the same stream goes on.",
        );
        let entry = json!({"type": "mcp", "server_label": "demo", "server_url": private});
        let question = request("Who am I?", json!([entry]));
        let mut waiting = question.clone();
        waiting["toolgate"] = json!({"on_auth": "wait"});
        self.ask(&waiting).await?;
        self.output.line("\nFrom now on no link is needed:");
        self.ask(&question).await?;
        self.output.line("\nWho has an access token already sends it along:");
        let mut entry = entry;
        entry["authorization"] = json!(demo::DEMO_TOKEN);
        self.ask(&request("Who am I?", json!([entry]))).await?;

        self.heading(
            5,
            "Your own function beside MCP tools: the gateway calls its own, and hands you yours.",
        );
        self.own_function(&mcp).await?;

        self.output.line("\nThat was the tour, and its gateway has ended. Start yours with `toolgate`: the lines above work");
        self.output.line("there too, with its address, and with any other model and MCP server.");
        Ok(())
    }

    async fn own_function(&self, mcp: &str) -> Result<(), Failure> {
        let tools = json!([
            {"type": "mcp", "server_url": mcp},
            {"type": "function", "function": {
                "name": "get_weather",
                "description": "Get the weather of a city",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            }},
        ]);
        let mut request = request("Roll 2 dice and tell me the weather in Paris", tools);
        let answer = self.ask(&request).await?;
        let call = match answer.calls.as_slice() {
            [call] if answer.finish_reason.as_deref() == Some("tool_calls") => call.clone(),
            _ => return Err(Failure::new("the tour expected one call of its function `get_weather`")),
        };
        let function = &call["function"];
        let text = |key: &str| function[key].as_str().unwrap_or_default();
        self.output.line(&format!("It ends with a call for you: {}({})", text("name"), text("arguments")));
        self.output.line("Your app answers it, and the completion goes on:");
        let id = call["id"].clone();
        if let Some(messages) = request["messages"].as_array_mut() {
            messages.push(json!({"role": "assistant", "content": answer.content, "tool_calls": [call]}));
            messages.push(json!({"role": "tool", "tool_call_id": id, "content": "18 degrees and sunny"}));
        }
        self.ask(&request).await?;
        Ok(())
    }

    /// Does what a person does with the link. Somebody at a terminal may do so themself: then they come first.
    async fn log_in(&self, link: String) -> Result<(), Failure> {
        let is_watched = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        if is_watched {
            let seconds = TIME_TO_CLICK.as_secs();
            self.output.line(&format!(
                "[ Open the link in your browser. In {seconds} s the tour does it for you. ]\n"
            ));
            tokio::time::sleep(TIME_TO_CLICK).await;
        }
        self.output.line(&format!(
            "[ The tour opens the link, continues, types the name “{GUEST}”, and allows. ]\n"
        ));
        let logged_in = Person::new(&self.egress).log_in(&link, GUEST).await;
        // Whoever clicks at the same time has the page, and the stream will tell.
        if is_watched { Ok(()) } else { logged_in }
    }

    fn heading(&self, number: u32, text: &str) {
        self.output.line(&format!("\n{number}. {text}"));
    }

    /// Prints the request as a line for the shell, sends it, and prints the completion as it arrives.
    async fn ask(&self, body: &Value) -> Result<Answer, Failure> {
        let address = format!("{}/v1/chat/completions", self.url);
        self.output.line(&format!("\n{}\n", curl(&address, body)));
        let request = Request::post(&address)
            .header(header::CONTENT_TYPE, "application/json")
            .body(egress::full(body.to_string()))
            .map_err(|error| Failure::new(error.to_string()))?;
        let response = self
            .egress
            .send(Reach::Configured, request, FIRST_BYTE)
            .await
            .map_err(|error| Failure::new(error.to_string()))?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        self.read(response).await
    }

    async fn read(&self, mut response: Response<Incoming>) -> Result<Answer, Failure> {
        let broken = |reason: String| Failure::new(format!("the stream broke off: {reason}"));
        let mut decoder = sse::Decoder::new(EVENT_BYTES);
        let mut answer = Answer::default();
        let mut clicking: Pin<Box<dyn Future<Output = Result<(), Failure>>>> = Box::pin(pending());
        loop {
            let frame = tokio::select! {
                frame = response.frame() => frame,
                clicked = &mut clicking => {
                    clicked?;
                    clicking = Box::pin(pending());
                    continue;
                }
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| broken(error.to_string()))?;
            let Some(data) = frame.data_ref() else { continue };
            decoder.feed(data);
            while let Some(event) = decoder.next_event().map_err(|error| broken(error.to_string()))? {
                if event.data.as_ref() == b"[DONE]" {
                    if !answer.content.ends_with('\n') {
                        self.output.line("");
                    }
                    return Ok(answer);
                }
                let chunk: Value =
                    clean_json::from_slice(&event.data).map_err(|error| broken(error.to_string()))?;
                if let Some(error) = chunk.get("error") {
                    return Err(Failure::new(message_of(error)));
                }
                self.output.text(&printable(answer.take(&chunk)));
                if chunk["toolgate"]["event"] == "waiting"
                    && let Some(link) = answer.link.take()
                {
                    clicking = Box::pin(self.log_in(link));
                }
            }
        }
        Err(broken("it ended without `[DONE]`".to_owned()))
    }
}

impl Answer {
    /// Adds a chunk and gives its text.
    fn take<'a>(&mut self, chunk: &'a Value) -> &'a str {
        if let Some(link) = chunk["toolgate"]["connect_url"].as_str() {
            self.link = Some(link.to_owned());
        }
        let choice = &chunk["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        for part in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            self.take_call(part);
        }
        let text = choice["delta"]["content"].as_str().unwrap_or_default();
        self.content.push_str(text);
        text
    }

    /// The first part of a call brings its id and name, the others more of its arguments.
    fn take_call(&mut self, part: &Value) {
        let arguments = part["function"]["arguments"].as_str().unwrap_or_default();
        let index = part["index"].as_u64().and_then(|index| usize::try_from(index).ok()).unwrap_or_default();
        if let Some(call) = self.calls.get_mut(index) {
            let known = call["function"]["arguments"].as_str().unwrap_or_default();
            let joined = format!("{known}{arguments}");
            call["function"]["arguments"] = json!(joined);
            return;
        }
        let mut call = Map::new();
        call.insert("id".to_owned(), part["id"].clone());
        call.insert("type".to_owned(), json!("function"));
        call.insert("function".to_owned(), json!({"name": part["function"]["name"], "arguments": arguments}));
        self.calls.push(call);
    }
}

fn request(prompt: &str, tools: Value) -> Value {
    let mut request =
        json!({"model": "demo", "stream": true, "messages": [{"role": "user", "content": prompt}]});
    if !tools.is_null() {
        request["tools"] = tools;
    }
    request
}

/// The request as a line that can be pasted into a shell.
fn curl(address: &str, body: &Value) -> String {
    let body = body.to_string().replace('\'', r"'\''");
    format!("$ curl -N {address} -H 'Content-Type: application/json' -d '{body}'")
}

async fn refused(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), 64 << 10).collect().await;
    let body: Value =
        body.ok().and_then(|body| clean_json::from_slice(&body.to_bytes()).ok()).unwrap_or_default();
    Failure::new(format!("the gateway answered {}: {}", status.as_u16(), message_of(&body["error"])))
}

fn message_of(error: &Value) -> String {
    error["message"].as_str().unwrap_or("an error without a message").to_owned()
}

/// Text that cannot steer the terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_line_survives_the_shell() {
        let line = curl("http://127.0.0.1:1/v1/chat/completions", &json!({"a": "it's"}));
        assert_eq!(
            line,
            r#"$ curl -N http://127.0.0.1:1/v1/chat/completions -H 'Content-Type: application/json' -d '{"a":"it'\''s"}'"#
        );
    }

    #[test]
    fn parts_of_calls_become_whole_calls() {
        let chunk = |part: Value| json!({"choices": [{"delta": {"tool_calls": [part]}}]});
        let mut answer = Answer::default();
        for part in [
            json!({"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}),
            json!({"index": 0, "function": {"arguments": "{\"x\":"}}),
            json!({"index": 0, "function": {"arguments": "1}"}}),
            json!({"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}),
        ] {
            answer.take(&chunk(part));
        }
        answer.take(&json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}));
        let calls: Vec<_> = answer.calls.into_iter().map(Value::Object).collect();
        assert_eq!(
            calls,
            [
                json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}}),
                json!({"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}),
            ]
        );
        assert_eq!(answer.finish_reason.as_deref(), Some("tool_calls"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\n\tc\r\u{0}"), "a[31mb\n\tc");
    }
}
