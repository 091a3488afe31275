//! Times in the names of pictures.
//!
//! A name may have other numbers beside its time: that of the camera, or a counter. The time is
//! therefore searched in all names of a directory together: it is the only number that may be a time
//! and differs between them, and all else is the same or counts up with it. A name may also state
//! the same moment twice, in different forms.

use std::{cmp::Ordering, path::Path};

use encoder_media::timeline::SHORTEST_NS;

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
struct Found<'a> {
    /// Bytes of the name.
    start: usize,
    end: usize,
    /// Nanoseconds since the epoch.
    ns: i64,
    form: Form,
    fraction: Fraction<'a>,
}

/// The fraction of a second in a name.
#[derive(Clone, Copy, Debug, Default)]
struct Fraction<'a> {
    /// Length of the time up to the fraction, in bytes.
    start: usize,
    /// Empty: the time has no fraction.
    digits: &'a str,
    /// Whether it has no decimal point, and may be a counter.
    is_bare: bool,
}

impl Found<'_> {
    /// The unit in which the time is stated, in nanoseconds.
    fn unit(&self) -> i64 {
        let digits = match self.form {
            Form::Digits(digits) => digits.saturating_sub(10),
            Form::Seconds | Form::Date { .. } => self.fraction.digits.len(),
        };
        10i64.pow(9 - digits.min(9) as u32)
    }

    /// The time in whole seconds, and the digits of its fraction as a number.
    fn split(&self) -> Option<(i64, i64)> {
        let fraction = self.fraction.digits.parse().ok()?;
        Some((self.ns - self.ns.rem_euclid(SECOND_NS), fraction))
    }

    /// Whether two times are written in the same way.
    fn is_alike(&self, other: &Self) -> bool {
        let digits =
            |time: &Self| if time.fraction.is_bare { time.fraction.digits.len() } else { 0 };
        self.form == other.form && digits(self) == digits(other)
    }
}

/// The times that stand at the same place in all names, in natural order of the names.
struct Column<'a> {
    times: Vec<Found<'a>>,
    /// The first counter, if the digits after the seconds are counters. They are then no part of
    /// the times.
    counter: Option<i64>,
}

impl<'a> Column<'a> {
    fn new(mut times: Vec<Found<'a>>) -> Self {
        let counter = counter(&times);
        if counter.is_some() {
            for time in &mut times {
                time.ns -= time.ns.rem_euclid(SECOND_NS);
                time.end = time.start + time.fraction.start;
                time.fraction = Fraction::default();
            }
        }
        Self { times, counter }
    }

    fn varies(&self) -> bool {
        self.times.iter().any(|time| time.ns != self.times[0].ns)
    }

    /// The finest unit of the times, in nanoseconds.
    fn unit(&self) -> i64 {
        self.times.iter().map(Found::unit).min().unwrap_or(SECOND_NS)
    }

    /// Whether both columns state the same moments, to within the coarser unit: a time zone makes a
    /// constant difference.
    fn agrees(&self, other: &Self) -> bool {
        let differences = || self.times.iter().zip(&other.times).map(|(a, b)| a.ns - b.ns);
        let range = differences().max().zip(differences().min()).map_or(0, |(max, min)| max - min);
        range == 0 || range < self.unit().max(other.unit())
    }

    /// The times if the digits after the decimal point are not a decimal fraction but a number of
    /// milliseconds, microseconds or nanoseconds without leading zeros, as `f"{sec}.{nanosec}"`
    /// writes it. `None` if they cannot be.
    fn unpadded(&self) -> Option<Vec<i64>> {
        let digits = || self.times.iter().map(|time| time.fraction.digits);
        let longest = digits().map(str::len).max()?;
        let unit = match longest {
            3 => 1_000_000,
            6 => 1000,
            8 | 9 => 1,
            _ => return None,
        };
        let is_mixed = digits().any(|digits| digits.len() < longest);
        let is_number = |digits: &str| digits == "0" || !digits.starts_with('0');
        let time = |time: &Found<'_>| time.split().map(|(whole, number)| whole + number * unit);
        let times = self.times.iter().map(time);
        (is_mixed && digits().all(is_number)).then(|| times.collect())?
    }
}

