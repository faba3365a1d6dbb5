//! What happened in runs, a batch of events a row. Only ever added to, until the run goes.
//!
//! The store does not read `events` and `steps`. Both are sequences that may be put one behind the other (lines), which
//! is how a run that is over is made smaller.

use std::fmt;
use std::fmt::Write as _;
use std::sync::LazyLock;

use super::wipe::Blank;
use super::{Error, Row, Store, Transaction, Value, values};

/// Batches in one statement, as many as there are: each statement is a way to another thread, or another machine.
const TOGETHER: [usize; 3] = [16, 4, 1];
/// Parameters of one batch.
const WIDTH: usize = 7;
/// Rows that are looked at in one go when a run is made smaller.
const PIECE: i64 = 64;
/// Most bytes of the rows that small ones become.
const FULL: usize = 256 * 1024;

/// Some events of a run.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RunBatch {
    pub project: String,
    pub run: String,
    /// Its place among the batches of the run. Growing, and taken once only.
    pub place: i64,
    /// The number of its first event, from 0; of the next one, where it has none.
    pub first: i64,
    /// How many events there are.
    pub number: i64,
    pub events: Vec<u8>,
    /// What else is needed to go on from here.
    pub steps: Option<Vec<u8>>,
}

/// What a model answered is nothing for a log.
impl fmt::Debug for RunBatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RunBatch")
            .field("run", &self.run)
            .field("place", &self.place)
            .field("first", &self.first)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl RunBatch {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(RunBatch {
            project: row.text("project")?,
            run: row.text("run")?,
            place: row.int("place")?,
            first: row.int("first")?,
            number: row.int("number")?,
            events: row.bytes("events")?,
            steps: None,
        })
    }

    fn read_with_steps(row: &Row) -> Result<Self, Error> {
        Ok(RunBatch { steps: row.opt_bytes("steps")?, ..RunBatch::read(row)? })
    }

    fn add_to(self, values: &mut Vec<Value>) {
        let RunBatch { project, run, place, first, number, events, steps } = self;
        values.extend(values![project, run, place, first, number, events, steps]);
    }

    fn size(&self) -> usize {
        self.events.len() + self.steps.as_ref().map_or(0, Vec::len)
    }

    /// Puts the next batch behind this one.
    fn then(&mut self, next: RunBatch) {
        self.number += next.number;
        self.events.extend(next.events);
        if let Some(steps) = next.steps {
            self.steps.get_or_insert_default().extend(steps);
        }
    }
}

/// `($1, $2), ($3, $4)` for two rows of two parameters.
pub(super) fn places(rows: usize, width: usize) -> String {
    let mut text = String::new();
    for at in 0..rows * width {
        let before = match (at, at % width) {
            (0, _) => "(",
            (_, 0) => "), (",
            _ => ", ",
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "{before}${}", at + 1);
    }
    text.push(')');
    text
}

static ADD: LazyLock<[String; 3]> = LazyLock::new(|| TOGETHER.map(add));

/// Events of a run that was deleted meanwhile are not kept: nothing would ever delete them. Nor are those of one that
/// somebody else carries out.
fn add(number: usize) -> String {
    format!(
        "INSERT INTO run_events (project, run, place, first, number, events, steps)
         SELECT v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7
         FROM (VALUES {}) AS v
         WHERE EXISTS (SELECT 1 FROM runs r
            WHERE r.project = v.column1 AND r.id = v.column2 AND r.owner = ${})",
        places(number, WIDTH),
        number * WIDTH + 1
    )
}

impl Transaction {
    /// Adds batches of runs that `owner` carries out and says how many: fewer than were given when runs have been deleted or
    /// taken over. Comes behind
    /// [`Transaction::still_alive`], which also keeps the runs of this instance from being deleted in between.
    ///
    /// # Errors
    /// [`Error::Exists`] when a place is taken: somebody else carries the run out.
    pub async fn append_events(&mut self, owner: &str, batches: Vec<RunBatch>) -> Result<u64, Error> {
        let mut added = 0;
        let mut left = batches.into_iter();
        while let Some(which) = TOGETHER.iter().position(|number| *number <= left.len()) {
            let (sql, number): (&'static str, _) = (&ADD[which], TOGETHER[which]);
            let mut values = Vec::with_capacity(number * WIDTH + 1);
            left.by_ref().take(number).for_each(|batch| batch.add_to(&mut values));
            values.push(Value::from(owner));
            added += self.execute(sql, values).await?;
        }
        Ok(added)
    }

    /// Turns the many small batches of a run that has ended into few, and says how many are left; `None` when there is
    /// no such run, or it goes on. Numbers of events stay, places grow as before.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn compact_run(&mut self, project: &str, run: &str) -> Result<Option<u64>, Error> {
        // Nobody deletes it, or does the same, meanwhile.
        let ended =
            "UPDATE runs SET ended_at = ended_at WHERE project = $1 AND id = $2 AND ended_at IS NOT NULL
            RETURNING owner";
        let Some(row) = self.row(ended, values![project, run]).await? else { return Ok(None) };
        let owner = row.text("owner")?;
        // Nobody goes on with it any more.
        let sql = "UPDATE run_events SET steps = NULL WHERE project = $1 AND run = $2 AND steps IS NOT NULL";
        self.execute(sql, values![project, run]).await?;
        let (mut left, mut behind) = (0, i64::MIN);
        // What the rows so far become, and of how many of them.
        let mut full: Option<(RunBatch, u64)> = None;
        loop {
            let next = "SELECT * FROM run_events WHERE project = $1 AND run = $2 AND place > $3
                ORDER BY place LIMIT $4";
            let rows = self.rows(next, values![project, run, behind, PIECE]).await?;
            let is_last = rows.len() < PIECE.unsigned_abs() as usize;
            for row in &rows {
                let batch = RunBatch::read_with_steps(row)?;
                behind = batch.place;
                match &mut full {
                    Some((before, rows)) if before.size() + batch.size() <= FULL => {
                        before.then(batch);
                        *rows += 1;
                    }
                    _ => left += replace(self, &owner, full.replace((batch, 1)), behind).await?,
                }
            }
            if is_last {
                left += replace(self, &owner, full, i64::MAX).await?;
                return Ok(Some(left));
            }
        }
    }
}

