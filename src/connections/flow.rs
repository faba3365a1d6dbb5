//! Starting flows: the missing login becomes a link.

use http::Uri;
use serde::{Deserialize, Serialize};

use super::access::Holdings;
use super::offer::wanted_scopes;
use super::service::{Connections, Inner};
use super::vault::Bound;
use super::{Application, Error, FlowError, Owner, PendingFlow, Reason, Scopes, Wanted};
use crate::clean_json;
use crate::config::PassThroughLogins;
use crate::crypto::sha256;
use crate::id::{random_bytes, random_id};
use crate::oauth::{self, split_scopes};
use crate::store::{FLOW_CALLBACK_KEY, FLOW_LINK, FlowRow, ProjectProof};

/// How long a link is good, in milliseconds.
pub(super) const LIFE: i64 = 600_000;
/// A pending flow is joined while it lasts this long at least, in milliseconds.
const JOIN: i64 = 60_000;
/// Open flows of one user; more are a program gone wild.
const MOST_PENDING: i64 = 500;
/// A connection made this shortly ago, in milliseconds, answers a request that did not know of it yet.
const JUST_MADE: i64 = 30_000;

/// What is kept of a discovery until the flow ends, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    pub authorization_server: String,
    pub resource_name: Option<String>,
    #[serde(default)]
    pub scopes_listed: Vec<String>,
    pub server: oauth::ServerMetadata,
}

/// What the consent page calls the caller, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeptApplication {
    pub name: String,
    pub verified: bool,
}

impl KeptApplication {
    pub(super) fn of(bytes: &[u8]) -> Application {
        let kept: Option<KeptApplication> = clean_json::from_slice(bytes).ok();
        let kept = kept.unwrap_or(KeptApplication { name: "an application".into(), verified: false });
        Application { name: kept.name.into(), verified: kept.verified, place: None }
    }
}

/// What who asks for a deleted project is told.
const PROJECT_GONE: &str = "the project does not exist any more; ask the gateway's operator for a new key";

/// What who brings no key of the gateway's is told.
const NO_PASS_THROUGH: &str = "this gateway gives login links only to callers with one of its own API keys; its operator can allow them to everybody with `pass_through.logins = \"on\"`";

/// What is said of somebody who has signed in and is not let in any more.
const OUTSIDER: &str = "this user may not sign in to the gateway any more; `allowed_domains` of its `[[sign_in]]` leaves them out";

/// How a project's people are proven.
struct Policy {
    proof: &'static str,
    verifier_url: Option<String>,
    /// When the project was made; `None` when it is not one of the store.
    made_at: Option<i64>,
}

