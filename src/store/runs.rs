//! Runs: what was asked, how it stands, and who carries it out. What happened in them is in `run_events`.
//!
//! Nobody's right to read is decided here. A run that has ended stays as it is; it can only be deleted.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use super::run_events::places;
use super::{Error, Row, Store, Transaction, Value, values};

/// One run. Times are milliseconds since 1970.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RunRow {
    pub project: String,
    pub id: String,
    /// Empty: nobody.
    pub user: String,
    /// Empty: none.
    pub profile: String,
    /// The id of the signed-in person it belongs to; empty when only the project's keys may read it.
    pub person: String,
    /// `completion`, `task` or `page`.
    pub kind: String,
    pub model: String,
    pub title: String,
    /// `queued`, `in_progress`, `requires_action`, `completed`, `failed`, `cancelled` or `incomplete`.
    pub status: String,
    /// Why it ended as it did.
    pub reason: Option<String>,
    /// `private`, `unlisted` or `public`.
    pub visibility: String,
    /// Tools of a user who is logged in were used.
    pub used_logins: bool,
    /// Kept until it is deleted, and in lists.
    pub stored: bool,
    /// JSON: an object.
    pub metadata: Vec<u8>,
    /// JSON: what the caller asked, without credentials.
    pub request: Vec<u8>,
    /// JSON: what else is needed to go on.
    pub state: Vec<u8>,
    /// The instance that carries it out; empty: nobody.
    pub owner: String,
    /// How often it has changed hands.
    pub takeovers: i64,
    pub cancel_requested: bool,
    pub created_at: i64,
    pub changed_at: i64,
    pub ended_at: Option<i64>,
    pub expires_at: Option<i64>,
    pub usage: RunUsage,
    /// Whose it is, as far as there are bounds for that: see [`Store::find_holding`]. Empty in lists.
    pub holder_group: String,
    pub holder_member: String,
    /// What it takes up, in bytes. 0 in lists.
    pub bytes: i64,
}

/// What a principal has stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    pub runs: i64,
    pub bytes: i64,
}

/// What of a run changes while it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunState {
    pub visibility: String,
    /// Milliseconds since 1970.
    pub ended_at: Option<i64>,
}

/// What a run has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunUsage {
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub turns: i64,
    pub tool_calls: i64,
}

/// What a write of the journal sets on a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunChange {
    pub project: String,
    pub run: String,
    pub status: String,
    pub reason: Option<String>,
    /// With this the run is over, for good.
    pub ended_at: Option<i64>,
    pub usage: RunUsage,
    /// `None`: as it is.
    pub visibility: Option<String>,
    /// Tools of a user who is logged in were used.
    pub used_logins: bool,
    /// It is kept for good from now on, whatever was decided when it began.
    pub keep: bool,
    /// What was added to what it takes up, in bytes.
    pub more_bytes: i64,
}

/// What a person wrote, and what a model answered, is nothing for a log.
impl fmt::Debug for RunRow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RunRow")
            .field("project", &self.project)
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("status", &self.status)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

impl RunUsage {
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        Ok(RunUsage {
            prompt_tokens: row.int("prompt_tokens")?,
            completion_tokens: row.int("completion_tokens")?,
            turns: row.int("turns")?,
            tool_calls: row.int("tool_calls")?,
        })
    }
}

impl RunRow {
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        let (request, state) = (row.bytes("request")?, row.bytes("state")?);
        Ok(RunRow {
            request,
            state,
            holder_group: row.text("holder_group")?,
            holder_member: row.text("holder_member")?,
            bytes: row.int("bytes")?,
            ..RunRow::read_listed(row)?
        })
    }

    /// All but `request` and `state`, which are empty.
    pub(super) fn read_listed(row: &Row) -> Result<Self, Error> {
        Ok(RunRow {
            project: row.text("project")?,
            id: row.text("id")?,
            user: row.wide_text("user_name")?,
            profile: row.wide_text("profile")?,
            person: row.wide_text("person")?,
            kind: row.text("kind")?,
            model: row.wide_text("model")?,
            title: row.wide_text("title")?,
            status: row.text("status")?,
            reason: row.opt_text("reason")?,
            visibility: row.text("visibility")?,
            used_logins: row.int("used_logins")? != 0,
            stored: row.int("stored")? != 0,
            metadata: row.bytes("metadata")?,
            request: Vec::new(),
            state: Vec::new(),
            owner: row.text("owner")?,
            takeovers: row.int("takeovers")?,
            cancel_requested: row.int("cancel_requested")? != 0,
            created_at: row.int("created_at")?,
            changed_at: row.int("changed_at")?,
            ended_at: row.opt_int("ended_at")?,
            expires_at: row.opt_int("expires_at")?,
            usage: RunUsage::read(row)?,
            holder_group: String::new(),
            holder_member: String::new(),
            bytes: 0,
        })
    }
}

