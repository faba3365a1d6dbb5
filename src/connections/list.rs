//! Connections as applications and people see them: without their secrets.

use super::access::Endpoints;
use super::flow::{KeptApplication, host_of};
use super::pages::OwnConnection;
use super::revoke::owner_of_connection;
use super::service::Connections;
use super::{Application, ConnectionView, Error, FlowError, PageError, Reason, RevokeOutcome, Wanted};
use crate::oauth::{Challenge, split_scopes};
use crate::store::ConnectionRow;

/// The namespace of a person's own machine.
const LOCAL: &str = "local";

impl Connections {
    /// The connections of a project, of one user and profile where given; those that have ended are left out.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        project: &str,
        user: Option<&str>,
        profile: Option<&str>,
    ) -> Result<Vec<ConnectionView>, Error> {
        let rows = self.0.store.list_connections(project, user, profile).await?;
        Ok(rows.iter().map(view).collect())
    }

    /// One connection of a project, of this user where given, unless it has ended.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn find(
        &self,
        project: &str,
        user: Option<&str>,
        id: &str,
    ) -> Result<Option<ConnectionView>, Error> {
        let row = self.0.store.find_connection(project, id).await?;
        let row = row.filter(|row| row.status != "revoked" && user.is_none_or(|user| user == row.user));
        Ok(row.as_ref().map(view))
    }

    /// What the person with these ids connected under the gateway's own proof, or at their machine. What an
    /// application vouched for is not shown: it could plant rows in a stranger's list.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_own(&self, ids: &[String]) -> Result<Vec<OwnConnection>, Error> {
        Ok(self.own(ids).await?.iter().map(own_view).collect())
    }

    /// Ends one of them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revoke_own(&self, ids: &[String], project: &str, id: &str) -> Result<RevokeOutcome, Error> {
        let own = self.own(ids).await?;
        match own.iter().find(|row| row.project == project && row.id == id) {
            Some(row) => self.revoke_row(row, "user", "person").await,
            None => Ok(RevokeOutcome::NotFound),
        }
    }

    /// A link for one of them, with other scopes.
    ///
    /// # Errors
    /// See [`PageError`].
    pub async fn reauthorize_own(
        &self,
        ids: &[String],
        project: &str,
        id: &str,
        scopes: Vec<String>,
    ) -> Result<String, PageError> {
        let own = self.own(ids).await?;
        let row = own.iter().find(|row| row.project == project && row.id == id).ok_or(PageError::Unknown)?;
        let owner = owner_of_connection(row);
        let uri = endpoints(row).and_then(|endpoints| endpoints.server_url.parse().ok());
        let uri: http::Uri = uri.ok_or(PageError::Unknown)?;
        let wanted = Wanted {
            label: host_of(&uri),
            uri,
            challenge: Some(Challenge {
                status: 403,
                error: Some("insufficient_scope".to_owned()),
                scope: Some(scopes.join(" ")).filter(|scope| !scope.is_empty()),
                resource_metadata: None,
            }),
            reason: Reason::ReAuthorize,
            application: KeptApplication::of(&row.application),
            callback_url: None,
            run_id: None,
        };
        match self.start_flow(&owner, wanted).await {
            Ok(flow) => Ok(flow.connect_url),
            Err(FlowError::Store(error)) => Err(error.into()),
            Err(
                FlowError::NotOffered(_)
                | FlowError::NotPossible(_)
                | FlowError::UserMismatch
                | FlowError::Unknown
                | FlowError::Busy(_),
            ) => Err(PageError::Unknown),
        }
    }

    async fn own(&self, ids: &[String]) -> Result<Vec<ConnectionRow>, Error> {
        let inner = &self.0;
        let mut rows = Vec::new();
        if inner.local {
            rows.extend(inner.store.list_connections_everywhere(Some(LOCAL), None, None).await?);
        }
        for id in ids {
            rows.extend(inner.store.list_connections_everywhere(None, Some(id), None).await?);
        }
        let mut seen = std::collections::HashSet::new();
        rows.retain(|row| {
            let own = match endpoints(row).map(|endpoints| endpoints.proof).as_deref() {
                Some("gateway") => ids.contains(&row.user),
                Some("local") => inner.local && row.project == LOCAL,
                _ => false,
            };
            own && seen.insert((row.project.clone(), row.id.clone()))
        });
        Ok(rows)
    }
}

fn endpoints(row: &ConnectionRow) -> Option<Endpoints> {
    serde_json::from_slice(&row.endpoints).ok()
}

fn view(row: &ConnectionRow) -> ConnectionView {
    ConnectionView {
        id: row.id.clone(),
        user: row.user.clone(),
        profile: row.profile.clone(),
        server_url: endpoints(row).map(|endpoints| endpoints.server_url).unwrap_or_default(),
        resource: row.resource.clone(),
        account: row.account.clone(),
        scopes: split_scopes(&row.scopes),
        status: row.status.clone(),
        application: KeptApplication::of(&row.application).name.to_string(),
        created_at_ms: row.created_at,
        last_used_at_ms: row.last_used_at,
    }
}

fn own_view(row: &ConnectionRow) -> OwnConnection {
    let application: Application = KeptApplication::of(&row.application);
    OwnConnection {
        id: row.id.clone(),
        project: row.project.clone(),
        profile: row.profile.clone(),
        host: endpoints(row)
            .and_then(|endpoints| endpoints.server_url.parse().ok())
            .map(|uri| host_of(&uri))
            .unwrap_or_default(),
        resource: row.resource.clone(),
        account: row.account.clone(),
        application,
        scopes: split_scopes(&row.scopes),
        needs_login: row.status == "needs_reauth",
        last_used_at_ms: row.last_used_at,
    }
}