/// The first of the digits after the seconds, if they are counters: without a decimal point, and
/// most of them one higher than those before, whatever the seconds.
fn counter(times: &[Found<'_>]) -> Option<i64> {
    let first = times.first()?;
    if !first.fraction.is_bare || !times.iter().all(|time| time.is_alike(first)) {
        return None;
    }
    let end = 10i64.pow(first.fraction.digits.len() as u32);
    let numbers: Vec<_> = times.iter().map_while(|time| Some(time.split()?.1)).collect();
    let next = numbers.windows(2).filter(|pair| pair[1] == (pair[0] + 1) % end).count();
    (2 * next >= times.len() && next > 0).then(|| numbers.first().copied())?
}

const SECOND_NS: i64 = 1_000_000_000;

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
    let column = |n: usize| Column::new(found.iter().map(|found| found[n]).collect());
    let mut columns: Vec<_> = (0..count).map(column).collect();
    match columns.iter().any(Column::varies) {
        true => columns.retain(Column::varies),
        false => columns.truncate(1),
    }
    let Some(finest) = columns.iter().min_by_key(|column| column.unit()) else { return Ok(None) };
    if !columns.iter().all(|other| other.agrees(finest)) {
        return Err(unsure(format!("more than one each: {}", names[0]), true));
    }
    let is_other = |n: &usize| columns.iter().any(|c| !c.times[*n].is_alike(&c.times[0]));
    if let Some(other) = (0..names.len()).find(is_other) {
        return Err(different(other));
    }
    let rest = |n: usize| Rest::of(stems[n], columns.iter().map(|column| column.times[n]));
    let rests: Vec<_> = (0..stems.len()).map(rest).collect();
    if let Some(other) = rests.iter().position(|rest| rest.text != rests[0].text) {
        return Err(different(other));
    }
    let times: Vec<_> = finest.times.iter().map(|time| time.ns).collect();
    let is_order_unsure = !times.is_sorted();
    let counted = "their last digits count up one by one";
    // Other digits that rise by one are those of a camera whose period is one unit longer than
    // seconds.
    if finest.counter.is_some_and(|first| first > 1) {
        return Err(unsure(counted.into(), is_order_unsure));
    }
    let checked = check(&times, &rests);
    if let Some(unpadded) = finest.unpadded().filter(|times| check(times, &rests).is_ok()) {
        if checked.is_err() {
            return Ok(Some(unpadded));
        }
        let reason =
            "their fractions of a second may be decimals, or numbers without leading zeros";
        return Err(unsure(reason.into(), is_order_unsure || !unpadded.is_sorted()));
    }
    match checked {
        Ok(()) => Ok(Some(times)),
        Err(_) if finest.counter.is_some() => Err(unsure(counted.into(), is_order_unsure)),
        Err(Bad::Same) => Err(unsure("some of them the same".into(), is_order_unsure)),
        Err(Bad::Near) => Err(unsure("they are less than 0.5 ms apart".into(), is_order_unsure)),
        Err(Bad::OtherNumber) => {
            Err(unsure(format!("another number in them differs: {}", names[0]), true))
        }
    }
}

/// Why times cannot be those of pictures.
enum Bad {
    Same,
    Near,
    OtherNumber,
}

/// Checks that numbers are the times of pictures.
fn check(times: &[i64], rests: &[Rest<'_>]) -> Result<(), Bad> {
    let mut order: Vec<_> = (0..times.len()).collect();
    order.sort_by_key(|n| times[*n]);
    let distances = order.windows(2).map(|pair| times[pair[1]] - times[pair[0]]);
    let mut distances: Vec<_> = distances.collect();
    distances.sort_unstable();
    let median = distances.get(distances.len().saturating_sub(1) / 2);
    if distances.first() == Some(&0) {
        Err(Bad::Same)
    } else if median.is_some_and(|median| *median < SHORTEST_NS) {
        Err(Bad::Near)
    } else if !counts_up(&order, rests) {
        Err(Bad::OtherNumber)
    } else {
        Ok(())
    }
}

/// A name without its extension.
fn stem(name: &str) -> &str {
    Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}

/// A name without its times.
#[derive(Default)]
struct Rest<'a> {
    /// Each number is replaced by 0, and each time by a control character.
    text: String,
    numbers: Vec<&'a str>,
}