impl RunChange {
    /// Takes up a later change of the same run. Behind the end of a run nothing changes.
    fn then(&mut self, later: RunChange) {
        if self.ended_at.is_none() {
            let visibility = later.visibility.clone().or(self.visibility.take());
            let more_bytes = self.more_bytes + later.more_bytes;
            *self = RunChange { visibility, more_bytes, ..later };
        }
    }

    fn add_to(self, values: &mut Vec<Value>) {
        let RunUsage { prompt_tokens, completion_tokens, turns, tool_calls } = self.usage;
        values.extend(values![
            self.project,
            self.run,
            self.status,
            self.reason,
            self.ended_at,
            prompt_tokens,
            completion_tokens,
            turns,
            tool_calls,
            self.visibility,
            i64::from(self.used_logins),
            i64::from(self.keep),
            self.more_bytes,
        ]);
    }
}

/// Changes in one statement; what is over goes one at a time.
const TOGETHER: usize = 16;
/// Parameters of one change.
const WIDTH: usize = 13;

static CHANGE_MANY: LazyLock<String> = LazyLock::new(|| change(TOGETHER));
static CHANGE_ONE: LazyLock<String> = LazyLock::new(|| change(1));

fn change(number: usize) -> String {
    let now = number * WIDTH + 1;
    format!(
        "UPDATE runs SET status = v.column3, reason = v.column4, ended_at = v.column5,
            prompt_tokens = v.column6, completion_tokens = v.column7, turns = v.column8, tool_calls = v.column9,
            visibility = COALESCE(v.column10, visibility), used_logins = v.column11,
            expires_at = CASE WHEN v.column12 = 1 THEN NULL ELSE expires_at END, bytes = bytes + v.column13,
            changed_at = CASE WHEN changed_at < ${now} THEN ${now} ELSE changed_at END
         FROM (VALUES {}) AS v
         WHERE runs.project = v.column1 AND runs.id = v.column2 AND runs.ended_at IS NULL AND runs.owner = ${}",
        places(number, WIDTH),
        now + 1
    )
}

impl Transaction {
    /// Adds a run.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is one with this id, in whatever project.
    pub async fn create_run(&mut self, run: &RunRow) -> Result<(), Error> {
        self.execute(
            "INSERT INTO runs (project, id, user_name, profile, person, kind, model, title, status, reason,
                visibility, stored, metadata, request, state, owner, takeovers, cancel_requested, created_at,
                changed_at, ended_at, expires_at, prompt_tokens, completion_tokens, turns, tool_calls, search, used_logins,
                holder_group, holder_member, bytes)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31)",
            values![
                &run.project,
                &run.id,
                run.user.as_bytes(),
                run.profile.as_bytes(),
                run.person.as_bytes(),
                &run.kind,
                run.model.as_bytes(),
                run.title.as_bytes(),
                &run.status,
                run.reason.clone(),
                &run.visibility,
                i64::from(run.stored),
                &run.metadata,
                &run.request,
                &run.state,
                &run.owner,
                run.takeovers,
                i64::from(run.cancel_requested),
                run.created_at,
                run.changed_at,
                run.ended_at,
                run.expires_at,
                run.usage.prompt_tokens,
                run.usage.completion_tokens,
                run.usage.turns,
                run.usage.tool_calls,
                run.title.to_lowercase().into_bytes(),
                i64::from(run.used_logins),
                &run.holder_group,
                &run.holder_member,
                run.bytes,
            ],
        )
        .await
        .map(drop)
    }

    /// Changes runs that `owner` carries out and that have not ended, in this order, and says how many runs that were: fewer than were named when
    /// some have ended, or were deleted, since.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn change_runs(&mut self, owner: &str, changes: &[RunChange], now: i64) -> Result<u64, Error> {
        let mut merged: Vec<RunChange> = Vec::with_capacity(changes.len());
        let mut known: HashMap<(&str, &str), usize> = HashMap::with_capacity(changes.len());
        for change in changes {
            let at = *known.entry((&change.project, &change.run)).or_insert(merged.len());
            match merged.get_mut(at) {
                Some(earlier) => earlier.then(change.clone()),
                None => merged.push(change.clone()),
            }
        }
        let mut changed = 0;
        let mut left = merged.into_iter();
        while left.len() > 0 {
            let (sql, number): (&'static str, _) =
                if left.len() >= TOGETHER { (&CHANGE_MANY, TOGETHER) } else { (&CHANGE_ONE, 1) };
            let mut values = Vec::with_capacity(number * WIDTH + 2);
            left.by_ref().take(number).for_each(|change| change.add_to(&mut values));
            values.push(Value::from(now));
            values.push(Value::from(owner));
            changed += self.execute(sql, values).await?;
        }
        Ok(changed)
    }
}