impl Store {
    /// The batches of a run that hold events, in order, from the one with the event of this number; at most so many.
    /// Their steps are left out.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_run_events(
        &self,
        project: &str,
        run: &str,
        from_event: i64,
        most_rows: i64,
    ) -> Result<Vec<RunBatch>, Error> {
        // The last batch that begins at or before the event is sought from the end: who follows a run reads what is
        // new without reading what is old.
        let sql = if from_event <= 0 {
            "SELECT project, run, place, first, number, events FROM run_events
             WHERE project = $1 AND run = $2 AND number > 0 AND first + number > $3 ORDER BY place LIMIT $4"
        } else {
            "SELECT project, run, place, first, number, events FROM run_events
             WHERE project = $1 AND run = $2 AND number > 0 AND first + number > $3 AND place >= COALESCE((
                SELECT b.place FROM run_events b WHERE b.project = $1 AND b.run = $2 AND b.first <= $3
                ORDER BY b.place DESC LIMIT 1), 0)
             ORDER BY place LIMIT $4"
        };
        let rows = self.rows(sql, values![project, run, from_event.max(0), most_rows]).await?;
        rows.iter().map(RunBatch::read).collect()
    }

    /// Every batch of a run that has steps, in order.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_run_steps(&self, project: &str, run: &str) -> Result<Vec<RunBatch>, Error> {
        let sql =
            "SELECT * FROM run_events WHERE project = $1 AND run = $2 AND steps IS NOT NULL ORDER BY place";
        self.rows(sql, values![project, run]).await?.iter().map(RunBatch::read_with_steps).collect()
    }

    /// Place, number of the first event, and number of events of a run's last batch.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn last_batch(&self, project: &str, run: &str) -> Result<Option<(i64, i64, i64)>, Error> {
        let row = self
            .row(
                "SELECT place, first, number FROM run_events WHERE project = $1 AND run = $2
                 ORDER BY place DESC LIMIT 1",
                values![project, run],
            )
            .await?;
        row.map(|row| Ok((row.int("place")?, row.int("first")?, row.int("number")?))).transpose()
    }

    /// Number of the first event of a run's last batch that has any.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_last_events(&self, project: &str, run: &str) -> Result<Option<i64>, Error> {
        let row = self
            .row(
                "SELECT first FROM run_events WHERE project = $1 AND run = $2 AND number > 0
                 ORDER BY place DESC LIMIT 1",
                values![project, run],
            )
            .await?;
        row.map(|row| row.int("first")).transpose()
    }

    /// [`Transaction::compact_run`] alone.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn compact_run(&self, project: &str, run: &str) -> Result<Option<u64>, Error> {
        let mut open = self.begin().await?;
        let left = open.compact_run(project, run).await?;
        if left.is_some() {
            open.commit().await?;
        }
        Ok(left)
    }
}

/// Puts a batch in the place of all from its own up to, and without, this one.
async fn replace(
    open: &mut Transaction,
    owner: &str,
    full: Option<(RunBatch, u64)>,
    until: i64,
) -> Result<u64, Error> {
    let batch = match full {
        None => return Ok(0),
        Some((_, 1)) => return Ok(1),
        Some((batch, _)) => batch,
    };
    open.blank(Blank::Events(&batch.project, &batch.run, batch.place, until)).await?;
    let old = "DELETE FROM run_events WHERE project = $1 AND run = $2 AND place >= $3 AND place < $4";
    open.execute(old, values![&batch.project, &batch.run, batch.place, until]).await?;
    open.append_events(owner, vec![batch]).await
}
