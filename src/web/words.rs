//! Times, scopes, users and browsers in words.

use crate::tools;

/// Longest text of a stranger on one line of a page, in characters.
const LONGEST_LINE: usize = 120;
/// Longest address, in characters: a host's name (253 at most) is never cut, since its end says whose it is.
const LONGEST_ADDRESS: usize = 400;

/// One line of a stranger's text, without anything that moves, hides or reorders what stands around it.
pub(super) fn line(text: &str) -> String {
    tools::text::one_line(text, LONGEST_LINE)
}

/// A host or an address, whose host stays whole.
pub(super) fn address(text: &str) -> String {
    tools::text::one_line(text, LONGEST_ADDRESS)
}

/// What an application is called, at the beginning of a sentence. Our own descriptions get a capital; names stay.
pub(super) fn sentence(text: &str) -> String {
    let line = line(text);
    for (article, capital) in [("an ", "An "), ("the ", "The ")] {
        if let Some(rest) = line.strip_prefix(article) {
            return format!("{capital}{rest}");
        }
    }
    line
}

/// How long ago `then` was, or how long it will take, seen from `now`; both in milliseconds since 1970.
pub(super) fn ago(now: i64, then: i64) -> String {
    let seconds = now.saturating_sub(then) / 1000;
    let (amount, past) = (seconds.unsigned_abs(), seconds >= 0);
    let (number, unit) = match amount {
        0..45 if past => return "just now".to_owned(),
        0..45 => return "in less than a minute".to_owned(),
        45..5400 => ((amount + 30) / 60, "minute"),
        5400..129_600 => ((amount + 1800) / 3600, "hour"),
        _ => ((amount + 43_200) / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    if past { format!("{number} {unit}{plural} ago") } else { format!("in {number} {unit}{plural}") }
}

/// How long something took, from milliseconds.
pub(super) fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", milliseconds / 60_000, milliseconds % 60_000 / 1000),
        _ => format!("{} h {} min", milliseconds / 3_600_000, milliseconds % 3_600_000 / 60_000),
    }
}

/// A number with its thousands apart: `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The tone and the words of a run's pill. `status` and `reason` are the API's words.
pub(super) fn run_status(status: &str, reason: Option<&str>) -> (&'static str, &'static str) {
    match (status, reason) {
        ("failed", Some("interrupted")) => ("warn", "interrupted"),
        _ => self::status(status),
    }
}

/// As [`run_status`], of a status alone.
pub(super) fn status(status: &str) -> (&'static str, &'static str) {
    match status {
        "queued" => ("now", "queued"),
        "in_progress" => ("now", "running"),
        "requires_action" => ("bad", "needs you"),
        "completed" => ("good", "done"),
        "failed" => ("bad", "failed"),
        "cancelled" => ("", "cancelled"),
        "incomplete" => ("warn", "incomplete"),
        _ => ("", "unknown"),
    }
}

/// A user's name so that its owner knows it and nobody else learns it: `an…@example.com`, `ac…k9`.
pub(super) fn masked(user: &str) -> String {
    let clean = line(user);
    let characters: Vec<char> = clean.chars().collect();
    let start = |count: usize| characters.iter().take(count).collect::<String>();
    // `google:1084…`: which provider it is, its owner needs to see.
    if let Some((provider, subject)) = clean.split_once(':')
        && !provider.is_empty()
        && provider.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    {
        return format!("{provider}:{}", masked(subject));
    }
    match clean.rsplit_once('@') {
        Some((name, host)) if !name.is_empty() && !host.is_empty() => {
            let shown = if name.chars().count() > 3 { 2 } else { 1 };
            format!("{}…@{host}", start(shown))
        }
        _ if characters.len() >= 8 => {
            let end: String = characters[characters.len() - 2..].iter().collect();
            format!("{}…{end}", start(2))
        }
        _ if clean == "local" => clean,
        _ => format!("{}…", start(1)),
    }
}

/// A scope as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// The word itself.
    pub name: String,
    /// What it means, where that is common knowledge. What a server means by its own words only it can say.
    pub words: Option<&'static str>,
}

