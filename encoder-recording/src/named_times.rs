//! Times in the names of pictures.
//!
//! A name may have other numbers beside its time: that of the camera, or a counter. The time is
//! therefore searched in all names of a directory together: it is the only number that may be a time
//! and differs between them, and all else is the same or counts up with it.

use std::{cmp::Ordering, path::Path};

use super::names::natural;

/// Why the times in the names of a directory cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsure {
    /// What is wrong, with the number of the names that state times.
    pub reason: String,
    /// Whether the natural order of the names may be wrong as well.
    pub is_order_unsure: bool,
}

/// How a time is written. Times of different forms in one directory are a coincidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A number of 19, 16 or 13 digits: nanoseconds, microseconds or milliseconds.
    Digits(usize),
    /// Seconds, which may have a fraction.
    Seconds,
    /// Date and time of day, as in RFC 3339, and its offset from UTC in seconds.
    Date { offset: i64 },
}

/// A time in a name.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// Bytes of the name.
    start: usize,
    end: usize,
    /// Nanoseconds since the epoch.
    ns: i64,
    form: Form,
    /// Digits of a fraction without a decimal point, which may also be a counter; 0: none.
    bare_digits: usize,
}

/// No camera has a shorter distance between its frames: 2000 per second.
const SHORTEST_NS: i64 = 500_000;

/// The times that the names of files state, in nanoseconds since the epoch; `None` if no name states
/// one. `names` are in natural order. Only times from 2001 to 2099 are read: `0000000012` is a
/// number.
///
/// # Errors
/// [`Unsure`] if some names state times that cannot be used.
pub(crate) fn times(names: &[String]) -> Result<Option<Vec<i64>>, Unsure> {
    let stems: Vec<&str> = names.iter().map(|name| stem(name)).collect();
    let found: Vec<_> = stems.iter().map(|stem| search(stem)).collect();
    let timed = found.iter().filter(|found| !found.is_empty()).count();
    let Some(count) = found.first().map(Vec::len).filter(|_| timed > 0) else { return Ok(None) };
    let unsure = |reason: String, is_order_unsure| {
        let verb = if timed == 1 { "name states a time" } else { "names state times" };
        let reason = format!("{timed} of {} {verb}, but {reason}", names.len());
        Unsure { reason, is_order_unsure }
    };
    if let Some(other) = found.iter().position(Vec::is_empty) {
        return Err(unsure(format!("not {}", names[other]), true));
    }
    let different = |other: usize| {
        unsure(format!("in different forms: {} and {}", names[0], names[other]), true)
    };
    if let Some(other) = found.iter().position(|found| found.len() != count) {
        return Err(different(other));
    }
    let column = |n: usize| found.iter().map(move |found| found[n]);
    let varies = |n: &usize| column(*n).any(|time| time.ns != found[0][*n].ns);
    let varying: Vec<_> = (0..count).filter(varies).collect();
    let times: Vec<Found> = match varying[..] {
        [] => column(0).collect(),
        [one] => column(one).collect(),
        _ => return Err(unsure(format!("more than one each: {}", names[0]), true)),
    };
    let alike = |time: &Found| (time.form, time.bare_digits);
    if let Some(other) = times.iter().position(|time| alike(time) != alike(&times[0])) {
        return Err(different(other));
    }
    let rests: Vec<_> = stems.iter().zip(&times).map(|(stem, time)| Rest::of(stem, time)).collect();
    if let Some(other) = rests.iter().position(|rest| rest.text != rests[0].text) {
        return Err(different(other));
    }
    let mut order: Vec<_> = (0..times.len()).collect();
    order.sort_by_key(|n| times[*n].ns);
    let is_order_unsure = !order.is_sorted();
    let distances = order.windows(2).map(|pair| times[pair[1]].ns - times[pair[0]].ns);
    let mut distances: Vec<_> = distances.collect();
    distances.sort_unstable();
    if distances.first() == Some(&0) {
        return Err(unsure("some of them the same".into(), is_order_unsure));
    }
    let median = distances.get(distances.len().saturating_sub(1) / 2).copied();
    let bare_digits = times[0].bare_digits as u32;
    if bare_digits > 0 && median == Some(10i64.pow(9 - bare_digits)) {
        return Err(unsure("their last digits count up one by one".into(), is_order_unsure));
    }
    if median.is_some_and(|median| median < SHORTEST_NS) {
        return Err(unsure("they are less than 0.5 ms apart".into(), is_order_unsure));
    }
    if !counts_up(&order, &rests) {
        return Err(unsure(format!("another number in them differs: {}", names[0]), true));
    }
    Ok(Some(times.iter().map(|time| time.ns).collect()))
}

