use encoder_core::Resolution;
use thiserror::Error;

use super::{
    ParameterSets,
    frame::{Frame, Pictures},
    keyframes::KeyframeIds,
    nal,
    order::PictureOrder,
    slice::{SliceHeader, first_macroblock, picture_parameter_set},
    sps::{Numbers, OrderCount, Sps},
};

/// A coded frame, by its parameter sets and slice headers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodedPicture {
    /// The access unit in Annex B form, with start codes of four bytes. If parameter sets were in
    /// front of frames that cannot be used, all parameter sets so far are in front of it.
    pub data: Vec<u8>,
    /// The parameter sets that are active at a key frame, in Annex B form; empty for other frames.
    pub parameter_sets: Vec<u8>,
    /// An IDR picture: decoding can start here.
    pub is_keyframe: bool,
    /// Size after cropping.
    pub size: Resolution,
    /// The frame is output before a frame that precedes it in the stream.
    pub is_reordered: bool,
    /// What is missing in the recording: frames before this frame, or a part of it.
    pub damage: Option<String>,
}

/// The reason why a frame cannot be used: it is broken, or depends on data that is missing. Later
/// frames may be good.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct StreamError(pub(crate) String);

/// A frame, and the message with its first slice.
pub type ReadFrame<M> = (M, Result<CodedPicture, StreamError>);

/// Reads an H.264 stream, NAL unit by NAL unit: parameter sets and slice headers.
///
/// The NAL units are joined to access units by their slice headers, whatever messages they are in:
/// a message may hold several frames, and the slices or the two fields of a frame may be in messages
/// of their own. `M` identifies a message.
///
/// Parameter sets apply from their position in the stream on, as in a decoder. The frames are
/// checked to be in output order.
#[derive(Clone, Debug)]
pub struct StreamReader<M> {
    sets: ParameterSets,
    order: PictureOrder,
    /// Largest picture order count since the last reset.
    highest: i64,
    /// `PrevRefFrameNum`.
    frame_num: u32,
    keyframe_ids: KeyframeIds,
    /// The sequence parameter set that the last key frame activated; `None` before the first key
    /// frame.
    active: Option<Sps>,
    /// The previous frame could not be used: frame numbers may jump.
    is_interrupted: bool,
    /// The last key frame was broken.
    is_without_keyframe: bool,
    /// Parameter sets were in front of a frame that could not be used.
    has_lost_sets: bool,
    /// The frame that is being read.
    frame: Option<Frame<M>>,
    next: Prefix,
    /// Number of messages so far.
    messages: u64,
}

/// The most bytes of a frame.
const LARGEST: usize = 256 << 20;
/// The most bytes of NAL units in front of a frame.
const LARGEST_PREFIX: usize = 4 << 20;

/// NAL units in front of the first slice of the next frame, or between slices.
#[derive(Clone, Debug, Default)]
struct Prefix {
    units: Vec<Vec<u8>>,
    bytes: usize,
    has_sets: bool,
    /// Why a parameter set cannot be read.
    error: Option<String>,
}

impl<M> Default for StreamReader<M> {
    fn default() -> Self {
        Self {
            sets: ParameterSets::default(),
            order: PictureOrder::default(),
            highest: 0,
            frame_num: 0,
            keyframe_ids: KeyframeIds::default(),
            active: None,
            is_interrupted: false,
            is_without_keyframe: false,
            has_lost_sets: false,
            frame: None,
            next: Prefix::default(),
            messages: 0,
        }
    }
}

impl<M: Clone> StreamReader<M> {
    /// A reader at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the next message.
    pub fn begin_message(&mut self) {
        self.messages += 1;
    }

    /// Reads the next NAL unit of a message. If it begins a frame, the frame before it is complete
    /// and is returned.
    pub fn read(&mut self, unit: &[u8], message: &M) -> Option<ReadFrame<M>> {
        match nal::kind(unit) {
            _ if nal::is_slice(unit) => return self.slice(unit, message),
            nal::SPS | nal::PPS => {
                self.next.has_sets = true;
                if let Err(text) = self.sets.insert(unit) {
                    self.next.error.get_or_insert(text);
                }
            }
            kind if nal::follows_slices(kind) && self.next.units.is_empty() => {
                if let Some(frame) = &mut self.frame {
                    put(&mut frame.data, unit);
                    return None;
                }
            }
            _ => {}
        }
        self.next.bytes += unit.len();
        self.next.units.push(unit.to_vec());
        if self.next.bytes > LARGEST_PREFIX {
            // No frame has come for long: only the parameter sets matter.
            self.next.units.clear();
            self.next.bytes = 0;
            self.has_lost_sets = true;
        }
        None
    }

