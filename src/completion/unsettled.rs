//! Missing logins in an answer that is read when all is over: those that came meanwhile are not worth a word.

use super::event::RunEvent;

/// Missing logins that may yet be done: they are shown only when something follows that shows they were not.
#[derive(Debug, Clone, Default)]
pub struct Unsettled(Vec<RunEvent>);

impl Unsettled {
    /// What is to be shown before `event`, or `None` when `event` itself is not shown, or not yet. A login that was
    /// waited for and came is not mentioned: its link is of no use any more when the answer arrives.
    pub fn settle(&mut self, event: &RunEvent) -> Option<Vec<RunEvent>> {
        match event {
            RunEvent::AuthorizationRequired(_) | RunEvent::AuthorizationBatch(_) => {
                self.0.push(event.clone());
                None
            }
            RunEvent::Waiting { .. } => None,
            RunEvent::Authorized { resource, .. } => {
                self.0.retain(|held| match held {
                    RunEvent::AuthorizationRequired(login) => login.resource != *resource,
                    _ => false,
                });
                None
            }
            _ => Some(std::mem::take(&mut self.0)),
        }
    }
}
