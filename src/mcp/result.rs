//! What results and notifications of every server have.

use http::StatusCode;
use serde_json::{Value, json};

use super::era::Era;
use super::message::{INVALID_PARAMS, METHOD_NOT_FOUND, Refusal};

/// Most characters of a name that is repeated in an error.
const REPEATED: usize = 100;

/// Adds what each result of the era carries.
pub fn in_era(era: Era, mut result: Value, server_info: &Value) -> Value {
    if era == Era::Modern {
        result["resultType"] = json!("complete");
        result["_meta"] = json!({"io.modelcontextprotocol/serverInfo": server_info});
    }
    result
}

/// A request that is well-formed but asks for what does not exist: an answer of the protocol, so status 200.
pub fn invalid_params(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::OK, INVALID_PARAMS, text)
}

/// The era's answer to a method that is not there.
pub fn method_not_found(era: Era, method: &str) -> Refusal {
    let status = if era == Era::Modern { StatusCode::NOT_FOUND } else { StatusCode::OK };
    Refusal::new(status, METHOD_NOT_FOUND, format!("Method not found: {}", shortened(method)))
}

/// The answer to a call of a tool that is not there.
pub fn unknown_tool(name: &str) -> Refusal {
    invalid_params(format!("Unknown tool: {}", shortened(name)))
}

/// A notification of how far a request is; `total` where that is known.
pub fn progress(token: &Value, progress: u64, total: Option<u64>, message: &str) -> Value {
    let mut params = json!({"progressToken": token, "progress": progress});
    if let Some(total) = total {
        params["total"] = json!(total);
    }
    params["message"] = json!(message);
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
}

fn shortened(name: &str) -> String {
    name.chars().take(REPEATED).collect()
}