impl Connections {
    /// Whether the users of a project are people who sign in here, so that their runs are in their lists.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn has_people(&self, project: &str) -> Result<bool, Error> {
        self.0.has_people(project).await
    }

    /// Finds or creates the flow for a login that is missing. What the server offers is looked up here, and nobody is
    /// registered yet.
    ///
    /// # Errors
    /// Why there can be none, or not now, or when the store fails.
    pub async fn start_flow(&self, owner: &Owner, mut wanted: Wanted) -> Result<PendingFlow, FlowError> {
        let inner = &self.0;
        let policy = inner.policy(&owner.project).await?;
        // Before anything is looked up: a link that nobody could complete is not given out.
        inner.check_link_use(owner, &policy)?;
        if inner.is_outsider(owner).await? {
            return Err(FlowError::NotOffered(OUTSIDER.to_owned()));
        }
        // Nobody waits for a link that ends sooner than the waiting.
        let lasting = i64::try_from(wanted.lasting.as_millis()).unwrap_or(LIFE).clamp(JOIN, LIFE);
        // Who joins a flow begins none. Who can join none is counted before anything is looked up.
        let mut counted = wanted.application.verified;
        if !counted && !inner.may_join(owner, &wanted, lasting).await? {
            inner.count_unverified(&wanted.application)?;
            counted = true;
        }
        let found = inner.discover(&mut wanted).await?;
        inner.forget(owner);
        let holdings = inner.holdings(owner).await?;
        let scopes = wanted_scopes(inner, &holdings, &found, &wanted)?;
        let now = inner.now();
        let application = KeptApplication {
            name: wanted.application.name.to_string(),
            verified: wanted.application.verified,
        };
        let kept = Kept {
            authorization_server: found.authorization_server.clone(),
            resource_name: found.resource_name.clone(),
            scopes_listed: found.scopes_listed.clone(),
            server: found.server.clone(),
        };
        let id = random_id("flow_");
        let link = new_link();
        let bound = Bound { row: &id, project: &owner.project, user: &owner.user };
        let key = match &wanted.callback_url {
            Some(_) => Some(inner.callback_key(&owner.project).await?),
            None => None,
        };
        let mut row = FlowRow {
            project: owner.project.to_string(),
            link_hash: sha256(link.as_bytes()).to_vec(),
            sealed_link: inner.vault.seal(&FLOW_LINK, bound, link.as_bytes()),
            join_hash: None,
            user: owner.user.to_string(),
            profile: owner.profile.to_string(),
            resource: found.resource.clone(),
            server_url: wanted.uri.to_string(),
            server_label: wanted.label.clone(),
            scopes: scopes.join(" "),
            reason: reason_name(wanted.reason).to_owned(),
            application: serde_json::to_vec(&application).expect("texts are JSON"),
            proof: policy.proof.to_owned(),
            verifier_url: policy.verifier_url,
            callback_url: wanted.callback_url.clone(),
            sealed_callback_key: key
                .map(|key| inner.vault.seal(&FLOW_CALLBACK_KEY, bound, key.expose().as_bytes())),
            run_id: wanted.run_id.clone(),
            discovered: serde_json::to_vec(&kept).expect("texts are JSON"),
            state: "pending".to_owned(),
            outcome: None,
            browser_hash: None,
            proven: false,
            asked_hash: None,
            proof_hash: None,
            sealed_batch: None,
            sealed_verifier: None,
            client: None,
            sealed_tokens: None,
            account: None,
            connection: None,
            created_at: now,
            expires_at: now + LIFE,
            id,
        };
        let join_hash = join_hash(&row);
        row.join_hash = Some(join_hash.clone());
        if let Some(pending) = inner.store.find_flow_to_join(&join_hash, now + lasting).await? {
            return Ok(inner.pending(&pending, &inner.link_of(&pending)?));
        }
        if !counted {
            inner.count_unverified(&wanted.application)?;
        }
        if inner.store.count_pending_flows(&row.project, &row.user, now).await? >= MOST_PENDING {
            return Err(FlowError::TooMany);
        }
        let pending = inner.pending(&row, &link);
        let mut open = inner.store.begin().await?;
        if let Some(made_at) = policy.made_at
            && !open.hold_project(&owner.project, made_at).await?
        {
            return Err(FlowError::NotOffered(PROJECT_GONE.to_owned()));
        }
        if let Some(joined) = open.add_or_join_flow(&row, now + lasting).await? {
            return Ok(inner.pending(&joined, &inner.link_of(&joined)?));
        }
        // Somebody may have finished the very login between the server's refusal and now.
        let may_be_made = matches!(wanted.reason, Reason::FirstUse | Reason::Expired | Reason::Revoked)
            && matches!(wanted.scopes, Scopes::AsAsked);
        if may_be_made && let Some(made) = just_made(&holdings, &row, now) {
            open.end_flow(&row, "pending", "granted", None, Some(&made), now).await?;
            open.commit().await?;
            return Ok(pending);
        }
        open.add_audit(&inner.flow_entry(&row, "flow.created", "caller", None)).await?;
        inner.tell_flow(&mut open, &row, "authorization.requested", Some(&pending.connect_url)).await?;
        open.commit().await?;
        // And who finished it at this very moment could not see this flow yet. Whoever finishes it from now on does.
        if may_be_made {
            inner.forget(owner);
            if let Some(made) = just_made(&*inner.holdings(owner).await?, &row, now) {
                let mut open = inner.store.begin().await?;
                if open.end_flow(&row, "pending", "granted", None, Some(&made), now).await? {
                    inner.tell_flow(&mut open, &row, "authorization.completed", None).await?;
                    open.commit().await?;
                    inner.wake(&row.id).await;
                }
            }
        }
        Ok(pending)
    }

    /// One link that leads through all of these logins in one sitting.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn start_batch(&self, owner: &Owner, flows: &[PendingFlow]) -> Result<String, Error> {
        let link = new_link();
        let ids: Vec<&str> = flows.iter().map(|flow| &*flow.flow).collect();
        let end = flows.iter().map(|flow| flow.expires_at_ms).min().unwrap_or_else(|| self.0.now() + LIFE);
        let id = random_id("batch_");
        self.0.store.create_batch(&owner.project, &id, &sha256(link.as_bytes()), &ids, end + LIFE).await?;
        Ok(format!("{}/connect/{link}", self.0.public_url))
    }
}

/// What makes two wishes for a login the same: then one flow serves both.
fn join_hash(flow: &FlowRow) -> Vec<u8> {
    let alike = (
        (&flow.project, &flow.user, &flow.profile),
        (&flow.resource, &flow.server_url, &flow.scopes),
        (&flow.application, &flow.callback_url),
    );
    sha256(&serde_json::to_vec(&alike).expect("texts are JSON")).to_vec()
}

/// The connection to what `flow` is for, when it was made, or made anew, just now.
fn just_made(holdings: &Holdings, flow: &FlowRow, now: i64) -> Option<String> {
    let held = holdings.0.iter().find(|held| held.row.resource == flow.resource)?;
    let current = held.current();
    let is_new = current.ended.is_none() && now - current.issued_at < JUST_MADE;
    is_new.then(|| held.row.id.clone())
}

