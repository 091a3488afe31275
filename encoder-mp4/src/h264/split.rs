use encoder_core::nal_units;

use super::{StreamError, nal};

/// Splits the messages of a topic into NAL units: behind start codes (Annex B), or behind their
/// lengths of four bytes (as in MP4), with the parameter sets in an `avcC` record or among them.
///
/// Lengths may look like start codes, so the first message decides for all.
#[derive(Clone, Debug, Default)]
pub struct UnitSplitter {
    has_lengths: Option<bool>,
}

impl UnitSplitter {
    /// The NAL units of the next message, in order. Empty if the message has only zeros between its
    /// start codes.
    ///
    /// # Errors
    /// [`StreamError`] if the message cannot be split.
    pub fn split<'a>(&mut self, message: &'a [u8]) -> Result<Vec<&'a [u8]>, StreamError> {
        if message.is_empty() {
            return Err(StreamError::new("the message is empty"));
        }
        let starts = message.iter().position(|&byte| byte != 0).unwrap_or(message.len());
        let has_start_code = starts >= 2 && message.get(starts) == Some(&1);
        let by_length = match self.has_lengths {
            Some(false) => None,
            _ => configuration(message).or_else(|| lengths(message)),
        };
        if let Some(units) = by_length {
            self.has_lengths = Some(true);
            // Such a unit cannot be written in Annex B form.
            if units.iter().any(|unit| has_start_code_inside(unit)) {
                return Err(StreamError::new("a NAL unit has no emulation prevention"));
            }
            return Ok(units);
        }
        if has_start_code {
            self.has_lengths.get_or_insert(false);
            return Ok(nal_units(message).collect());
        }
        Err(StreamError::new(match self.has_lengths {
            Some(true) => "the lengths of its NAL units do not add up to the message",
            _ => {
                "it is no H.264 in Annex B form: it does not begin with a start code, or a NAL \
                 unit is spread over several messages"
            }
        }))
    }
}

/// NAL units behind lengths of four bytes, if all of them may be NAL units of H.264.
fn lengths(mut message: &[u8]) -> Option<Vec<&[u8]>> {
    let mut units = Vec::new();
    while let Some((length, rest)) = message.split_first_chunk() {
        let (unit, rest) = rest.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
        units.push(unit);
        message = rest;
    }
    (message.is_empty() && units.iter().all(|unit| is_plausible(unit))).then_some(units)
}

/// Whether a NAL unit is of a kind that is common in recordings, with a header that agrees.
fn is_plausible(unit: &[u8]) -> bool {
    let Some(&header) = unit.first() else { return false };
    let (is_forbidden, is_reference) = (header & 0x80 != 0, header & 0x60 != 0);
    !is_forbidden
        && match header & 0x1f {
            nal::SLICE => unit.len() > 1,
            nal::IDR | nal::SPS | nal::PPS => unit.len() > 1 && is_reference,
            6 | nal::DELIMITER | 12 => unit.len() > 1 && !is_reference,
            10 | 11 => !is_reference,
            _ => false,
        }
}

/// The parameter sets of an `avcC` record with lengths of four bytes.
fn configuration(message: &[u8]) -> Option<Vec<&[u8]>> {
    let (head, mut rest) = message.split_first_chunk::<5>()?;
    if head[0] != 1 || head[4] != 0xff {
        return None;
    }
    let mut units = Vec::new();
    for (mask, kind) in [(0x1f, nal::SPS), (0xff, nal::PPS)] {
        let (count, mut sets) = rest.split_first()?;
        for _ in 0..count & mask {
            let (length, behind) = sets.split_first_chunk()?;
            let (unit, behind) = behind.split_at_checked(u16::from_be_bytes(*length).into())?;
            units.push(unit);
            sets = behind;
            if nal::kind(unit) != kind {
                return None;
            }
        }
        rest = sets;
    }
    // High profiles have four more bytes.
    (!units.is_empty() && matches!(rest.len(), 0 | 4)).then_some(units)
}

fn has_start_code_inside(unit: &[u8]) -> bool {
    unit.windows(3).any(|bytes| matches!(bytes, [0, 0, 0..=2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1e, 0xd9];
    const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
    const P: &[u8] = &[0x41, 0x9a, 0x22];

    fn behind_lengths(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|u| [&(u.len() as u32).to_be_bytes(), *u].concat()).collect()
    }

    fn avcc() -> Vec<u8> {
        let sets = [&[0xe1, 0, 5], SPS, &[1, 0, 4], PPS].concat();
        [&[1, 0x42, 0xc0, 0x1e, 0xff], &sets[..]].concat()
    }

    #[test]
    fn messages_are_split_by_start_codes_or_by_lengths() {
        // 321 bytes: the length `00 00 01 41` looks like the start of a slice.
        let long = [P, &[7; 318]].concat();
        type Case<'a> = (&'a str, Vec<u8>, Result<Vec<&'a [u8]>, &'a str>);
        let cases: &[Case<'_>] = &[
            ("start codes", [&[0, 0, 1], SPS, &[0, 0, 0, 1], PPS].concat(), Ok(vec![SPS, PPS])),
            ("zeros in front", [&[0; 5][..], &[1], P].concat(), Ok(vec![P])),
            ("lengths", behind_lengths(&[SPS, PPS, P]), Ok(vec![SPS, PPS, P])),
            ("a length like a start code", behind_lengths(&[&long]), Ok(vec![&long])),
            ("avcC", avcc(), Ok(vec![SPS, PPS])),
            ("avcC of a high profile", [&avcc()[..], &[1; 4]].concat(), Ok(vec![SPS, PPS])),
            ("a cut length", behind_lengths(&[P])[..6].to_vec(), Err("no H.264 in Annex B form")),
            ("neither", P.to_vec(), Err("no H.264 in Annex B form")),
            ("empty", vec![], Err("empty")),
            ("no emulation prevention", behind_lengths(&[&[0x41, 0, 0, 1, 9]]), Err("emulation")),
        ];
        for (name, message, expected) in cases {
            let got = UnitSplitter::default().split(message);
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, *expected, "{name}"),
                (Err(got), Err(expected)) => {
                    assert!(got.to_string().contains(expected), "{name}: {got}");
                }
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }

    #[test]
    fn the_first_message_decides() {
        let mut splitter = UnitSplitter::default();
        assert_eq!(splitter.split(&avcc()), Ok(vec![SPS, PPS]));
        assert!(
            splitter
                .split(&behind_lengths(&[P])[..6])
                .is_err_and(|e| e.to_string().contains("lengths"))
        );
        assert_eq!(splitter.split(&behind_lengths(&[P, P])), Ok(vec![P, P]));
        // Some encoders write parameter sets behind start codes and pictures behind lengths.
        assert_eq!(splitter.split(&[&[0, 0, 0, 1], SPS].concat()), Ok(vec![SPS]));
        let mut splitter = UnitSplitter::default();
        assert_eq!(splitter.split(&[&[0, 0, 0, 1], SPS].concat()), Ok(vec![SPS]));
        assert!(splitter.split(&behind_lengths(&[P])).is_err());
    }
}
