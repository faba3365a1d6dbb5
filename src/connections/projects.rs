//! The end of a project, and of what its users had not finished.

use super::Error;
use super::service::Connections;
use crate::store::DeletedProject;

impl Connections {
    /// Deletes a project with its keys, unless its users have connections in use. Tokens of logins that waited for
    /// somebody's word are revoked by a gateway that runs, now or later.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub async fn delete_project(&self, name: &str) -> Result<DeletedProject, Error> {
        let inner = &self.0;
        inner.store.delete_project(name, async |open, flow| inner.revoke_held(open, flow).await).await
    }
}
