//! Pages that a server wants a person to open before it runs a tool (MCP elicitation in URL mode).
//!
//! They are shown and never opened. Unlike a login link they are the server's, and whether the person is done there only
//! the server knows: it is asked again.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use url::Url;

use super::event::{AuthorizationRequired, LinkKind};
use super::execute::{Calling, Kept};
use super::logins::{Came, Missing};
use super::options::OnAuth;
use super::sink::Gone;
use crate::tools::{Error, PageRequired, ToolResult};

/// Pauses between the questions whether a page has been dealt with; the last one repeats.
const PAUSES_SECONDS: [u64; 5] = [1, 2, 3, 5, 10];

/// Until when one call waits for its person: the wait begins with the first page, and further ones add nothing to it.
#[derive(Default)]
pub(super) struct Patience(OnceLock<Instant>);

impl Patience {
    /// The end of the wait, which begins now unless it has begun.
    pub fn until(&self, wait: Duration) -> Instant {
        *self.0.get_or_init(|| Instant::now() + wait)
    }
}

/// Pages that one call waits for.
pub(super) struct Pages {
    required: PageRequired,
    shown: Vec<Missing>,
    /// How often the server was asked again.
    asked: usize,
}

impl Pages {
    /// What the server wants, to be asked about again.
    pub fn required(&self) -> &PageRequired {
        &self.required
    }
}

impl Calling<'_> {
    /// Shows the pages that the server wants opened, and waits until it is time to ask again. `before` is what it wanted
    /// the last time.
    pub(super) async fn open_pages(
        &self,
        before: Option<Pages>,
        required: PageRequired,
        patience: &Patience,
    ) -> Result<Pages, Kept> {
        let logins = self.logins;
        let shown = self.shown(&required).ok_or_else(|| {
            let refused = "a page to be opened whose address is not allowed".to_owned();
            Kept::Error(Error::InputRequired(refused))
        })?;
        if logins.on_auth != OnAuth::Wait {
            return Err(Kept::Missing(shown));
        }
        let asked = before.map_or(0, |before| before.asked + 1);
        let until = patience.until(logins.wait);
        logins.show(&shown, self.sink).await?;
        let _waiting = match logins.start_waiting() {
            Ok(guard) => guard,
            Err(reached) => return Err(Kept::Waited(Came::Refused(reached), shown)),
        };
        logins.show_waiting(&shown, self.sink).await?;
        let pause = PAUSES_SECONDS[asked.min(PAUSES_SECONDS.len() - 1)];
        tokio::select! {
            paused = timeout_at(until, sleep(Duration::from_secs(pause))) => match paused {
                Ok(()) => Ok(Pages { required, shown, asked }),
                Err(_) => Err(Kept::Waited(Came::TimedOut, shown)),
            },
            () = logins.stopping() => {
                logins.hand_over(self.sink)?;
                Err(Kept::Waited(Came::Stopping, shown))
            }
        }
    }

    /// Says that the pages have been dealt with, when `raw` is what the tool was called for: a tool that fails may fail
    /// for want of just that.
    pub(super) async fn show_dealt_with(&self, pages: &Pages, raw: &[u8]) -> Result<(), Gone> {
        if ToolResult::parse(raw).is_ok_and(|result| !result.is_error) {
            for page in &pages.shown {
                self.logins.show_authorized(page, self.sink).await?;
            }
        }
        Ok(())
    }

    /// What the reader is shown, in the gateway's words; `None` when an address is none that it shows.
    fn shown(&self, required: &PageRequired) -> Option<Vec<Missing>> {
        required.pages.iter().map(|page| self.page(page)).collect()
    }

    /// What the reader is shown of a page, in the gateway's words; `None` when its address is none that it shows.
    pub(super) fn page(&self, page: &Url) -> Option<Missing> {
        let (parts, spec) = (&self.logins.parts, &self.server.spec);
        let loopback = match page.host()? {
            url::Host::Domain(name) => name == "localhost",
            url::Host::Ipv4(address) => address.is_loopback(),
            url::Host::Ipv6(address) => address.is_loopback(),
        };
        let bare = page.username().is_empty() && page.password().is_none();
        let allowed = page.scheme() == "https" || (parts.local && loopback);
        // A page of the gateway's own would look like a login link of the gateway's own, as would an address that has one
        // in it.
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_page_adds_nothing_to_the_wait() {
        let patience = Patience::default();
        let first = patience.until(Duration::from_secs(60));
        assert_eq!(patience.until(Duration::from_secs(600)), first);
    }
}