/// What stands in a link: 256 bits.
fn new_link() -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random_bytes::<32>())
}

pub(super) fn host_of(uri: &Uri) -> String {
    uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default()
}

pub(super) fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::FirstUse => "first_use",
        Reason::Expired => "expired",
        Reason::Revoked => "revoked",
        Reason::Refused => "refused",
        Reason::StepUp => "step_up",
        Reason::ReAuthorize => "reauthorize",
    }
}

pub(super) fn reason_of(name: &str) -> Reason {
    match name {
        "expired" => Reason::Expired,
        "revoked" => Reason::Revoked,
        "refused" => Reason::Refused,
        "step_up" => Reason::StepUp,
        "reauthorize" => Reason::ReAuthorize,
        _ => Reason::FirstUse,
    }
}

impl Inner {
    /// Whether there is a flow that may well serve this wish, too.
    async fn may_join(&self, owner: &Owner, wanted: &Wanted, lasting: i64) -> Result<bool, Error> {
        let after = self.now() + lasting;
        let (url, profile) = (wanted.uri.to_string(), &owner.profile);
        Ok(self.store.has_flow_to_join(&owner.project, &owner.user, profile, &url, after).await?)
    }

    /// Counts a flow for a caller that nobody vouches for. It can be another one with every request, so what counts is
    /// from where it comes: one place may have a tenth of what all have together.
    fn count_unverified(&self, application: &Application) -> Result<(), FlowError> {
        let all = self.unverified_per_minute;
        if let Some(place) = application.place.filter(|_| all > 0) {
            self.unverified.check(&place.to_string().into(), (all / 10).max(1)).map_err(FlowError::Busy)?;
        }
        self.unverified_together.check(&"unverified".into(), all).map_err(FlowError::Busy)
    }

    /// Whether the people of a project are those who sign in here: what it names as `user` is a person's id.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn has_people(&self, project: &str) -> Result<bool, Error> {
        if !project.starts_with("project:") {
            // Whoever names somebody without being trusted by the operator proves nothing.
            return Ok(false);
        }
        match self.policy(project).await {
            Ok(policy) => Ok(policy.proof == "gateway"),
            Err(FlowError::Store(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Whether a link for this owner would be of use, to them and to nobody else.
    fn check_link_use(&self, owner: &Owner, policy: &Policy) -> Result<(), FlowError> {
        let obstacle = match policy.proof {
            "local" => None,
            "app" => self.link_obstacle,
            _ => self.gateway_proof_obstacle,
        };
        if let Some(obstacle) = obstacle {
            let (reason, remedy) = (obstacle.reason(), obstacle.remedy());
            return Err(FlowError::NotOffered(format!("{reason}; its operator has to {remedy}")));
        }
        // Whoever comes with a key of their own making may name anybody, and the link would be genuine.
        let is_pass_through = policy.proof == "gateway" && owner.project.starts_with("pt:");
        if is_pass_through && self.pass_through_logins == PassThroughLogins::Off {
            return Err(FlowError::NotOffered(NO_PASS_THROUGH.to_owned()));
        }
        Ok(())
    }

    /// How the people of a project are proven.
    async fn policy(&self, project: &str) -> Result<Policy, FlowError> {
        if let Some(name) = project.strip_prefix("project:") {
            if let Some(found) = self.store.find_project(name).await? {
                let made_at = Some(found.created_at);
                return Ok(match found.proof {
                    ProjectProof::App => Policy { proof: "app", verifier_url: found.verifier_url, made_at },
                    ProjectProof::Gateway => Policy { proof: "gateway", verifier_url: None, made_at },
                });
            }
            // Whoever still comes with a key of it must not leave anything to the next project of this name.
            if !self.configured_projects.contains(name) {
                return Err(FlowError::NotOffered(PROJECT_GONE.to_owned()));
            }
        }
        let proof = if self.local { "local" } else { "gateway" };
        Ok(Policy { proof, verifier_url: None, made_at: None })
    }

    pub(super) fn link_of(&self, flow: &FlowRow) -> Result<String, Error> {
        let bound = Bound { row: &flow.id, project: &flow.project, user: &flow.user };
        Ok(self.vault.open_text(&FLOW_LINK, bound, &flow.sealed_link)?.expose().to_owned())
    }

    fn pending(&self, flow: &FlowRow, link: &str) -> PendingFlow {
        let host = flow.server_url.parse().map(|uri| host_of(&uri)).unwrap_or_default();
        PendingFlow {
            flow: flow.id.as_str().into(),
            connect_url: format!("{}/connect/{link}", self.public_url),
            resource: flow.server_url.clone(),
            host,
            scopes: split_scopes(&flow.scopes),
            expires_at_ms: flow.expires_at,
        }
    }
}
