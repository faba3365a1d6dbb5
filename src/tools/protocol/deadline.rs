//! How long an answer may take. Time comes from tokio's clock, which tests can stop.

use std::time::Duration;

use tokio::time::Instant;

use crate::tools::Error;

/// The time left for one operation: a silence that signs of life start anew, within a whole that nothing extends.
#[derive(Debug, Clone)]
pub(crate) struct Deadline {
    silence: Duration,
    whole: Duration,
    until: Instant,
    end: Instant,
}

impl Deadline {
    /// An operation that has `whole`, whatever the server says meanwhile.
    pub(crate) fn new(whole: Duration) -> Self {
        Deadline::with_silence(whole, whole)
    }

    /// An operation that may be silent for `silence` and takes `whole` at most.
    pub(crate) fn with_silence(silence: Duration, whole: Duration) -> Self {
        let now = Instant::now();
        let end = now + whole;
        Deadline { silence, whole, until: (now + silence).min(end), end }
    }

    /// The server showed that it is at work. That takes nothing from what a person was given.
    pub(crate) fn extend(&mut self) {
        self.until = self.until.max((Instant::now() + self.silence).min(self.end));
    }

    /// A person has been asked to do something: nothing is to be heard for `patience`, however long the rest may take.
    pub(crate) fn allow(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        if until > self.end {
            (self.end, self.whole) = (until, patience);
        }
        self.until = self.until.max(until);
    }

    /// What is left now.
    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits for `future`, at most as long as is left.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub(crate) async fn within<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        tokio::time::timeout_at(self.until, future).await.map_err(|_| self.error())
    }

    /// What to say when the time is up.
    pub(crate) fn error(&self) -> Error {
        Error::Timeout { after: if self.until >= self.end { self.whole } else { self.silence } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_sign_of_life_takes_nothing_from_a_persons_time() {
        for whole in [2 * SECOND, HOUR, 3 * HOUR] {
            let mut deadline = Deadline::with_silence(SECOND, whole);
            deadline.allow(HOUR);
            let until = deadline.until;
            deadline.extend();
            assert_eq!(deadline.until, until);
            // What is left of the same hour for a second page adds nothing to it.
            deadline.allow(until.saturating_duration_since(Instant::now()) - SECOND);
            deadline.extend();
            assert_eq!(deadline.until, until);
        }
    }

    #[test]
    fn signs_of_life_extend_up_to_the_whole() {
        let mut deadline = Deadline::with_silence(SECOND, 2 * HOUR);
        let (until, end) = (deadline.until, deadline.end);
        deadline.silence = HOUR;
        deadline.extend();
        assert!(deadline.until > until && deadline.until < end);
        deadline.silence = 3 * HOUR;
        deadline.extend();
        assert_eq!(deadline.until, end);
    }
}
