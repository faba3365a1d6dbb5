//! People who signed in.

use super::{Error, Row, Store, values};

/// A person, as their sign-in provider names them. Text from the provider is bounded by whoever made this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// `acct_…`, for good.
    pub id: String,
    /// The name of the `[[sign_in]]` entry last used.
    pub provider: String,
    pub issuer: String,
    /// Unique and stable at the issuer.
    pub subject: String,
    /// What the person calls themself: a name, an address. Decides nothing.
    pub label: String,
    pub created_at: i64,
    pub signed_in_at: i64,
}

impl Account {
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        Ok(Account {
            id: row.text("id")?,
            provider: row.text("provider")?,
            issuer: row.text("issuer")?,
            subject: row.text("subject")?,
            label: row.wide_text("label")?,
            created_at: row.int("created_at")?,
            signed_in_at: row.int("signed_in_at")?,
        })
    }
}

impl Store {
    /// Puts a person who just signed in into the books. Who is there already, by issuer and subject, keeps id and age.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_account(&self, new: &Account) -> Result<Account, Error> {
        let rows = self
            .change(
                "INSERT INTO accounts (id, provider, issuer, subject, label, created_at, signed_in_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) \
                 ON CONFLICT (issuer, subject) DO UPDATE SET \
                 provider = excluded.provider, label = excluded.label, signed_in_at = excluded.signed_in_at \
                 RETURNING id, provider, issuer, subject, label, created_at, signed_in_at",
                values![
                    &new.id,
                    &new.provider,
                    &new.issuer,
                    &new.subject,
                    new.label.as_bytes(),
                    new.created_at,
                    new.signed_in_at
                ],
            )
            .await?;
        let row = rows.first().ok_or_else(|| Error::Unexpected("an account vanished".to_owned()))?;
        Account::read(row)
    }
}