/// Scopes that everybody uses in one sense.
const KNOWN: &[(&str, &str)] = &[
    ("openid", "know who you are there"),
    ("profile", "read your name and picture there"),
    ("email", "read your e-mail address"),
    ("phone", "read your telephone number"),
    ("address", "read your postal address"),
    ("offline_access", "go on working while you are away"),
    ("read:user", "read your profile"),
    ("user:email", "read your e-mail addresses"),
    ("repo", "read and change your repositories, private ones too"),
    ("public_repo", "read and change your public repositories"),
    ("read:org", "read which organisations you belong to"),
    ("gist", "write gists"),
    ("workflow", "change workflows"),
    ("https://www.googleapis.com/auth/drive", "read, change and delete your files in Drive"),
    ("https://www.googleapis.com/auth/drive.readonly", "read your files in Drive"),
    ("https://www.googleapis.com/auth/gmail.readonly", "read your e-mail"),
    ("https://www.googleapis.com/auth/gmail.send", "send e-mail in your name"),
    ("https://www.googleapis.com/auth/calendar", "read and change your calendar"),
    ("https://www.googleapis.com/auth/calendar.readonly", "read your calendar"),
];

/// Scopes for a page.
pub(super) fn scopes<S: AsRef<str>>(given: &[S]) -> Vec<Scope> {
    given
        .iter()
        .map(|scope| {
            let scope = scope.as_ref();
            let words = KNOWN.iter().find(|(name, _)| *name == scope).map(|(_, words)| *words);
            Scope { name: line(scope), words }
        })
        .collect()
}

/// What a browser calls itself, in the words a person would use.
pub(super) fn browser(agent: &str) -> String {
    let has = |word: &str| agent.contains(word);
    let name = match () {
        () if has("Edg/") => "Edge",
        () if has("OPR/") => "Opera",
        () if has("Firefox/") => "Firefox",
        () if has("Chrome/") || has("CriOS/") => "Chrome",
        () if has("Safari/") => "Safari",
        () => "A browser",
    };
    let system = match () {
        () if has("iPhone") => "iPhone",
        () if has("iPad") => "iPad",
        () if has("Android") => "Android",
        () if has("Windows") => "Windows",
        () if has("Mac OS X") => "Mac",
        () if has("CrOS") => "ChromeOS",
        () if has("Linux") => "Linux",
        () => return name.to_owned(),
    };
    format!("{name} on {system}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_words() {
        let minute = 60_000;
        for (then, expect) in [
            (0, "just now"),
            (-44_000, "just now"),
            (-minute, "1 minute ago"),
            (-59 * minute, "59 minutes ago"),
            (-120 * minute, "2 hours ago"),
            (-48 * 60 * minute, "2 days ago"),
            (30_000, "in less than a minute"),
            (9 * minute, "in 9 minutes"),
            (i64::MAX, "in 106751991167 days"),
        ] {
            assert_eq!(ago(0, then), expect);
        }
    }

    #[test]
    fn durations_and_counts_are_short() {
        for (milliseconds, expect) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1050, "1.0 s"),
            (59_990, "59.9 s"),
            (61_000, "1 min 1 s"),
            (7_380_000, "2 h 3 min"),
        ] {
            assert_eq!(duration(milliseconds), expect);
        }
        assert_eq!(
            (count(7), count(1234), count(1_234_567)),
            ("7".into(), "1,234".into(), "1,234,567".into())
        );
    }

    #[test]
    fn a_user_is_recognised_by_its_owner_only() {
        for (user, expect) in [
            ("anna.smith@example.com", "an…@example.com"),
            ("bo@example.com", "b…@example.com"),
            ("acct_0123456789k9", "ac…k9"),
            ("google:108439201938475610293", "google:10…93"),
            (":x", ":…"),
            ("7", "7…"),
            ("anna", "a…"),
            ("", "…"),
            ("@", "@…"),
            ("local", "local"),
            ("\u{202e}moc.elpmaxe@anna", "mo…@anna"),
        ] {
            assert_eq!(masked(user), expect, "{user:?}");
        }
    }

    #[test]
    fn scopes_keep_their_names_beside_the_words() {
        let shown = scopes(&["openid", "files:everything", "<b>"]);
        assert_eq!(shown[0].words, Some("know who you are there"));
        assert_eq!((shown[1].name.as_str(), shown[1].words), ("files:everything", None));
        assert_eq!(shown[2].name, "<b>", "escaping is the template's part");
    }

    #[test]
    fn names_stay_as_they_are_and_descriptions_begin_sentences() {
        assert_eq!(sentence("desk"), "desk");
        assert_eq!(sentence("an application on this computer"), "An application on this computer");
        assert_eq!(sentence("the gateway's own pages"), "The gateway's own pages");
    }

    #[test]
    fn browsers_have_names() {
        let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36";
        assert_eq!(browser(agent), "Chrome on Linux");
        assert_eq!(
            browser("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17.0 Safari/604.1"),
            "Safari on iPhone"
        );
        assert_eq!(browser("curl/8"), "A browser");
    }
}
