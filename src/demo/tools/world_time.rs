//! The time in some places of the world.
//!
//! A table of about seventy cities with their offset and the daylight saving rule in force in 2026, instead of the
//! whole time zone database: enough for a demo, and right for the places it knows. Others are refused, never guessed.

/// When clocks are an hour ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Summer {
    Never,
    /// Last Sunday of March to last Sunday of October, both at 01:00 UTC (Directive 2000/84/EC).
    Europe,
    /// Second Sunday of March to first Sunday of November, both at 02:00 local (Energy Policy Act of 2005).
    America,
    /// First Sunday of October to first Sunday of April, both at 02:00 standard time.
    Australia,
}

struct Place {
    /// Lower case, spaces for underscores.
    city: &'static str,
    area: &'static str,
    /// Standard time, minutes east of UTC.
    offset: i64,
    summer: Summer,
}

const fn place(city: &'static str, area: &'static str, offset: i64, summer: Summer) -> Place {
    Place { city, area, offset, summer }
}

use Summer::{America, Australia, Europe, Never};

const PLACES: &[Place] = &[
    place("utc", "etc", 0, Never),
    place("gmt", "etc", 0, Never),
    place("reykjavik", "atlantic", 0, Never),
    place("accra", "africa", 0, Never),
    place("london", "europe", 0, Europe),
    place("dublin", "europe", 0, Europe),
    place("lisbon", "europe", 0, Europe),
    place("amsterdam", "europe", 60, Europe),
    place("barcelona", "europe", 60, Europe),
    place("berlin", "europe", 60, Europe),
    place("brussels", "europe", 60, Europe),
    place("budapest", "europe", 60, Europe),
    place("copenhagen", "europe", 60, Europe),
    place("hamburg", "europe", 60, Europe),
    place("madrid", "europe", 60, Europe),
    place("milan", "europe", 60, Europe),
    place("munich", "europe", 60, Europe),
    place("oslo", "europe", 60, Europe),
    place("paris", "europe", 60, Europe),
    place("prague", "europe", 60, Europe),
    place("rome", "europe", 60, Europe),
    place("stockholm", "europe", 60, Europe),
    place("vienna", "europe", 60, Europe),
    place("warsaw", "europe", 60, Europe),
    place("zurich", "europe", 60, Europe),
    place("lagos", "africa", 60, Never),
    place("athens", "europe", 120, Europe),
    place("bucharest", "europe", 120, Europe),
    place("helsinki", "europe", 120, Europe),
    place("kyiv", "europe", 120, Europe),
    place("johannesburg", "africa", 120, Never),
    place("cape town", "africa", 120, Never),
    place("istanbul", "europe", 180, Never),
    place("moscow", "europe", 180, Never),
    place("nairobi", "africa", 180, Never),
    place("riyadh", "asia", 180, Never),
    place("dubai", "asia", 240, Never),
    place("karachi", "asia", 300, Never),
    place("delhi", "asia", 330, Never),
    place("new delhi", "asia", 330, Never),
    place("mumbai", "asia", 330, Never),
    place("bangalore", "asia", 330, Never),
    place("kolkata", "asia", 330, Never),
    place("kathmandu", "asia", 345, Never),
    place("dhaka", "asia", 360, Never),
    place("bangkok", "asia", 420, Never),
    place("hanoi", "asia", 420, Never),
    place("jakarta", "asia", 420, Never),
    place("beijing", "asia", 480, Never),
    place("hong kong", "asia", 480, Never),
    place("manila", "asia", 480, Never),
    place("perth", "australia", 480, Never),
    place("shanghai", "asia", 480, Never),
    place("singapore", "asia", 480, Never),
    place("taipei", "asia", 480, Never),
    place("osaka", "asia", 540, Never),
    place("seoul", "asia", 540, Never),
    place("tokyo", "asia", 540, Never),
    place("brisbane", "australia", 600, Never),
    place("melbourne", "australia", 600, Australia),
    place("sydney", "australia", 600, Australia),
    place("buenos aires", "america", -180, Never),
    place("sao paulo", "america", -180, Never),
    place("bogota", "america", -300, Never),
    place("lima", "america", -300, Never),
    place("boston", "america", -300, America),
    place("miami", "america", -300, America),
    place("montreal", "america", -300, America),
    place("new york", "america", -300, America),
    place("toronto", "america", -300, America),
    place("washington", "america", -300, America),
    place("mexico city", "america", -360, Never),
    place("austin", "america", -360, America),
    place("chicago", "america", -360, America),
    place("dallas", "america", -360, America),
    place("denver", "america", -420, America),
    place("phoenix", "america", -420, Never),
    place("los angeles", "america", -480, America),
    place("san francisco", "america", -480, America),
    place("seattle", "america", -480, America),
    place("honolulu", "pacific", -600, Never),
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The time at `unix_seconds` in a city, or in an `Area/City` zone, as a sentence.
///
/// # Errors
/// In words, when the place is not in the table.
pub fn tell(unix_seconds: i64, name: &str) -> Result<String, String> {
    let Some(place) = find(name) else {
        let name: String = name.trim().chars().take(40).collect();
        return Err(format!(
            "`{name}` is not in the demo's small table of places; try Tokyo, Berlin, New York, Singapore or UTC"
        ));
    };
    let offset = place.offset + if is_summer(place, unix_seconds) { 60 } else { 0 };
    let local = unix_seconds + offset * 60;
    let (days, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let sign = if offset < 0 { '-' } else { '+' };
    Ok(format!(
        "It is {:02}:{:02} on {}, {day} {} {year} in {} (UTC{sign}{:02}:{:02}).",
        second / 3600,
        second % 3600 / 60,
        WEEKDAYS[weekday(days)],
        MONTHS[month - 1],
        titled(place.city),
        offset.abs() / 60,
        offset.abs() % 60,
    ))
}

fn find(name: &str) -> Option<&'static Place> {
    let name = name.trim().to_lowercase().replace('_', " ").replace('ã', "a").replace('ü', "u");
    let (area, city) = match name.split_once('/') {
        Some((area, city)) => (Some(area), city),
        None => (None, name.split(',').next().unwrap_or_default().trim()),
    };
    PLACES.iter().find(|place| place.city == city && area.is_none_or(|area| area == place.area))
}

fn is_summer(place: &Place, unix_seconds: i64) -> bool {
    let standard = unix_seconds + place.offset * 60;
    let (year, _, _) = date(standard.div_euclid(86_400));
    // All boundaries in local standard time; clocks set back at 02:00 daylight time stand at 01:00 standard time.
    let between = |from: i64, until: i64| (from..until).contains(&standard);
    match place.summer {
        Never => false,
        Europe => {
            let change = 3600 + place.offset * 60;
            between(last_sunday(year, 3) * 86_400 + change, last_sunday(year, 10) * 86_400 + change)
        }
        America => between(sunday(year, 3, 2) * 86_400 + 7200, sunday(year, 11, 1) * 86_400 + 3600),
        Australia => !between(sunday(year, 4, 1) * 86_400 + 7200, sunday(year, 10, 1) * 86_400 + 7200),
    }
}

/// The day number of the `nth` Sunday of a month.
fn sunday(year: i64, month: usize, nth: i64) -> i64 {
    let first = day_number(year, month, 1);
    let until_sunday = (7 - i64::try_from(weekday(first)).expect("below 7")) % 7;
    first + until_sunday + (nth - 1) * 7
}

/// The day number of the last Sunday of a month with 31 days.
fn last_sunday(year: i64, month: usize) -> i64 {
    let last = day_number(year, month, 31);
    last - i64::try_from(weekday(last)).expect("below 7")
}

/// 0 is Sunday; day 0, the first of January 1970, was a Thursday.
fn weekday(days: i64) -> usize {
    usize::try_from((days + 4).rem_euclid(7)).expect("a remainder is not negative")
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_days(year: i64, month: usize) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn day_number(year: i64, month: usize, day: i64) -> i64 {
    let before = year - 1;
    let leaps = |year: i64| year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let to_year = (year - 1970) * 365 + leaps(before) - leaps(1969);
    to_year + (1..month).map(|month| month_days(year, month)).sum::<i64>() + day - 1
}

/// Year, month from 1, and day from 1 of a day number.
fn date(days: i64) -> (i64, usize, i64) {
    // Exact or one too large: an average year is 365.2425 days.
    let mut year = 1970 + (days * 10_000).div_euclid(3_652_425) + 1;
    while day_number(year, 1, 1) > days {
        year -= 1;
    }
    let mut rest = days - day_number(year, 1, 1);
    let mut month = 1;
    while rest >= month_days(year, month) {
        rest -= month_days(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

fn titled(city: &str) -> String {
    if city == "utc" || city == "gmt" {
        return city.to_uppercase();
    }
    let words: Vec<String> = city
        .split(' ')
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_told_as_the_clocks_on_the_wall_show_them() {
        for (seconds, place, expected) in [
            (1_795_225_530, "Tokyo", "It is 10:45 on Saturday, 21 November 2026 in Tokyo (UTC+09:00)."),
            (0, "UTC", "It is 00:00 on Thursday, 1 January 1970 in UTC (UTC+00:00)."),
            (951_827_696, "utc", "It is 12:34 on Tuesday, 29 February 2000 in UTC (UTC+00:00)."),
            (
                1_795_225_530,
                "kathmandu",
                "It is 07:30 on Saturday, 21 November 2026 in Kathmandu (UTC+05:45).",
            ),
            (
                1_795_225_530,
                "America/New_York",
                "It is 20:45 on Friday, 20 November 2026 in New York (UTC-05:00).",
            ),
            // 2026-03-29 00:59:59 and 01:00:00 UTC: the night in which Europe's clocks go forward
            (1_774_745_999, "Berlin", "It is 01:59 on Sunday, 29 March 2026 in Berlin (UTC+01:00)."),
            (1_774_746_000, "Europe/Berlin", "It is 03:00 on Sunday, 29 March 2026 in Berlin (UTC+02:00)."),
            (1_792_889_999, "London", "It is 01:59 on Sunday, 25 October 2026 in London (UTC+01:00)."),
            (1_792_890_000, "London", "It is 01:00 on Sunday, 25 October 2026 in London (UTC+00:00)."),
            // 2026-03-08 10:00 UTC: Los Angeles goes forward; 2026-11-01 09:00 UTC: back
            (1_772_963_999, "Los Angeles", "It is 01:59 on Sunday, 8 March 2026 in Los Angeles (UTC-08:00)."),
            (1_772_964_000, "Los Angeles", "It is 03:00 on Sunday, 8 March 2026 in Los Angeles (UTC-07:00)."),
            (
                1_793_523_599,
                "Los Angeles",
                "It is 01:59 on Sunday, 1 November 2026 in Los Angeles (UTC-07:00).",
            ),
            (
                1_793_523_600,
                "Los Angeles",
                "It is 01:00 on Sunday, 1 November 2026 in Los Angeles (UTC-08:00).",
            ),
            // 2026-04-04 16:00 UTC: Sydney goes back
            (1_775_318_399, "Sydney", "It is 02:59 on Sunday, 5 April 2026 in Sydney (UTC+11:00)."),
            (1_775_318_400, "Sydney", "It is 02:00 on Sunday, 5 April 2026 in Sydney (UTC+10:00)."),
        ] {
            assert_eq!(tell(seconds, place).unwrap(), expected, "{seconds}");
        }
    }

    #[test]
    fn an_unknown_place_is_refused_not_guessed() {
        for place in ["Atlantis", "Asia/Berlin", "", "/", "Mars/Phobos"] {
            assert!(tell(0, place).is_err(), "{place}");
        }
        assert!(tell(0, " são paulo ").is_ok());
        assert!(tell(0, "Paris, France").is_ok());
    }

    #[test]
    fn dates_and_day_numbers_are_each_others_inverse() {
        for days in (-200_000..200_000).step_by(97) {
            let (year, month, day) = date(days);
            assert_eq!(day_number(year, month, day), days);
        }
    }
}
