//! A run that cannot begin without a login: it shows the links, and ends there or waits.
//!
//! While it waits it holds the request and nothing else: no connection to a provider or to the store, no lock, and no
//! buffer of the connection that the request came on.

use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::event::{FinishReason, Notice, RunError, RunEvent};
use super::gather::{Found, gather, limit_reached};
use super::logins::{Came, Missing};
use super::options::OnAuth;
use super::prepare::Prepared;
use super::sink::{Gone, Sink};

/// How it goes on.
enum Next {
    Run(Found),
    Finished,
    Failed(RunError),
}

/// Carries out a run, perhaps such a one.
pub fn carry_out(mut prepared: Prepared, mut found: Found) -> impl Future<Output = ()> + Send {
    prepared.request = prepared.request.detached();
    let headers = detached(&std::mem::take(&mut prepared.forwarded));
    let prepared = Box::new(prepared);
    found.missing.shrink_to_fit();
    async move {
        if !found.is_blocked() {
            let running = Box::pin(go_on(prepared, headers, Next::Run(found)));
            return running.await;
        }
        // Boxed one by one, each before it is awaited: what waits must not keep room for what comes after.
        let waiting = Box::pin(wait(&prepared, found));
        if let Ok(next) = waiting.await {
            let running = Box::pin(go_on(prepared, headers, next));
            running.await;
        }
    }
}

async fn go_on(mut prepared: Box<Prepared>, headers: Box<[Header]>, next: Next) {
    for (name, value) in headers {
        prepared.forwarded.append(name, value);
    }
    let sink = prepared.sink.clone();
    let failed = match next {
        Next::Finished => return,
        Next::Failed(error) => error,
        Next::Run(found) => match Box::pin(prepared.agent(found)).await {
            Ok(agent) => return agent.run().await,
            Err(error) => error.into(),
        },
    };
    // A viewer that left has nothing to be told.
    let _ = sink.send(RunEvent::Error(failed)).await;
}

async fn wait(prepared: &Prepared, mut found: Found) -> Result<Next, Gone> {
    let (logins, sink) = (&prepared.logins, &prepared.sink);
    let needed: Vec<Missing> =
        found.missing.iter().filter(|(spec, _)| !spec.optional).map(|(_, missing)| missing.clone()).collect();
    let can_wait = logins.on_auth == OnAuth::Wait && needed.iter().all(|missing| missing.flow.is_some());
    if !can_wait {
        for notice in std::mem::take(&mut found.notices) {
            sink.send(RunEvent::Notice(notice)).await?;
        }
        logins.show(&found.logins(), sink).await?;
        return finish(sink).await;
    }
    logins.show(&found.logins(), sink).await?;
    let came = logins.wait_for(&needed, sink).await?;
    if let Came::Refused(reached) = came {
        return Ok(Next::Failed(limit_reached(reached)));
    }
    if let Some(notice) = explain(came, logins.wait.as_secs()) {
        sink.send(RunEvent::Notice(notice)).await?;
        return finish(sink).await;
    }
    let again = Box::pin(ask_again(prepared, found));
    again.await
}

/// Asks the servers that wanted a login, now that it is there.
async fn ask_again(prepared: &Prepared, mut found: Found) -> Result<Next, Gone> {
    let (logins, sink) = (&prepared.logins, &prepared.sink);
    let missing = std::mem::take(&mut found.missing);
    let asked = join_all(missing.into_iter().map(|(spec, _)| logins.resolve(spec, true))).await;
    let now = match gather(asked, &prepared.parts.links) {
        Ok(now) => now,
        Err(error) => return Ok(Next::Failed(error.into())),
    };
    found.ready.extend(now.ready);
    found.notices.extend(now.notices);
    found.missing = now.missing;
    if found.is_blocked() {
        // It has a login, and does not accept it: asking again and again would help nobody.
        logins.show(&found.logins(), sink).await?;
        return finish(sink).await;
    }
    Ok(Next::Run(found))
}

async fn finish(sink: &Sink) -> Result<Next, Gone> {
    sink.send(RunEvent::Finish { reason: FinishReason::AuthorizationRequired }).await?;
    Ok(Next::Finished)
}

/// What the reader is told when the wait ends without the logins.
pub(super) fn explain(came: Came, seconds: u64) -> Option<Notice> {
    let (code, message) = match came {
        Came::All => return None,
        Came::TimedOut => (
            "login_timed_out",
            format!(
                "Nobody logged in within {seconds} s. Log in with the link above, then send the request again."
            ),
        ),
        Came::Ended => (
            "login_ended",
            "The login was declined, or did not succeed. Send the request again to try once more.".to_owned(),
        ),
        Came::Refused(reached) => {
            ("limit_reached", format!("The run does not wait for the login: {reached}."))
        }
        Came::Stopping => (
            "gateway_stopping",
            "The gateway is being restarted. Log in with the link above, then send the request again."
                .to_owned(),
        ),
    };
    Some(Notice { code: code.to_owned(), message })
}

type Header = (HeaderName, HeaderValue);

/// The same headers, without the buffer that they were read into, and without the room that a map keeps.
fn detached(headers: &HeaderMap) -> Box<[Header]> {
    let copy = |value: &HeaderValue| {
        let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        copy.set_sensitive(value.is_sensitive());
        Some(copy)
    };
    headers.iter().filter_map(|(name, value)| Some((name.clone(), copy(value)?))).collect()
}
