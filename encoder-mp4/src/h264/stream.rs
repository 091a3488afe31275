use encoder_core::{Resolution, nal_units};
use thiserror::Error;

use super::{
    ParameterSets, nal,
    order::PictureOrder,
    slice::{SliceHeader, picture_parameter_set},
    sps::{Numbers, OrderCount, Sps},
};

/// The content of an access unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A coded picture.
    Picture(CodedPicture),
    /// Parameter sets for later pictures, and no picture.
    ParameterSets,
}

/// A coded picture, by its parameter sets and slice headers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodedPicture {
    /// An IDR picture: decoding can start here.
    pub is_keyframe: bool,
    /// Size after cropping.
    pub size: Resolution,
    /// The picture is output before a picture that precedes it in the stream.
    pub is_reordered: bool,
    /// The reason why pictures before this picture must be missing.
    pub gap: Option<String>,
}

/// The reason why an access unit cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The access unit is broken, or depends on data that is missing. Later access units may be
    /// good.
    #[error("{0}")]
    Broken(String),
    /// The stream does not have exactly one frame per access unit.
    #[error("{0}")]
    Framing(String),
}

/// Reads an H.264 stream, access unit by access unit: parameter sets and slice headers.
///
/// Parameter sets apply from their position in the stream on, as in a decoder, whatever access unit
/// carries them. Each access unit must hold one frame, and the frames are checked to be in output
/// order.
#[derive(Clone, Debug, Default)]
pub struct StreamReader {
    sets: ParameterSets,
    order: PictureOrder,
    /// Largest picture order count since the last reset.
    highest: i64,
    /// `PrevRefFrameNum`.
    frame_num: u32,
    /// The sequence parameter set that the last key frame activated; `None` before the first key
    /// frame.
    active: Option<Sps>,
    /// The parameter sets that were active at the last key frame.
    keyframe_sets: ParameterSets,
    /// The last slice of the previous access unit.
    last: Option<SliceHeader>,
    /// The previous access unit was broken: frame numbers may jump.
    is_interrupted: bool,
    /// The last key frame was broken.
    is_without_keyframe: bool,
}

impl StreamReader {
    /// A reader at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the next Annex B access unit.
    ///
    /// # Errors
    /// [`StreamError`]. The parameter sets of the access unit are stored in any case.
    pub fn read(&mut self, access_unit: &[u8]) -> Result<Content, StreamError> {
        let result = self.slices(access_unit).and_then(|(slices, has_sets)| match &slices[..] {
            [] if has_sets => Ok(Content::ParameterSets),
            [] => Err(broken("the message holds no picture (no H.264 slice in Annex B form)")),
            _ => self.picture(&slices).map(Content::Picture),
        });
        match &result {
            Err(_) => {
                self.is_interrupted = true;
                if nal_units(access_unit).any(|unit| nal::kind(unit) == nal::IDR) {
                    self.is_without_keyframe |= self.active.take().is_some();
                }
            }
            Ok(Content::Picture(picture)) => {
                self.is_interrupted = false;
                self.is_without_keyframe &= !picture.is_keyframe;
            }
            Ok(Content::ParameterSets) => {}
        }
        result
    }

    /// All parameter sets so far, as an Annex B stream.
    pub fn parameter_sets(&self) -> Vec<u8> {
        self.annex_b(&self.sets)
    }

    /// All parameter sets that were active at the last key frame, as an Annex B stream.
    pub fn keyframe_parameter_sets(&self) -> Vec<u8> {
        self.annex_b(&self.keyframe_sets)
    }

    fn annex_b(&self, sets: &ParameterSets) -> Vec<u8> {
        let active = self.active.as_ref().map_or(0, |sps| sps.id);
        let units = sets.sps(active).chain(sets.pps());
        units.flat_map(|unit| [&[0, 0, 0, 1], &unit[..]].concat()).collect()
    }

    /// The slice headers of an access unit, and whether it has parameter sets.
    fn slices(&mut self, access_unit: &[u8]) -> Result<(Vec<SliceHeader>, bool), StreamError> {
        let (mut slices, mut has_sets, mut error) = (Vec::new(), false, None);
        for unit in nal_units(access_unit) {
            let read = match nal::kind(unit) {
                nal::SPS | nal::PPS => {
                    has_sets = true;
                    self.sets.insert(unit).map(drop).map_err(StreamError::Broken)
                }
                _ if !nal::is_slice(unit) => Ok(()),
                kind if self.active.is_none() && kind != nal::IDR => Err(self.no_keyframe()),
                _ if error.is_some() => Ok(()),
                _ => self.slice(unit).map(|slice| slices.push(slice)),
            };
            // Parameter sets after a broken unit are stored as well.
            error = error.or(read.err());
        }
        slices.retain(|slice| slice.redundant == 0);
        error.map_or(Ok((slices, has_sets)), Err)
    }

