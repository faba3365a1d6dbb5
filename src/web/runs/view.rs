//! From a run's events to what its page shows, step by step as they come.
//!
//! Pure. Give it every event in order; ask for the elements whenever they are to be shown. Those that did not change
//! since the last time are the same ones, so that who has them already can tell.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::block::{self, Block, CallerCall, Login, Logins, State, Tool};
use crate::completion::event::{AuthorizationRequired, FinishReason, RunEvent, ToolResultEvent};
use crate::web::{markdown, words};

/// Fields of a delta in which providers send what a model thinks.
const REASONING: &[&str] = &["reasoning_content", "reasoning"];
/// Most blocks of one page; the rest is in the JSON.
const MAX_BLOCKS: usize = 2000;
/// Most bytes of the caller's function calls that are shown.
const MAX_CALL_BYTES: usize = 64 << 10;

/// Whether a visitor may see the links of missing logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::web) enum Links {
    Shown,
    /// For readers of what somebody published: the logins are not theirs.
    Hidden,
}

/// What a page shows of a run.
#[derive(Debug)]
pub(in crate::web) struct View {
    links: Links,
    blocks: Vec<Shown>,
    tools: HashMap<String, usize>,
    calls: HashMap<u32, usize>,
    turn_is_new: bool,
    pub model: Option<String>,
    pub turns: u32,
    pub tool_calls: u32,
    pub tokens_in: u64,
    pub tokens_out: u64,
    /// Nothing comes after this.
    pub has_ended: bool,
}

#[derive(Debug)]
struct Shown {
    block: Block,
    /// As HTML, one element each; `None` when it has changed since.
    elements: Option<Vec<Arc<str>>>,
}

impl View {
    pub fn new(links: Links) -> Self {
        View {
            links,
            blocks: Vec::new(),
            tools: HashMap::new(),
            calls: HashMap::new(),
            turn_is_new: false,
            model: None,
            turns: 0,
            tool_calls: 0,
            tokens_in: 0,
            tokens_out: 0,
            has_ended: false,
        }
    }