    /// Ends the stream, or the frame that is being read, and returns that frame.
    pub fn finish(&mut self) -> Option<ReadFrame<M>> {
        let frame = self.frame.take()?;
        let picture = match (&frame.error, &frame.pictures) {
            (None, Some(pictures)) => self.picture(pictures).map_err(StreamError),
            (error, _) => Err(StreamError(error.clone().unwrap_or_default())),
        };
        match &picture {
            Err(_) => {
                self.is_interrupted = true;
                self.has_lost_sets |= frame.has_sets;
                if frame.is_idr {
                    self.is_without_keyframe |= self.active.take().is_some();
                    self.keyframe_ids = KeyframeIds::default();
                }
            }
            Ok(picture) => {
                self.is_interrupted = false;
                self.is_without_keyframe &= !picture.is_keyframe;
            }
        }
        let picture = picture.map(|picture| CodedPicture {
            data: frame.data,
            parameter_sets: frame.keyframe_sets.map_or_else(Vec::new, |sets| self.annex_b(&sets)),
            ..picture
        });
        Some((frame.message, picture))
    }

    /// All parameter sets so far, as an Annex B stream.
    pub fn parameter_sets(&self) -> Vec<u8> {
        self.annex_b(&self.sets)
    }

    fn annex_b(&self, sets: &ParameterSets) -> Vec<u8> {
        let active = self.active.as_ref().map_or(0, |sps| sps.id);
        let mut out = Vec::new();
        sets.sps(active).chain(sets.pps()).for_each(|unit| put(&mut out, unit));
        out
    }

    /// Adds a slice to the frame that is being read, or begins the next frame with it.
    fn slice(&mut self, unit: &[u8], message: &M) -> Option<ReadFrame<M>> {
        let header = self.header(unit);
        if let Some(frame) = &mut self.frame {
            let continues = match (&header, &mut frame.pictures) {
                (Ok(slice), Some(pictures)) => pictures.add(slice),
                (Ok(slice), None) => slice.first_macroblock > 0,
                // A slice that cannot be read: usually the first slice of a picture comes first.
                (Err(_), _) => {
                    frame.last_message == self.messages && frame.error.is_none()
                        || first_macroblock(unit).is_some_and(|first| first > 0)
                }
            };
            if continues {
                let between = std::mem::take(&mut self.next);
                frame.has_sets |= between.has_sets;
                frame.last_message = self.messages;
                let error = frame.error.take().or(between.error).or(header.err());
                frame.error = error;
                let units = between.units.iter().filter(|unit| nal::kind(unit) != nal::DELIMITER);
                units.for_each(|unit| put(&mut frame.data, unit));
                put(&mut frame.data, unit);
                if frame.data.len() > LARGEST {
                    frame.data = Vec::new();
                    frame.error = Some(format!("it has more than {LARGEST} bytes"));
                }
                return None;
            }
        }
        let done = self.finish();
        self.begin(unit, message);
        done
    }

    /// Begins a frame with its first slice. A key frame activates its sequence parameter set, which
    /// applies to all pictures up to the next key frame, even if another set with its id arrives
    /// before.
    fn begin(&mut self, unit: &[u8], message: &M) {
        let header = self.header(unit);
        let Prefix { units, mut has_sets, error, .. } = std::mem::take(&mut self.next);
        let is_idr = nal::kind(unit) == nal::IDR;
        let mut keyframe_sets = None;
        if let (true, Ok(slice)) = (is_idr, &header) {
            self.active = self.sets.of_picture(slice.pps).map(|(sps, _)| sps.clone());
            keyframe_sets = Some(self.sets.clone());
        }
        let mut data = Vec::new();
        if std::mem::take(&mut self.has_lost_sets) {
            data = self.parameter_sets();
            has_sets = true;
        }
        units.iter().for_each(|unit| put(&mut data, unit));
        put(&mut data, unit);
        let (pictures, unreadable) = match header {
            Ok(slice) if slice.redundant > 0 => {
                (None, Some("its primary slices are missing".into()))
            }
            Ok(slice) => (Some(Pictures::new(slice)), None),
            Err(text) => (None, Some(text)),
        };
        self.frame = Some(Frame {
            data,
            has_sets,
            message: message.clone(),
            last_message: self.messages,
            is_idr,
            keyframe_sets,
            pictures,
            error: error.or(unreadable),
        });
    }

