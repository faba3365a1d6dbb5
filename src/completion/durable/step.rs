//! What is written down beside the events, so that another process can go on with a run.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::tools::{TaskRef, ToolResult};

/// One thing that happened to the loop. Never shown to viewers, and forgotten when the run has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The messages that the first turn begins with, separated by commas, where they are not the caller's own: hidden
    /// turns were put back.
    Begun { messages: String },
    /// A turn has been read to its end and has calls. `messages` is the assistant's message.
    Answered { turn: u32, messages: String, used: Used, calls: Vec<KeptCall> },
    /// From here on the call at `place` of the turn may have reached its server.
    Calling { place: usize, repeatable: bool },
    /// It was refused, and not carried out: a person must act first.
    NotMade { place: usize },
    /// The server works on the call at `place` as a task, which can be asked for.
    Task {
        place: usize,
        task: TaskRef,
        /// The server's label in the request.
        #[serde(default)]
        server: String,
        /// The request brought the credential that it was begun with.
        #[serde(default)]
        brought: bool,
    },
    /// It has ended. `missing`: a person must act before it can be made.
    Called { place: usize, result: ToolResult, missing: bool },
    /// The results of all calls of the turn are among the messages now.
    Acted { messages: String, used: Used },
}

/// What a run has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    pub completion_tokens: u64,
    pub tool_calls: u32,
    /// Calls handed to the caller.
    pub caller_calls: u32,
}

/// A function call of the model, without what the present tools make of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptCall {
    pub id: String,
    /// The id that the caller knows it by, where it is the caller's to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_id: Option<String>,
    pub function: String,
    pub arguments: String,
    pub raw: Map<String, Value>,
}
