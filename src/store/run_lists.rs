//! Lists of runs, without what was asked and answered: of a project, and of a person who signed in. The `request` and the
//! `state` of what is listed are empty: reading them would be most of the work.

use super::{Error, RunRow, Store, Value, values};

/// Most characters that are looked for in titles.
const MOST_WORDS: usize = 200;

/// Which runs, and from where.
#[derive(Clone, Copy, Default)]
pub struct RunFilter<'a> {
    /// Not looked at in the list of a person, which is of all projects.
    pub project: &'a str,
    pub user: Option<&'a str>,
    pub model: Option<&'a str>,
    pub kind: Option<&'a str>,
    pub status: Option<&'a str>,
    /// A part of the title, in capital or small letters.
    pub text: Option<&'a str>,
    /// Only those that are kept until they are deleted.
    pub stored_only: bool,
    /// Else the oldest come first.
    pub newest_first: bool,
    /// Those that come behind the run made at this time and with this id, in the order of the list.
    pub after: Option<(i64, &'a str)>,
    /// Those that come before it: the nearest ones, unless `after` is given too.
    pub before: Option<(i64, &'a str)>,
    pub limit: i64,
}

/// One list. `$1` says whose, `$2` is about `stored`; the bounds of both ends stand outside.
macro_rules! list {
    ($whose:literal, $order:literal) => {
        concat!(
            "SELECT project, id, user_name, profile, person, kind, model, title, status, reason, visibility, used_logins, stored,
                metadata, owner, takeovers, cancel_requested, created_at, changed_at, ended_at, expires_at,
                prompt_tokens, completion_tokens, turns, tool_calls
             FROM runs WHERE ",
            $whose,
            " AND ($3 = 0 OR user_name = $4) AND ($5 = 0 OR model = $6) AND ($7 = '' OR kind = $7)
                AND ($8 = '' OR status = $8) AND ($9 = 0 OR search LIKE $10 ESCAPE '!')
                AND (created_at, id) > ($11, $12) AND (created_at, id) < ($13, $14)
             ORDER BY created_at ",
            $order,
            ", id ",
            $order,
            " LIMIT $15"
        )
    };
}

const OF_PROJECT: Orders = Orders {
    up: list!("project = $1 AND stored = $2", "ASC"),
    down: list!("project = $1 AND stored = $2", "DESC"),
};
// The second condition is that of the index.
const OF_PERSON: Orders = Orders {
    up: list!("person = $1 AND length(person) > 0 AND stored >= $2", "ASC"),
    down: list!("person = $1 AND length(person) > 0 AND stored >= $2", "DESC"),
};

struct Orders {
    up: &'static str,
    down: &'static str,
}

impl RunFilter<'_> {
    /// Whether the rows are read from the new to the old, and whether that is against the order of the list.
    fn directions(&self) -> (bool, bool) {
        let against = self.before.is_some() && self.after.is_none();
        (self.newest_first != against, against)
    }

    fn values(&self, whose: Value, stored: i64) -> Vec<Value> {
        let (lower, upper) =
            if self.newest_first { (self.before, self.after) } else { (self.after, self.before) };
        let (lower, upper) = (lower.unwrap_or((i64::MIN, "")), upper.unwrap_or((i64::MAX, "")));
        let mut values = vec![whose];
        values.extend(values![
            stored,
            i64::from(self.user.is_some()),
            self.user.unwrap_or_default().as_bytes(),
            i64::from(self.model.is_some()),
            self.model.unwrap_or_default().as_bytes(),
            self.kind.unwrap_or_default(),
            self.status.unwrap_or_default(),
            i64::from(self.text.is_some()),
            pattern(self.text.unwrap_or_default()),
            lower.0,
            lower.1,
            upper.0,
            upper.1,
            self.limit.max(0),
        ]);
        values
    }
}

/// What `LIKE` takes for "somewhere in it".
fn pattern(text: &str) -> Vec<u8> {
    let mut pattern = String::from("%");
    for character in text.chars().take(MOST_WORDS).flat_map(char::to_lowercase) {
        if matches!(character, '!' | '%' | '_') {
            pattern.push('!');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern.into_bytes()
}

impl Store {
    /// The runs of a project.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_runs(&self, filter: &RunFilter<'_>) -> Result<Vec<RunRow>, Error> {
        // Each kind has its own stretch of the index.
        let kinds: &[i64] = if filter.stored_only { &[1] } else { &[0, 1] };
        let lists = kinds.iter().map(|stored| filter.values(Value::from(filter.project), *stored));
        self.list_merged(filter, &OF_PROJECT, lists.collect()).await
    }

    /// The runs that belong to a person who has signed in, under any of these ids.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_person_runs(
        &self,
        persons: &[String],
        filter: &RunFilter<'_>,
    ) -> Result<Vec<RunRow>, Error> {
        let mut persons: Vec<&String> = persons.iter().filter(|person| !person.is_empty()).collect();
        persons.sort_unstable();
        persons.dedup();
        let stored = i64::from(filter.stored_only);
        let lists = persons.into_iter().map(|person| filter.values(Value::from(person.as_bytes()), stored));
        self.list_merged(filter, &OF_PERSON, lists.collect()).await
    }

    async fn list_merged(
        &self,
        filter: &RunFilter<'_>,
        orders: &Orders,
        lists: Vec<Vec<Value>>,
    ) -> Result<Vec<RunRow>, Error> {
        let (is_down, against) = filter.directions();
        let mut runs = Vec::new();
        for values in lists {
            for row in self.rows(if is_down { orders.down } else { orders.up }, values).await? {
                runs.push(RunRow::read_listed(&row)?);
            }
        }
        runs.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        if is_down {
            runs.reverse();
        }
        runs.truncate(usize::try_from(filter.limit).unwrap_or(0));
        if against {
            runs.reverse();
        }
        Ok(runs)
    }
}