    /// Reads a slice header.
    fn header(&self, unit: &[u8]) -> Result<SliceHeader, String> {
        let is_idr = nal::kind(unit) == nal::IDR;
        if self.active.is_none() && !is_idr {
            return Err(self.no_keyframe());
        }
        let unreadable = || "a slice header cannot be read".to_owned();
        let pps = picture_parameter_set(unit).ok_or_else(unreadable)?;
        let Some((sps, pps)) = self.sets.of_picture(pps) else {
            return Err(format!("the parameter sets of the picture (PPS {pps}) have not come"));
        };
        let active = self.active.as_ref().filter(|active| !is_idr && active.id == sps.id);
        if !is_idr && active.is_none() {
            return Err(format!("its SPS changes to {} without a key frame", sps.id));
        }
        SliceHeader::parse(unit, active.unwrap_or(sps), pps).ok_or_else(unreadable)
    }

    /// What the slices of a frame state, without its access unit.
    fn picture(&mut self, pictures: &Pictures) -> Result<CodedPicture, String> {
        let first = pictures.first();
        let Some(Sps { size, numbers, .. }) = self.active.clone() else {
            return Err(self.no_keyframe());
        };
        let before = self.frame_num;
        let mut gap = self.frame_num_gap(first, &numbers);
        if first.is_idr {
            gap = gap.or(self.keyframe_ids.next(first.idr_id, size));
        } else if gap.is_some() || self.is_interrupted {
            self.keyframe_ids.skip();
        }
        let (mut order, mut count, mut resets) = (self.order.clone(), i64::MAX, false);
        for slice in pictures.slices() {
            count = count.min(order.next(&numbers, slice));
            resets |= slice.resets;
        }
        let last = pictures.last();
        if last.is_reference {
            self.frame_num = if last.resets { 0 } else { last.frame_num };
        }
        // Two frames in a row have different numbers. Some encoders get that wrong, but not both
        // the number and the count.
        let is_again = first.frame_num == before && count <= self.highest && !numbers.gaps_allowed;
        if is_again && !first.is_idr && !resets {
            let number = first.frame_num;
            gap.get_or_insert(format!("its frame_num is {number}, as that of a frame before it"));
        }
        let mut is_reordered = false;
        let is_after_gap = gap.is_some() || self.is_interrupted;
        if first.is_idr || resets {
            self.highest = count;
        } else if count < self.highest || is_after_gap && count == self.highest {
            let may_be_reordered = !numbers.declares_no_reorder || pictures.has_b;
            match is_after_gap {
                // The order of a B picture may have been interrupted.
                true if pictures.has_b && !numbers.declares_no_reorder => self.highest = count,
                // Pictures are left out by intention.
                false if numbers.order == OrderCount::Decoding => self.highest = count,
                false if may_be_reordered => is_reordered = true,
                // The low bits of the count have wrapped around, or a key frame reset the count.
                // FFmpeg does not output such a picture.
                _ => return Err(self.falls_back(count, gap)),
            }
        }
        self.highest = self.highest.max(count);
        self.order = order;
        let gap = gap.filter(|_| !self.is_interrupted).map(|gap| {
            format!(
                "pictures before it are missing in the recording ({gap}); what is predicted from \
                 them is damaged until the next key frame"
            )
        });
        let damage = match (gap, pictures.missing()) {
            (Some(gap), Some(part)) => Some(format!("{part}; {gap}")),
            (gap, part) => gap.or(part.map(str::to_owned)),
        };
        let (is_keyframe, data, parameter_sets) = (first.is_idr, Vec::new(), Vec::new());
        Ok(CodedPicture { data, parameter_sets, is_keyframe, size, is_reordered, damage })
    }

    /// Why a picture that follows missing pictures is not displayed.
    fn falls_back(&self, count: i64, gap: Option<String>) -> String {
        let because = gap.map_or_else(String::new, |gap| format!(" ({gap})"));
        format!(
            "pictures before it, or a key frame, are missing in the recording, or it is there \
             twice{because}; a decoder would not display it in its place: its picture order count is \
             {count} after {}",
            self.highest
        )
    }

    fn no_keyframe(&self) -> String {
        match self.is_without_keyframe {
            true => "the key frame before it is broken".into(),
            false => "it comes before the first key frame with parameter sets".into(),
        }
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

/// Appends a NAL unit after a start code.
fn put(out: &mut Vec<u8>, unit: &[u8]) {
    out.extend_from_slice(&[0, 0, 0, 1]);
    out.extend_from_slice(unit);
}
