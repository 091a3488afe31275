//! Names of pictures: their order, and the times that they state.

use std::cmp::Ordering;

/// The time that a name states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamedTime {
    /// Nanoseconds since the epoch.
    pub ns: i64,
    /// How it is written. Times of different forms in one directory are a coincidence.
    pub form: TimeForm,
}

/// How a time is written in a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeForm {
    /// A number of 19, 16, 13 or 10 digits: nanoseconds, microseconds, milliseconds or seconds.
    Digits(usize),
    /// Seconds with a fraction. Names of numbers without one, such as `1700000001`, have it too.
    Seconds,
    /// Date and time of day, as in RFC 3339.
    Date,
}

/// The time in a name without its extension, after the same letters as in all other names:
/// `1700000000.25`, `left_1700000000250`, `2023-11-15T17-04-30.5Z`.
///
/// Only times from 2001 to 2099 are read: `0000000012` is a number.
pub(crate) fn time(stem: &str) -> Option<NamedTime> {
    let text = &stem[prefix(stem).len()..];
    let (ns, form) = match number_of_seconds(text) {
        Some(found) => found,
        None => (date_and_time(text)?, TimeForm::Date),
    };
    let is_plausible = (1_000_000_000..4_102_444_800).contains(&ns.div_euclid(1_000_000_000));
    is_plausible.then_some(NamedTime { ns, form })
}

/// What stands in a name before its first digit.
pub(crate) fn prefix(stem: &str) -> &str {
    stem.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default()
}

fn number_of_seconds(text: &str) -> Option<(i64, TimeForm)> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let Some((whole, fraction)) = text.split_once(['.', '_', '-']) {
        // Without a decimal point the digits may be anything, unless they are those of a unit.
        let is_fraction =
            text.contains('.') && fraction.len() <= 18 || matches!(fraction.len(), 6 | 9);
        let is_number = whole.len() == 10 && digits(whole) && digits(fraction) && is_fraction;
        return is_number.then(|| {
            let nanoseconds = format!("{fraction:0<9}");
            let nanoseconds: i64 = nanoseconds.get(..9)?.parse().ok()?;
            Some((whole.parse::<i64>().ok()? * 1_000_000_000 + nanoseconds, TimeForm::Seconds))
        })?;
    }
    let unit = match text.len() {
        19 => 1,
        16 => 1000,
        13 => 1_000_000,
        10 => 1_000_000_000,
        _ => return None,
    };
    let number: i64 = if digits(text) { text.parse().ok()? } else { return None };
    Some((number.checked_mul(unit)?, TimeForm::Digits(text.len())))
}

/// Date and time of day with any separators, a fraction of the second, and an offset from UTC.
/// Without an offset the time is taken for UTC.
fn date_and_time(text: &str) -> Option<i64> {
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
    let mut nanoseconds = 0;
    if let Some(after) = rest.strip_prefix(['.', ',', '_']) {
        let end = after.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(after.len());
        let (fraction, after) = after.split_at(end);
        nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok().filter(|_| end > 0)?;
        rest = after;
    }
    let offset = match rest {
        "" | "Z" | "z" => 0,
        _ => {
            let sign = if rest.starts_with('-') { -1 } else { 1 };
            let digits: String =
                rest.get(1..)?.chars().filter(|c| !matches!(c, ':' | '-' | '_')).collect();
            if !rest.starts_with(['+', '-']) || digits.len() != 4 {
                return None;
            }
            let (hours, minutes) = digits.split_at_checked(2)?;
            sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
        }
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin with March, so that the leap day is the last of its year.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// Natural order: runs of digits compare as numbers, of any length; a copy (`NAME (1).jpg`) comes
/// after its original. Names that are equal by this rule, such as `a01` and `a1`, compare as text.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (first, second) = (Parts::of(a), Parts::of(b));
    by_numbers(first.stem, second.stem)
        .then_with(|| by_numbers(first.copy, second.copy))
        .then_with(|| by_numbers(first.extension, second.extension))
        .then_with(|| a.cmp(b))
}

/// A name, split into what counts first in the order.
struct Parts<'a> {
    stem: &'a str,
    /// The number of a copy; empty for an original.
    copy: &'a str,
    extension: &'a str,
}