    /// Takes in the next event.
    pub fn push(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Accepted => {}
            RunEvent::TurnStarted { turn, head } => {
                self.turns = self.turns.max(*turn);
                self.turn_is_new = true;
                if let (None, Some(Value::String(model))) = (&self.model, head.get("model")) {
                    self.model = Some(words::line(model));
                }
            }
            RunEvent::Delta { delta, .. } => self.delta(delta),
            RunEvent::CallerCall { index, call } => self.caller_call(*index, call),
            RunEvent::ToolCall(call) => {
                self.tool_calls += 1;
                self.tools.insert(call.call_id.clone(), self.blocks.len());
                self.add(Block::Tool(Tool::of(call)));
            }
            RunEvent::ToolProgress { call_id, progress, total, message } => {
                if let Some(tool) = self.tool(call_id) {
                    tool.progress(*progress, *total, message.as_deref());
                }
            }
            RunEvent::ToolResult(ended) => self.tool_result(ended),
            RunEvent::AuthorizationRequired(login) => self.login(login),
            RunEvent::AuthorizationBatch(batch) => {
                let link = batch.connect_all_url.as_deref().and_then(markdown::address).map(String::from);
                if let Some(logins) = self.logins() {
                    logins.all = link;
                }
            }
            RunEvent::Waiting { seconds, .. } => match self.logins() {
                Some(logins) => logins.waiting_seconds = Some(*seconds),
                None => self.add(Block::Notice(block::Notice::waiting(*seconds))),
            },
            RunEvent::Authorized { resource, host } => self.authorized(resource, host),
            RunEvent::Notice(notice) => self.add(Block::Notice(block::Notice::of(notice))),
            RunEvent::Resumed { turn } => self.resumed(*turn),
            RunEvent::Usage(usage) => {
                let number = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
                self.tokens_in = self.tokens_in.saturating_add(number("prompt_tokens"));
                self.tokens_out = self.tokens_out.saturating_add(number("completion_tokens"));
            }
            RunEvent::Finish { reason } => self.finish(reason),
            RunEvent::Error(error) => {
                self.end();
                // Named in the failure alone, where the request wanted to fail.
                for login in error.logins() {
                    self.login(&login);
                }
                if let (Some(batch), Some(logins)) = (error.login_batch(), self.logins()) {
                    logins.all =
                        batch.connect_all_url.as_deref().and_then(markdown::address).map(String::from);
                }
                self.add(Block::Error(block::Failure::of(error)));
            }
        }
    }

    /// What stands on the page, one HTML element each.
    pub fn elements(&mut self) -> Vec<Arc<str>> {
        let mut all = Vec::new();
        for (number, shown) in self.blocks.iter_mut().enumerate() {
            let elements = shown.elements.get_or_insert_with(|| shown.block.elements(number));
            all.extend(elements.iter().map(Arc::clone));
        }
        all
    }

    /// The beginning of what the model said.
    pub fn first_words(&self) -> Option<&str> {
        self.blocks.iter().find_map(|shown| match &shown.block {
            Block::Prose(prose) => Some(prose.as_str()),
            _ => None,
        })
    }

    fn add(&mut self, block: Block) {
        if self.blocks.len() < MAX_BLOCKS {
            self.blocks.push(Shown { block, elements: None });
        } else if self.blocks.len() == MAX_BLOCKS {
            let notice = block::Notice::too_long();
            self.blocks.push(Shown { block: Block::Notice(notice), elements: None });
        }
    }

    /// A block about to be changed.
    fn change(&mut self, at: usize) -> Option<&mut Block> {
        let shown = self.blocks.get_mut(at)?;
        shown.elements = None;
        Some(&mut shown.block)
    }

    fn last(&mut self) -> Option<&mut Block> {
        self.change(self.blocks.len().checked_sub(1)?)
    }

    fn delta(&mut self, delta: &Map<String, Value>) {
        let text = |name: &str| match delta.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.as_str()),
            _ => None,
        };
        let is_new = self.turn_is_new;
        if let Some(thought) = REASONING.iter().find_map(|name| text(name)) {
            self.turn_is_new = false;
            match self.last() {
                Some(Block::Reasoning(so_far)) if !is_new => so_far.push_str(thought),
                _ => self.add(Block::Reasoning(thought.to_owned())),
            }
        }
        for prose in [text("content"), text("refusal")].into_iter().flatten() {
            let is_new = std::mem::take(&mut self.turn_is_new);
            match self.last() {
                Some(Block::Prose(so_far)) if !is_new => so_far.push_str(prose),
                _ => self.add(Block::Prose(prose.to_owned())),
            }
        }
    }

    fn caller_call(&mut self, index: u32, call: &Map<String, Value>) {
        let function = call.get("function");
        let text = |name: &str| function.and_then(|of| of.get(name)).and_then(Value::as_str).unwrap_or("");
        let (name, arguments) = (text("name"), text("arguments"));
        if !self.calls.contains_key(&index) {
            self.calls.insert(index, self.blocks.len());
            self.add(Block::CallerCall(CallerCall::default()));
        }
        let at = self.calls[&index];
        if let Some(Block::CallerCall(call)) = self.change(at) {
            if call.name.is_empty() {
                call.name = words::line(name);
            }
            if call.arguments.len() < MAX_CALL_BYTES {
                call.arguments.push_str(arguments);
            }
        }
    }

    fn tool(&mut self, call_id: &str) -> Option<&mut Tool> {
        let at = *self.tools.get(call_id)?;
        match self.change(at) {
            Some(Block::Tool(tool)) => Some(tool),
            _ => None,
        }
    }

    fn tool_result(&mut self, ended: &ToolResultEvent) {
        match self.tool(&ended.call_id) {
            Some(tool) => tool.end(ended),
            None => {
                let mut tool = Tool::named(&ended.tool, &ended.host);
                tool.end(ended);
                self.add(Block::Tool(tool));
            }
        }
    }

    /// The list of logins that is being added to, when it is the last block.
    fn logins(&mut self) -> Option<&mut Logins> {
        match self.last() {
            Some(Block::Logins(logins)) => Some(logins),
            _ => None,
        }
    }

    fn login(&mut self, required: &AuthorizationRequired) {
        let login = Login::of(required, self.links == Links::Shown);
        match self.logins() {
            Some(logins) if logins.waiting_seconds.is_none() => logins.add(login),
            _ => self.add(Block::Logins(Logins::of(login, self.links == Links::Shown))),
        }
    }

    fn authorized(&mut self, resource: &str, host: &str) {
        let mut was_known = false;
        for shown in &mut self.blocks {
            if let Block::Logins(logins) = &mut shown.block
                && logins.authorized(resource)
            {
                shown.elements = None;
                was_known = true;
            }
        }
        if !was_known {
            self.add(Block::Notice(block::Notice::authorized(host)));
        }
    }

    /// Another process goes on. What was under way in the lost one stays as it was shown.
    fn resumed(&mut self, turn: u32) {
        self.turns = self.turns.max(turn);
        self.turn_is_new = true;
        self.leave();
        self.add(Block::Notice(block::Notice::resumed()));
    }

    /// Whether it does nothing until a person has logged in.
    pub fn is_waiting(&self) -> bool {
        let waits = |shown: &Shown| match &shown.block {
            Block::Logins(logins) => logins.waiting_seconds.is_some() && !logins.are_done(),
            _ => false,
        };
        !self.has_ended && self.blocks.iter().any(waits)
    }

    fn finish(&mut self, reason: &FinishReason) {
        self.end();
        // Most ends are announced by the gateway itself.
        let is_said = matches!(self.blocks.last(), Some(Shown { block: Block::Notice(_), .. }));
        if let Some(notice) = block::Notice::finish(reason).filter(|_| !is_said) {
            self.add(Block::Notice(notice));
        }
    }

    /// Nothing waits and nothing runs any more.
    fn end(&mut self) {
        self.has_ended = true;
        self.leave();
    }

    fn leave(&mut self) {
        for shown in &mut self.blocks {
            match &mut shown.block {
                Block::Tool(tool) if tool.state == State::Running => tool.state = State::Left,
                Block::Logins(logins) if logins.waiting_seconds.is_some() => logins.waiting_seconds = None,
                _ => continue,
            }
            shown.elements = None;
        }
    }
}

#[cfg(test)]
#[path = "view_test.rs"]
mod tests;