impl<'a> Rest<'a> {
    /// `times` from left to right.
    fn of<'t>(stem: &'a str, times: impl Iterator<Item = Found<'t>>) -> Self {
        let (mut rest, mut at) = (Self::default(), 0);
        for time in times {
            rest.push(&stem[at..time.start]);
            rest.text.push('\0');
            at = time.end;
        }
        rest.push(&stem[at..]);
        rest
    }

    fn push(&mut self, mut part: &'a str) {
        while !part.is_empty() {
            let digits = leading_digits(part);
            let letters = part[digits..].find(|c: char| c.is_ascii_digit());
            let (other, rest) = part[digits..].split_at(letters.unwrap_or(part.len() - digits));
            if digits > 0 {
                self.numbers.push(&part[..digits]);
                self.text.push('0');
            }
            self.text.push_str(other);
            part = rest;
        }
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
fn search(stem: &str) -> Vec<Found<'_>> {
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
fn time(text: &str) -> Option<Found<'_>> {
    let found = number(text).or_else(|| date_and_time(text))?;
    let is_plausible = (1_000_000_000..4_102_444_800).contains(&found.ns.div_euclid(1_000_000_000));
    is_plausible.then_some(found)
}

fn leading_digits(text: &str) -> usize {
    text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len())
}

/// A number of 19, 16, 13 or 10 digits. Seconds may have a fraction.
fn number(text: &str) -> Option<Found<'_>> {
    let digits = leading_digits(text);
    let unit = match digits {
        19 => 1,
        16 => 1000,
        13 => 1_000_000,
        10 => 1_000_000_000,
        _ => return None,
    };
    let ns = text[..digits].parse::<i64>().ok()?.checked_mul(unit)?;
    if digits != 10 {
        let (form, fraction) = (Form::Digits(digits), Fraction::default());
        return Some(Found { start: 0, end: digits, ns, form, fraction });
    }
    let (length, fraction_ns, fraction) = fraction(text, digits).unwrap_or_default();
    let (end, ns) = (digits + length, ns.checked_add(fraction_ns)?);
    Some(Found { start: 0, end, ns, form: Form::Seconds, fraction })
}

/// The fraction of a second after `start` bytes of a text: its length, its nanoseconds, and itself.
/// Digits without a decimal point may be anything, unless they are those of a unit: 3, 6 or 9.
fn fraction(text: &str, start: usize) -> Option<(usize, i64, Fraction<'_>)> {
    let text = &text[start..];
    let digits = &text[text.find(|c| !matches!(c, '.' | ',' | '_' | '-'))?..];
    let mark = &text[..text.len() - digits.len()];
    let digits = &digits[..leading_digits(digits)];
    let is_bare = match (mark, digits.len()) {
        ("." | ",", 1..=18) => false,
        ("" | "_" | "-", 3 | 6 | 9) => true,
        _ => return None,
    };
    let ns = format!("{digits:0<9}").get(..9)?.parse().ok()?;
    Some((mark.len() + digits.len(), ns, Fraction { start, digits, is_bare }))
}

/// Date and time of day with any separators, a fraction of the second, and an offset from UTC.
/// Without an offset the time is taken for UTC.
fn date_and_time(text: &str) -> Option<Found<'_>> {
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
    let (length, nanoseconds, fraction) =
        fraction(text, text.len() - rest.len()).unwrap_or_default();
    rest = &rest[length..];
    if leading_digits(rest) > 0 {
        return None;
    }
    let (length, offset) = offset(rest).unwrap_or_default();
    let end = text.len() - rest.len() + length;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    let ns = seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?;
    Some(Found { start: 0, end, ns, form: Form::Date { offset }, fraction })
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
mod tests;