/// A name without its extension.
fn stem(name: &str) -> &str {
    Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}

/// A name without its time.
struct Rest<'a> {
    /// Each number is replaced by 0, and the time by a control character.
    text: String,
    numbers: Vec<&'a str>,
}

impl<'a> Rest<'a> {
    fn of(stem: &'a str, time: &Found) -> Self {
        let (mut text, mut numbers) = (String::new(), Vec::new());
        for (n, mut part) in [&stem[..time.start], &stem[time.end..]].into_iter().enumerate() {
            if n > 0 {
                text.push('\0');
            }
            while !part.is_empty() {
                let digits = leading_digits(part);
                let letters = part[digits..].find(|c: char| c.is_ascii_digit());
                let (other, rest) = part[digits..].split_at(letters.unwrap_or(part.len() - digits));
                if digits > 0 {
                    numbers.push(&part[..digits]);
                    text.push('0');
                }
                text.push_str(other);
                part = rest;
            }
        }
        Self { text, numbers }
    }
}

/// Whether each number of the rests is the same in all, or grows with the time.
fn counts_up(order: &[usize], rests: &[Rest<'_>]) -> bool {
    let is_equal = |n: usize| rests.iter().all(|rest| rest.numbers[n] == rests[0].numbers[n]);
    let number = |at: usize, n: usize| rests[at].numbers[n];
    let grows = |n: usize| {
        order.windows(2).all(|p| natural(number(p[0], n), number(p[1], n)) == Ordering::Less)
    };
    (0..rests[0].numbers.len()).all(|n| is_equal(n) || grows(n))
}

/// The times in a name, from left to right.
fn search(stem: &str) -> Vec<Found> {
    let (mut all, mut at) = (Vec::new(), 0);
    while let Some(next) = stem[at..].find(|c: char| c.is_ascii_digit()) {
        let start = at + next;
        at = match time(&stem[start..]) {
            Some(found) => {
                let found = Found { start, end: start + found.end, ..found };
                all.push(found);
                found.end
            }
            None => start + leading_digits(&stem[start..]),
        };
    }
    all
}

/// The time that a text begins with.
fn time(text: &str) -> Option<Found> {
    let found = number(text).or_else(|| date_and_time(text))?;
    let is_plausible = (1_000_000_000..4_102_444_800).contains(&found.ns.div_euclid(1_000_000_000));
    is_plausible.then_some(found)
}

fn leading_digits(text: &str) -> usize {
    text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len())
}

/// A number of 19, 16, 13 or 10 digits. Seconds may have a fraction.
fn number(text: &str) -> Option<Found> {
    let digits = leading_digits(text);
    let unit = match digits {
        19 => 1,
        16 => 1000,
        13 => 1_000_000,
        10 => 1_000_000_000,
        _ => return None,
    };
    let ns = text[..digits].parse::<i64>().ok()?.checked_mul(unit)?;
    let found = Found { start: 0, end: digits, ns, form: Form::Digits(digits), bare_digits: 0 };
    if digits != 10 {
        return Some(found);
    }
    let (length, fraction_ns, bare_digits) = fraction(&text[digits..]).unwrap_or_default();
    let (end, ns) = (digits + length, ns.checked_add(fraction_ns)?);
    Some(Found { end, ns, form: Form::Seconds, bare_digits, ..found })
}

/// The fraction of a second that a text begins with: its length, its nanoseconds, and its number of
/// digits if it has no decimal point. Such digits may be anything, unless they are those of a unit:
/// 3, 6 or 9.
fn fraction(text: &str) -> Option<(usize, i64, usize)> {
    let digits = &text[text.find(|c| !matches!(c, '.' | ',' | '_' | '-'))?..];
    let mark = &text[..text.len() - digits.len()];
    let digits = &digits[..leading_digits(digits)];
    let bare_digits = match (mark, digits.len()) {
        ("." | ",", 1..=18) => 0,
        ("" | "_" | "-", count @ (3 | 6 | 9)) => count,
        _ => return None,
    };
    let ns = format!("{digits:0<9}").get(..9)?.parse().ok()?;
    Some((mark.len() + digits.len(), ns, bare_digits))
}

