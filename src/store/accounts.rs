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
    /// The domain of their verified e-mail address; empty when the provider vouched for none.
    pub email_domain: String,
    pub created_at: i64,
    pub signed_in_at: i64,
}

/// Where a person signed in: what decides whether they are let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountOrigin {
    pub id: String,
    pub provider: String,
    pub issuer: String,
    pub email_domain: String,
}

impl Account {
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        Ok(Account {
            id: row.text("id")?,
            provider: row.text("provider")?,
            issuer: row.text("issuer")?,
            subject: row.text("subject")?,
            label: row.wide_text("label")?,
            email_domain: row.text("email_domain")?,
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
                "INSERT INTO accounts (id, provider, issuer, subject, label, created_at, signed_in_at, email_domain) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
                 ON CONFLICT (issuer, subject) DO UPDATE SET \
                 provider = excluded.provider, label = excluded.label, signed_in_at = excluded.signed_in_at, \
                 email_domain = excluded.email_domain \
                 RETURNING id, provider, issuer, subject, label, created_at, signed_in_at, email_domain",
                values![
                    &new.id,
                    &new.provider,
                    &new.issuer,
                    &new.subject,
                    new.label.as_bytes(),
                    new.created_at,
                    new.signed_in_at,
                    &new.email_domain
                ],
            )
            .await?;
        let row = rows.first().ok_or_else(|| Error::Unexpected("an account vanished".to_owned()))?;
        Account::read(row)
    }

    /// The person whom an application names so: by their account's id, or as `{provider}:{subject}`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_account(&self, name: &str) -> Result<Option<Account>, Error> {
        let (provider, subject) = name.split_once(':').unwrap_or_default();
        let row = self
            .row(
                "SELECT * FROM accounts WHERE id = $1 OR (provider = $2 AND subject = $3) \
                 ORDER BY signed_in_at DESC LIMIT 1",
                values![name, provider, subject],
            )
            .await?;
        row.as_ref().map(Account::read).transpose()
    }

    /// Everybody who is signed in somewhere.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_signed_in(&self) -> Result<Vec<AccountOrigin>, Error> {
        let sql = "SELECT id, provider, issuer, email_domain FROM accounts \
                   WHERE id IN (SELECT account FROM sessions) ORDER BY id";
        let rows = self.rows(sql, values![]).await?;
        rows.iter()
            .map(|row| {
                Ok(AccountOrigin {
                    id: row.text("id")?,
                    provider: row.text("provider")?,
                    issuer: row.text("issuer")?,
                    email_domain: row.text("email_domain")?,
                })
            })
            .collect()
    }
}
