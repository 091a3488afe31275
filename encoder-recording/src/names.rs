//! The order of names.

use std::cmp::Ordering;

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
}
