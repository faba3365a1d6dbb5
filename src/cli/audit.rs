//! `toolgate audit`: what happened to users' logins, newest first. It holds no secrets, and is only ever added to.

use serde_json::json;

use super::args::AuditArgs;
use super::moment::moment;
use super::{Failure, Output, connections, house};
use crate::config::Environment;
use crate::server::Opened;
use crate::store::AuditRow;

pub(super) fn run(args: &AuditArgs, environment: &Environment, output: Output) -> Result<(), Failure> {
    let project = args.project.as_deref().map(connections::namespace);
    house::with_store(&args.list.store, environment, async |opened: &Opened| {
        let rows = opened.store.list_audit(project.as_deref(), i64::from(args.limit)).await?;
        if args.list.json {
            output.line(&json!(rows.iter().map(to_json).collect::<Vec<_>>()).to_string());
        } else {
            output.table(&rows.iter().map(to_row).collect::<Vec<_>>());
        }
        if rows.is_empty() {
            output.note("The audit log has no such entries.");
        }
        Ok(())
    })
}

fn to_json(row: &AuditRow) -> serde_json::Value {
    json!({
        "id": row.id,
        "at_ms": row.at,
        "event": row.event,
        "project": row.project,
        "user": row.user,
        "profile": row.profile,
        "connection": row.connection,
        "flow": row.flow,
        "resource": row.resource,
        "actor": row.actor,
        "detail": row.detail,
    })
}

fn to_row(row: &AuditRow) -> Vec<String> {
    let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        moment(row.at),
        row.event.clone(),
        row.project.clone(),
        shown(&row.user),
        shown(&row.resource),
        row.actor.clone(),
        row.detail.clone().unwrap_or_default(),
    ]
}