impl Store {
    /// What a group has stored, or a member of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_holding(&self, group: &str, member: Option<&str>) -> Result<Holding, Error> {
        let (sql, values) = match member {
            Some(member) => (
                "SELECT COUNT(*) AS number, CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS bytes FROM runs
                 WHERE holder_group <> '' AND holder_group = $1 AND holder_member = $2",
                values![group, member],
            ),
            None => (
                "SELECT COUNT(*) AS number, CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS bytes FROM runs
                 WHERE holder_group <> '' AND holder_group = $1",
                values![group],
            ),
        };
        let row = self.row(sql, values).await?;
        row.map_or(Ok(Holding::default()), |row| {
            Ok(Holding { runs: row.int("number")?, bytes: row.int("bytes")? })
        })
    }

    /// Up to `most` runs of an owner that have not ended, by id.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_under_way(&self, owner: &str, most: i64) -> Result<Vec<String>, Error> {
        let sql =
            "SELECT id FROM runs WHERE owner = $1 AND ended_at IS NULL ORDER BY created_at, id LIMIT $2";
        self.rows(sql, values![owner, most]).await?.iter().map(|row| row.text("id")).collect()
    }

    /// Who may read the run of this id, and when it ended.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_run_state(&self, id: &str) -> Result<Option<RunState>, Error> {
        let row = self.row("SELECT visibility, ended_at FROM runs WHERE id = $1", values![id]).await?;
        let read = |row: Row| {
            Ok(RunState { visibility: row.text("visibility")?, ended_at: row.opt_int("ended_at")? })
        };
        row.map(read).transpose()
    }

    /// The run of this id, whosever it is. Who may read it is decided by who asks.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_run(&self, id: &str) -> Result<Option<RunRow>, Error> {
        let row = self.row("SELECT * FROM runs WHERE id = $1", values![id]).await?;
        row.as_ref().map(RunRow::read).transpose()
    }

    /// Changes what people may change, where given; says whether there is such a run.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update_run(
        &self,
        project: &str,
        id: &str,
        metadata: Option<&[u8]>,
        visibility: Option<&str>,
        now: i64,
    ) -> Result<bool, Error> {
        let changed = self
            .execute(
                "UPDATE runs SET metadata = COALESCE($3, metadata), visibility = COALESCE($4, visibility),
                    changed_at = CASE WHEN changed_at < $5 THEN $5 ELSE changed_at END
                 WHERE project = $1 AND id = $2",
                values![project, id, metadata.map(<[u8]>::to_vec), visibility, now],
            )
            .await?;
        Ok(changed > 0)
    }

    /// Changes who may read a run, where it still is as somebody saw it. False when it is not.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn share_run(
        &self,
        project: &str,
        id: &str,
        shown: (&str, bool),
        visibility: &str,
        now: i64,
    ) -> Result<bool, Error> {
        let (shown_visibility, shown_logins) = shown;
        let changed = self
            .execute(
                "UPDATE runs SET visibility = $3,
                    changed_at = CASE WHEN changed_at < $4 THEN $4 ELSE changed_at END
                 WHERE project = $1 AND id = $2 AND visibility = $5 AND used_logins = $6",
                values![project, id, visibility, now, shown_visibility, i64::from(shown_logins)],
            )
            .await?;
        Ok(changed > 0)
    }

    /// Asks whoever carries the run out to stop. False when there is no such run, or it has ended.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn request_cancel(&self, project: &str, id: &str, now: i64) -> Result<bool, Error> {
        let changed = self
            .execute(
                "UPDATE runs SET cancel_requested = 1,
                    changed_at = CASE WHEN changed_at < $3 THEN $3 ELSE changed_at END
                 WHERE project = $1 AND id = $2 AND ended_at IS NULL",
                values![project, id, now],
            )
            .await?;
        Ok(changed > 0)
    }

    /// Project and id of an owner's runs that are to stop and have not yet; those of nobody for `""`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_cancel_requested(&self, owner: &str) -> Result<Vec<(String, String)>, Error> {
        let rows = self
            .rows(
                "SELECT project, id FROM runs WHERE owner = $1 AND ended_at IS NULL AND cancel_requested = 1
                 ORDER BY project, id",
                values![owner],
            )
            .await?;
        rows.iter().map(|row| Ok((row.text("project")?, row.text("id")?))).collect()
    }
}
