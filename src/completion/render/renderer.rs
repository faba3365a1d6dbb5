//! The order of blocks and prose in one answer.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::block;
use super::prose::Prose;
use crate::completion::event::RunEvent;

/// How tool activity appears in `content`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// As Markdown blocks between the prose.
    #[default]
    Markdown,
    /// Not at all; missing logins and notices are still shown.
    Text,
    /// `content` is the model's prose alone.
    Events,
}

/// Decides what stands in `content` besides the model's prose. One per answer; give it every event, in order.
#[derive(Debug, Clone, Default)]
pub struct Renderer {
    output: Output,
    prose: Prose,
    new_turn: bool,
    /// The last thing shown is a list of missing logins, which the next one continues.
    listing_logins: bool,
    /// Calls without a shown result, in the order they were made. Only the first of them is visible: each result
    /// stands right below its call, even when a later call ends sooner.
    calls: VecDeque<Call>,
}

#[derive(Debug, Clone)]
struct Call {
    id: String,
    /// `None` once shown.
    block: Option<String>,
    result: Option<String>,
}

impl Renderer {
    /// For an answer in the given form.
    pub fn new(output: Output) -> Self {
        Renderer { output, ..Renderer::default() }
    }

    /// What to add to `content` at this event. For a [`RunEvent::Delta`] it stands *before* the delta's own content.
    pub fn event(&mut self, event: &RunEvent) -> Option<String> {
        let shown = match event {
            RunEvent::TurnStarted { .. } => {
                self.new_turn = true;
                return None;
            }
            RunEvent::Delta { delta, .. } => match delta.get("content") {
                Some(Value::String(content)) if !content.is_empty() => self.before_prose(content),
                _ => return None,
            },
            RunEvent::ToolCall(call) if self.output == Output::Markdown => {
                let block = block::tool_call(call);
                self.calls.push_back(Call { id: call.call_id.clone(), block: Some(block), result: None });
                self.ready_calls()
            }
            RunEvent::ToolResult(result) if self.output == Output::Markdown => {
                let block = block::tool_result(result);
                match self.calls.iter_mut().find(|call| call.id == result.call_id && call.result.is_none()) {
                    Some(call) => {
                        call.result = Some(block);
                        self.ready_calls()
                    }
                    None => self.block(&block),
                }
            }
            RunEvent::AuthorizationRequired(login) if self.output != Output::Events => {
                let block = if self.listing_logins {
                    block::login_item(login)
                } else {
                    block::authorization_required(std::slice::from_ref(&**login))
                };
                let shown = self.block(&block);
                self.listing_logins = true;
                shown
            }
            RunEvent::AuthorizationBatch(batch) if self.output != Output::Events => {
                let item = block::batch_item(batch);
                if self.listing_logins && !item.is_empty() { self.block(&item) } else { String::new() }
            }
            RunEvent::Waiting { seconds, .. } if self.output != Output::Events => {
                self.block(&block::waiting(*seconds))
            }
            RunEvent::Authorized { host, .. } if self.output != Output::Events => {
                self.block(&block::authorized(host))
            }
            RunEvent::Notice(notice) if self.output != Output::Events => self.block(&block::notice(notice)),
            RunEvent::Resumed { .. } if self.output != Output::Events => self.block(&block::resumed()),
            RunEvent::Finish { .. } | RunEvent::Error(_) => self.remaining_calls(),
            RunEvent::Accepted
            | RunEvent::CallerCall { .. }
            | RunEvent::ToolCall(_)
            | RunEvent::ToolProgress { .. }
            | RunEvent::ToolResult(_)
            | RunEvent::AuthorizationRequired(_)
            | RunEvent::AuthorizationBatch(_)
            | RunEvent::Waiting { .. }
            | RunEvent::Authorized { .. }
            | RunEvent::Notice(_)
            | RunEvent::Resumed { .. }
            | RunEvent::Usage(_) => return None,
        };
        (!shown.is_empty()).then_some(shown)
    }

    fn before_prose(&mut self, content: &str) -> String {
        let mut before = self.remaining_calls();
        // The prose of two turns is two paragraphs, also where no block stands between.
        if std::mem::take(&mut self.new_turn) {
            before.push_str(&self.prose.break_block());
        }
        self.listing_logins = false;
        self.prose.push(content);
        before
    }

    fn block(&mut self, block: &str) -> String {
        let mut shown = self.prose.break_block();
        shown.push_str(block);
        self.prose.block_sent();
        self.listing_logins = false;
        shown
    }

    /// The first call, the results that end the first calls, and the call that is first then.
    fn ready_calls(&mut self) -> String {
        let mut shown = String::new();
        while let Some(call) = self.calls.front_mut() {
            if let Some(block) = call.block.take() {
                shown.push_str(&self.block(&block));
                continue;
            }
            let Some(result) = call.result.take() else { break };
            self.calls.pop_front();
            shown.push_str(&self.block(&result));
        }
        shown
    }

    /// Calls that get no result any more.
    fn remaining_calls(&mut self) -> String {
        let mut shown = String::new();
        for call in std::mem::take(&mut self.calls) {
            for block in [call.block, call.result].into_iter().flatten() {
                shown.push_str(&self.block(&block));
            }
        }
        shown
    }
}

#[cfg(test)]
#[path = "renderer_test.rs"]
mod tests;
