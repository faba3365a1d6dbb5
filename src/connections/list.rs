//! Connections as applications and people see them: without their secrets.

use std::time::Duration;

use super::access::Endpoints;
use super::flow::{KeptApplication, host_of};
use super::pages::OwnConnection;
use super::revoke::owner_of_connection;
use super::service::Connections;
use super::{
    Application, ConnectionView, Error, FlowError, NotBegun, PageError, Reason, RevokeOutcome, Scopes, Wanted,
};
use crate::clean_json;
use crate::oauth::split_scopes;
use crate::store::ConnectionRow;

/// The namespace of a person's own machine.
const LOCAL: &str = "local";

impl Connections {
    /// The connections of a project, of one user and profile where given, newest first, without those that have ended;
    /// `most` at once, beginning after the connection `after`. `None` when there never was such a one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        project: &str,
        user: Option<&str>,
        profile: Option<&str>,
        after: Option<&str>,
        most: u32,
    ) -> Result<Option<Vec<ConnectionView>>, Error> {
        let store = &self.0.store;
        let after = match after {
            None => None,
            Some(id) => match store.find_connection(project, id).await? {
                Some(row) => Some((row.created_at, row.id)),
                None => return Ok(None),
            },
        };
        let rows = store.list_connections(project, user, profile, after, most.into()).await?;
        Ok(Some(rows.iter().map(view).collect()))
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
            challenge: None,
            scopes: if scopes.is_empty() { Scopes::AsAsked } else { Scopes::Exactly(scopes) },
            reason: Reason::ReAuthorize,
            application: KeptApplication::of(&row.application),
            callback_url: None,
            run_id: None,
            lasting: Duration::ZERO,
        };
        let host = wanted.label.clone();
        let why = match self.start_flow(&owner, wanted).await {
            Ok(flow) => return Ok(flow.connect_url),
            Err(FlowError::Store(error)) => return Err(error.into()),
            Err(FlowError::UserMismatch | FlowError::Unknown) => return Err(PageError::Unknown),
            Err(FlowError::NotNeeded(_) | FlowError::NotOffered(_)) => NotBegun::NotOffered,
            Err(FlowError::Unusable(_)) => NotBegun::Unusable,
            Err(FlowError::TooMany | FlowError::Busy(_)) => NotBegun::TooMany,
        };
        Err(PageError::NotBegun { host, why })
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
    clean_json::from_slice(&row.endpoints).ok()
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