/// Date and time of day with any separators, a fraction of the second, and an offset from UTC.
/// Without an offset the time is taken for UTC.
fn date_and_time(text: &str) -> Option<Found> {
    let mut rest = text;
    let mut field = |digits: usize, separators: &[char]| -> Option<i64> {
        rest = rest.strip_prefix(separators).unwrap_or(rest);
        let (number, after) = rest.split_at_checked(digits)?;
        rest = after;
        number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())?
    };
    let (year, month, day) =
        (field(4, &[])?, field(2, &['-', '_', '.'])?, field(2, &['-', '_', '.'])?);
    let separators = [':', '-', '_', '.'];
    let (hour, minute) = (field(2, &['T', 't', ' ', '_', '-'])?, field(2, &separators)?);
    let second = field(2, &separators)?;
    let is_valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !is_valid {
        return None;
    }
    let (length, nanoseconds, bare_digits) = fraction(rest).unwrap_or_default();
    rest = &rest[length..];
    if leading_digits(rest) > 0 {
        return None;
    }
    let (length, offset) = offset(rest).unwrap_or_default();
    let end = text.len() - rest.len() + length;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    let ns = seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?;
    Some(Found { start: 0, end, ns, form: Form::Date { offset }, bare_digits })
}

/// The offset from UTC that a text begins with: its length, and seconds. Of four digits, which may
/// also be a counter, only those of a time zone are one.
fn offset(text: &str) -> Option<(usize, i64)> {
    let is_end = |at: usize| !text[at..].starts_with(|c: char| c.is_ascii_alphanumeric());
    if text.starts_with(['Z', 'z']) {
        return is_end(1).then_some((1, 0));
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, rest) = text.get(1..)?.split_at_checked(2)?;
    let separators: &[char] = if sign > 0 { &[':', '-', '_'] } else { &[':'] };
    let rest = rest.strip_prefix(separators).unwrap_or(rest);
    let (minutes, rest) = rest.split_at_checked(2)?;
    let digits =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    let (hours, minutes): (i64, i64) = (digits(hours)?, digits(minutes)?);
    let end = text.len() - rest.len();
    let is_offset = hours <= 14 && minutes % 15 == 0 && minutes < 60 && is_end(end);
    is_offset.then_some((end, sign * (hours * 3600 + minutes * 60)))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin with March, so that the leap day is the last of its year.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_name() {
        let date = |fraction: i64| Some(1_700_067_870_000_000_000 + fraction);
        let seconds = |fraction: i64| Some(1_700_000_000_000_000_000 + fraction);
        for (name, expected) in [
            ("1759999999999773295", Some(1_759_999_999_999_773_295)),
            ("left-1759999999999773", Some(1_759_999_999_999_773_000)),
            ("1700000000250", seconds(250_000_000)),
            ("frame_1700000000", seconds(0)),
            ("1700000000.5", seconds(500_000_000)),
            ("1700000000.05", seconds(50_000_000)),
            ("1700000000.123456789012", seconds(123_456_789)),
            ("1700000000_050000000", seconds(50_000_000)),
            ("1700000000-250000", seconds(250_000_000)),
            ("1700000000_250", seconds(250_000_000)),
            ("cam0_1700000000250", seconds(250_000_000)),
            ("1700000000250_left", seconds(250_000_000)),
            ("frame_0010_1700000000.123", seconds(123_000_000)),
            ("1700000000.1.left", seconds(100_000_000)),
            ("2023-11-15T17:04:30Z", date(0)),
            ("2023-11-15T17:04:30.25Z", date(250_000_000)),
            ("2023-11-15T18-04-30.25+01:00", date(250_000_000)),
            ("2023-11-15T18-04-30+01_00", date(0)),
            ("2023-11-15T15-34-30-0130", date(0)),
            ("2023-11-15 17.04.30,5", date(500_000_000)),
            ("IMG_20231115_170430", date(0)),
            ("cam20231115T170430.250Z", date(250_000_000)),
            ("20231115_170430_250", date(250_000_000)),
            ("2023-11-15_17-04-30-250", date(250_000_000)),
            ("20231115170430250", date(250_000_000)),
            // A counter is no fraction, and no time zone.
            ("1700000000_0012", seconds(0)),
            ("2023-11-15_17-04-30_0001", date(0)),
            ("2023-11-15_17-04-30-0001", date(0)),
            ("2023-11-15_17-04-30-1530", date(0)),
            ("IMG_20231115_170430 (1)", date(0)),
            ("9999999999999999999", None),
            ("175999999999977", None),
            ("0000000012", None),
            ("0000000000000001", None),
            ("2023-13-15T17:04:30Z", None),
            ("2023-11-15T17:64:30Z", None),
            ("202311151704302", None),
            ("2023-11-15", None),
            ("img12", None),
            ("é", None),
            ("", None),
        ] {
            let found = times(&[format!("{name}.jpg")]).unwrap();
            assert_eq!(found.map(|times| times[0]), expected, "{name}");
        }
    }

    #[test]
    fn a_directory() {
        // The names; their times in ms from the first, or a part of the reason and whether the
        // order is unsure as well.
        type Row<'a> = (&'a [&'a str], Result<&'a [i64], (&'a str, bool)>);
        let table: &[Row<'_>] = &[
            (&["cam0_1700000010123", "cam0_1700000010150"], Ok(&[0, 27])),
            (&["1700000010123_left", "1700000010156_left"], Ok(&[0, 33])),
            (&["frame_0009_1700000010.123", "frame_0010_1700000010.15"], Ok(&[0, 27])),
            (&["1700000010.1.left", "1700000010.15.left"], Ok(&[0, 50])),
            (&["20231115_170430_1700067870123", "20231115_170430_1700067870223"], Ok(&[0, 100])),
            (&["2023-11-15_17-04-30_0001", "2023-11-15_17-04-32_0002"], Ok(&[0, 2000])),
            (&["2023-11-15_17-04-30_000", "2023-11-15_17-04-30_033"], Ok(&[0, 33])),
            (&["1700000000", "1700000000.25", "1700000001"], Ok(&[0, 250, 1000])),
            // Once in a second.
            (&["20231115_170430", "20231115_170431", "20231115_170432"], Ok(&[0, 1000, 2000])),
            // Counters.
            (
                &["2023-11-15_17-04-30_0001", "2023-11-15_17-04-30_0002"],
                Err(("2 of 2 names state times, but some of them the same", false)),
            ),
            (
                &["1700000000_000001", "1700000000_000002", "1700000000_000003"],
                Err(("count up one by one", false)),
            ),
            (
                &["20231115_170430_001", "20231115_170430_002", "20231115_170431_003"],
                Err(("count up one by one", false)),
            ),
            (&["20231115170430001", "20231115170430002"], Err(("count up one by one", false))),
            (&["1700000000_000001", "1700000000_000003"], Err(("less than 0.5 ms", false))),
            (&["1700000000000000001", "1700000000000000002"], Err(("less than 0.5 ms", false))),
            (&["20231115_170430-0100", "20231115_170430-0115"], Err(("in different forms", true))),
            (&["20231115_170430", "20231115_170430_001"], Err(("in different forms", true))),
            // Two cameras in one directory, or two times in a name.
            (
                &["cam0_1700000010100", "cam0_1700000010200", "cam1_1700000010150"],
                Err(("another number in them differs", true)),
            ),
            (&["a_1700000010123", "b_1700000010150"], Err(("in different forms", true))),
            (
                &["1700000010123_1700000010125", "1700000010223_1700000010224"],
                Err(("more than one each", true)),
            ),
            (&["1700000010123", "1700000010125_1700000010124"], Err(("different forms", true))),
            (&["1700000010123", "cover"], Err(("1 of 2 name states a time, but not cover", true))),
        ];
        for (stems, expected) in table {
            let names: Vec<_> = stems.iter().map(|stem| format!("{stem}.png")).collect();
            match (times(&names), expected) {
                (Ok(Some(found)), Ok(expected)) => {
                    let from_first = found.iter().map(|ns| (ns - found[0]) / 1_000_000);
                    assert_eq!(from_first.collect::<Vec<_>>(), *expected, "{names:?}");
                }
                (Err(unsure), Err((part, is_order_unsure))) => {
                    assert!(unsure.reason.contains(part), "{unsure:?}");
                    assert_eq!(unsure.is_order_unsure, *is_order_unsure, "{unsure:?}");
                }
                (found, _) => panic!("{names:?}: {found:?}"),
            }
        }
        assert_eq!(times(&["a1.jpg".into(), "a2.jpg".into()]), Ok(None));
        assert_eq!(times(&[]), Ok(None));
    }

    proptest::proptest! {
        #[test]
        fn any_names(names in proptest::collection::vec("[-0-9._ éTZ+]{0,30}", 0..4)) {
            let _ = times(&names);
        }
    }

    #[test]
    fn days_since_the_epoch() {
        for (date, expected) in [
            ((1970, 1, 1), 0),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2023, 11, 15), 19_676),
            ((2099, 12, 31), 47_481),
        ] {
            assert_eq!(days(date.0, date.1, date.2), expected, "{date:?}");
        }
    }
}