impl<'a> Parts<'a> {
    fn of(name: &'a str) -> Self {
        let (stem, extension) = match name.rsplit_once('.') {
            // The fraction of a number is no extension.
            Some((stem, extension)) if extension.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                (stem, extension)
            }
            _ => (name, ""),
        };
        let copy = stem.strip_suffix(')').and_then(|stem| stem.rsplit_once('('));
        match copy {
            Some((stem, number)) if number.bytes().all(|b| b.is_ascii_digit()) => {
                Self { stem: stem.trim_end(), copy: number, extension }
            }
            _ => Self { stem, copy: "", extension },
        }
    }
}

fn by_numbers(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a.as_bytes(), b.as_bytes());
    loop {
        let order = match (x, y) {
            ([], _) | (_, []) => return x.len().cmp(&y.len()),
            ([c, ..], [d, ..]) if c.is_ascii_digit() && d.is_ascii_digit() => {
                let (m, n) = (number(&mut x), number(&mut y));
                m.len().cmp(&n.len()).then_with(|| m.cmp(n))
            }
            ([c, ..], [d, ..]) => {
                (x, y) = (x.get(1..).unwrap_or_default(), y.get(1..).unwrap_or_default());
                c.cmp(d)
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Splits the digits off the front, and returns them without leading zeros.
fn number<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let end = bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len());
    let (digits, rest) = bytes.split_at(end);
    *bytes = rest;
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    digits.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natural_order() {
        // Each row is in order.
        let table: [&[&str]; 8] = [
            &["img1.jpg", "img2.jpg", "img10.jpg", "img11.jpg"],
            &["", "a", "a0", "a00", "a01", "a1", "a2", "b"],
            &["1", "9", "10", "99999999999999999999998", "99999999999999999999999"],
            &["f1_9.png", "f1_10.png", "f2_1.png"],
            &["0001.jpg", "0002.jpg", "10.jpg"],
            &["a.jpg", "a (1).jpg", "a (2).jpg", "a(10).jpg", "a_1.jpg", "b.jpg"],
            &["1 (1).jpg", "1 (2).jpg", "1 (10).jpg"],
            &["x_0.mcap", "x_0.mcap.zstd", "x_1.mcap"],
        ];
        for names in table {
            for (i, a) in names.iter().enumerate() {
                for (j, b) in names.iter().enumerate() {
                    assert_eq!(natural(a, b), i.cmp(&j), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn times() {
        let date = |fraction: i64| Some((1_700_067_870_000_000_000 + fraction, TimeForm::Date));
        let seconds =
            |fraction: i64| Some((1_700_000_000_000_000_000 + fraction, TimeForm::Seconds));
        let digits = |ns: i64, count: usize| Some((ns, TimeForm::Digits(count)));
        for (name, expected) in [
            ("1759999999999773295", digits(1_759_999_999_999_773_295, 19)),
            ("left-1759999999999773", digits(1_759_999_999_999_773_000, 16)),
            ("1700000000250", digits(1_700_000_000_250_000_000, 13)),
            ("frame_1700000000", digits(1_700_000_000_000_000_000, 10)),
            ("1700000000.5", seconds(500_000_000)),
            ("1700000000.05", seconds(50_000_000)),
            ("1700000000.123456789012", seconds(123_456_789)),
            ("1700000000_050000000", seconds(50_000_000)),
            ("1700000000-250000", seconds(250_000_000)),
            ("2023-11-15T17:04:30Z", date(0)),
            ("2023-11-15T17:04:30.25Z", date(250_000_000)),
            ("2023-11-15T18-04-30.25+01:00", date(250_000_000)),
            ("2023-11-15T15-34-30-0130", date(0)),
            ("2023-11-15 17.04.30,5", date(500_000_000)),
            ("IMG_20231115_170430", date(0)),
            ("cam20231115T170430.250Z", date(250_000_000)),
            ("20231115_170430_250", date(250_000_000)),
            ("9999999999999999999", None),
            ("175999999999977", None),
            ("17599999999997732x", None),
            ("0000000012", None),
            ("0000000000000001", None),
            ("1700000000_0012", None),
            ("1700000000.", None),
            ("2023-13-15T17:04:30Z", None),
            ("2023-11-15T17:64:30Z", None),
            ("2023-11-15T17:04:30.Z", None),
            ("2023-11-15", None),
            ("IMG_20231115_170430 (1)", None),
            ("img12", None),
            ("é", None),
            ("", None),
        ] {
            let found = time(name).map(|time| (time.ns, time.form));
            assert_eq!(found, expected, "{name}");
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
