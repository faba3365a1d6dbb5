//! Pages that a server wants a person to open before it runs a tool (MCP elicitation in URL mode).
//!
//! They are shown and never opened. Unlike a login link they are the server's, and whether the person is done there only
//! the server knows: it is asked again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, timeout_at};

use super::event::{AuthorizationRequired, LinkKind};
use super::execute::{Calling, Kept};
use super::logins::{Came, Missing};
use super::options::OnAuth;
use crate::connections::Access;
use crate::tools::{Error, PageRequired};

/// Pauses between the questions whether a page has been dealt with; the last one repeats.
const PAUSES_SECONDS: [u64; 5] = [1, 2, 3, 5, 10];

impl Calling<'_> {
    /// Shows pages that the server wants opened, and asks again until it is content or the time is up.
    pub(super) async fn through_pages(
        &self,
        access: Option<&Access>,
        arguments: &Map<String, Value>,
        mut required: PageRequired,
    ) -> Result<Bytes, Kept> {
        let logins = self.logins;
        let until = Instant::now() + logins.wait;
        let mut pauses = PAUSES_SECONDS.iter();
        let mut pause = PAUSES_SECONDS[0];
        loop {
            let pages = self.pages(&required).ok_or_else(|| {
                let refused = "a page to be opened whose address is not allowed".to_owned();
                Kept::Error(Error::InputRequired(refused))
            })?;
            if logins.on_auth != OnAuth::Wait {
                return Err(Kept::Missing(pages));
            }
            logins.show(&pages, self.sink).await?;
            logins.show_waiting(&pages, self.sink).await?;
            pause = pauses.next().copied().unwrap_or(pause);
            tokio::select! {
                paused = timeout_at(until, sleep(Duration::from_secs(pause))) => {
                    if paused.is_err() {
                        return Err(Kept::Waited(Came::TimedOut, pages));
                    }
                }
                () = logins.stopping() => return Err(Kept::Waited(Came::Stopping, pages)),
            }
            match self.once(access, arguments, Some(&required)).await {
                Err(Error::PageRequired(again)) => required = *again,
                other => {
                    for page in &pages {
                        logins.show_authorized(page, self.sink).await?;
                    }
                    return other.map_err(Kept::Error);
                }
            }
        }
    }

    /// What the reader is shown, in the gateway's words; `None` when an address is none that it shows.
    fn pages(&self, required: &PageRequired) -> Option<Vec<Missing>> {
        let (parts, spec) = (&self.logins.parts, &self.server.spec);
        let shown = required.pages.iter().map(|page| {
            let loopback = match page.host()? {
                url::Host::Domain(name) => name == "localhost",
                url::Host::Ipv4(address) => address.is_loopback(),
                url::Host::Ipv6(address) => address.is_loopback(),
            };
            let bare = page.username().is_empty() && page.password().is_none();
            let allowed = page.scheme() == "https" || (parts.local && loopback);
            // A page of the gateway's own would look like a login link of the gateway's own, as would an address that
            // has one in it.
            if !allowed || !bare || parts.links.lead_to(page) || parts.links.are_in(page.as_str()) {
                return None;
            }
            let reason = format!(
                "{} asks that you open this page before it goes on. It is not a page of this gateway: check the address.",
                spec.host()
            );
            Some(Missing {
                shown: Arc::new(AuthorizationRequired {
                    resource: spec.server_url.clone(),
                    server_label: spec.label.clone(),
                    host: spec.host().to_owned(),
                    connect_url: Some(page.to_string()),
                    scopes: Vec::new(),
                    reason,
                    expires_at: None,
                    kind: LinkKind::Elicitation,
                }),
                flow: None,
            })
        });
        shown.collect()
    }
}