    /// Reads a slice header. A key frame activates its sequence parameter set, which applies to all
    /// pictures up to the next key frame, even if another set with its id arrives before.
    fn slice(&mut self, unit: &[u8]) -> Result<SliceHeader, StreamError> {
        let unreadable = || broken("a slice header cannot be read");
        let pps = picture_parameter_set(unit).ok_or_else(unreadable)?;
        let Some((sps, pps)) = self.sets.of_picture(pps) else {
            return Err(broken(format!(
                "the parameter sets of the picture (PPS {pps}) have not come"
            )));
        };
        let is_idr = nal::kind(unit) == nal::IDR;
        let active = self.active.as_ref().filter(|active| !is_idr && active.id == sps.id);
        let slice = SliceHeader::parse(unit, active.unwrap_or(sps), pps).ok_or_else(unreadable)?;
        if is_idr {
            let sps = sps.clone();
            self.keyframe_sets = self.sets.clone();
            self.active = Some(sps);
        } else if active.is_none() {
            return Err(broken(format!("its SPS changes to {} without a key frame", sps.id)));
        }
        Ok(slice)
    }

    /// The single picture that these slices form.
    fn picture(&mut self, slices: &[SliceHeader]) -> Result<CodedPicture, StreamError> {
        let pictures = first_slices(slices);
        if let (Some(last), Some(first)) = (self.last.take(), slices.first())
            && first.first_macroblock > 0
            && first.is_same_picture(&last)
        {
            return Err(framing("a picture is spread over several messages"));
        }
        self.last = slices.last().cloned();
        let first = match pictures[..] {
            [frame] if frame.field.is_none() => frame,
            [first, second] if are_fields_of_a_frame(first, second) => first,
            [_] => return Err(framing("the two fields of a frame are in messages of their own")),
            _ => return Err(framing(format!("a message holds {} pictures", pictures.len()))),
        };
        let Some(Sps { size, numbers, .. }) = self.active.clone() else {
            return Err(self.no_keyframe());
        };
        let mut gap = self.frame_num_gap(first, &numbers);
        let mut count = i64::MAX;
        let mut resets = false;
        for picture in &pictures {
            count = count.min(self.order.next(&numbers, picture));
            resets |= picture.resets;
        }
        let last = pictures[pictures.len() - 1];
        if last.is_reference {
            self.frame_num = if last.resets { 0 } else { last.frame_num };
        }
        let starts = first.is_idr || resets;
        let mut is_reordered = false;
        if starts || gap.is_some() || self.is_interrupted {
            self.highest = count;
        } else if count < self.highest && numbers.order != OrderCount::Decoding {
            // A B picture, or a stream that may reorder. Otherwise the low bits of the count have
            // wrapped around while pictures were missing.
            is_reordered = !numbers.declares_no_reorder || slices.iter().any(|slice| slice.is_b);
            if !is_reordered {
                gap =
                    Some(format!("the picture order count falls from {} to {count}", self.highest));
                self.highest = count;
            }
        }
        self.highest = self.highest.max(count);
        let gap = gap.filter(|_| !self.is_interrupted);
        Ok(CodedPicture { is_keyframe: first.is_idr, size, is_reordered, gap })
    }

    fn no_keyframe(&self) -> StreamError {
        broken(match self.is_without_keyframe {
            true => "the key frame before it is broken",
            false => "it comes before the first key frame with parameter sets",
        })
    }

    /// The reason why pictures are missing before this picture, by `frame_num` (7.4.3). Counts the
    /// pictures that a stream leaves out intentionally.
    fn frame_num_gap(&mut self, slice: &SliceHeader, numbers: &Numbers) -> Option<String> {
        let (frame_num, before) = (slice.frame_num, self.frame_num);
        let most = 1u32 << numbers.frame_num_bits;
        let expected = (before + 1) % most;
        if slice.is_idr || frame_num == before || frame_num == expected {
            return None;
        }
        self.frame_num = frame_num.checked_sub(1).unwrap_or(most - 1);
        let text = || format!("its frame_num is {frame_num} instead of {expected}");
        (!numbers.gaps_allowed).then(text)
    }
}

/// The first slice of each primary picture.
fn first_slices(slices: &[SliceHeader]) -> Vec<&SliceHeader> {
    let mut firsts: Vec<&SliceHeader> = Vec::new();
    let mut begin = 0;
    for (n, slice) in slices.iter().enumerate() {
        // Slices may be in any order, but each only once in a picture.
        let is_again = slice.first_macroblock == 0
            && slices[begin..n].iter().any(|other| {
                (other.first_macroblock, other.colour_plane) == (0, slice.colour_plane)
            });
        if n == 0 || is_again || !slice.is_same_picture(&slices[begin]) {
            begin = n;
            firsts.push(slice);
        }
    }
    firsts
}

fn are_fields_of_a_frame(first: &SliceHeader, second: &SliceHeader) -> bool {
    let are_both = first.field.is_some() && second.field.is_some() && first.field != second.field;
    are_both && first.frame_num == second.frame_num && !second.is_idr
}

fn broken(text: impl Into<String>) -> StreamError {
    StreamError::Broken(text.into())
}

fn framing(text: impl Into<String>) -> StreamError {
    StreamError::Framing(text.into())
}
