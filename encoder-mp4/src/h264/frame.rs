use super::{ParameterSets, slice::SliceHeader};

/// A frame whose NAL units are being read: a picture, or the two fields of a frame.
#[derive(Clone, Debug)]
pub(super) struct Frame<M> {
    /// The access unit so far, with start codes of four bytes.
    pub data: Vec<u8>,
    /// Whether the access unit has parameter sets.
    pub has_sets: bool,
    /// The message with the first slice.
    pub message: M,
    /// Number of the last message with a part of the frame.
    pub last_message: u64,
    /// The first slice is that of an IDR picture.
    pub is_idr: bool,
    /// The parameter sets that are active at a key frame.
    pub keyframe_sets: Option<ParameterSets>,
    /// The pictures; `None` if no slice header can be read.
    pub pictures: Option<Pictures>,
    /// Why the frame cannot be used.
    pub error: Option<String>,
}

/// The pictures of a frame: a frame, or one or two fields.
#[derive(Clone, Debug)]
pub(super) struct Pictures {
    first: Picture,
    second: Option<Picture>,
    /// A slice is predicted from two lists.
    pub has_b: bool,
}

#[derive(Clone, Debug)]
struct Picture {
    /// The slice that came first.
    slice: SliceHeader,
    /// The colour planes whose first macroblock has come, as bits.
    begun_planes: u8,
}

impl Picture {
    fn new(slice: SliceHeader) -> Self {
        let mut picture = Self { begun_planes: 0, slice };
        picture.begun_planes = picture.plane_begun_by(&picture.slice);
        picture
    }

    fn plane_begun_by(&self, slice: &SliceHeader) -> u8 {
        if slice.first_macroblock == 0 { 1 << slice.colour_plane } else { 0 }
    }
}

impl Pictures {
    pub fn new(slice: SliceHeader) -> Self {
        Self { has_b: slice.is_b, first: Picture::new(slice), second: None }
    }

    /// The first slice of each picture that has come.
    pub fn slices(&self) -> impl Iterator<Item = &SliceHeader> {
        [Some(&self.first), self.second.as_ref()].into_iter().flatten().map(|p| &p.slice)
    }

    /// The slice that came first.
    pub fn first(&self) -> &SliceHeader {
        &self.first.slice
    }

    /// The first slice of the last picture.
    pub fn last(&self) -> &SliceHeader {
        &self.second.as_ref().unwrap_or(&self.first).slice
    }

    /// Adds a slice if it belongs to the frame. Returns whether it does. Slices may be in any order,
    /// but each only once in a picture.
    pub fn add(&mut self, slice: &SliceHeader) -> bool {
        if slice.redundant > 0 {
            return true;
        }
        let picture = self.second.as_mut().unwrap_or(&mut self.first);
        let begun = picture.plane_begun_by(slice);
        if slice.is_same_picture(&picture.slice) {
            if picture.begun_planes & begun != 0 {
                return false;
            }
            picture.begun_planes |= begun;
        } else if self.second.is_none() && are_fields_of_a_frame(&self.first.slice, slice) {
            self.second = Some(Picture::new(slice.clone()));
        } else {
            return false;
        }
        self.has_b |= slice.is_b;
        true
    }

    /// The part of the frame that is missing.
    pub fn missing(&self) -> Option<&'static str> {
        let mut pictures = [Some(&self.first), self.second.as_ref()].into_iter().flatten();
        if pictures.any(|picture| picture.begun_planes == 0) {
            return Some("its first slice is missing in the recording");
        }
        let is_field = self.first.slice.field.is_some();
        (is_field && self.second.is_none()).then_some("one of its two fields is missing")
    }
}

fn are_fields_of_a_frame(first: &SliceHeader, second: &SliceHeader) -> bool {
    let are_both = first.field.is_some() && second.field.is_some() && first.field != second.field;
    are_both && first.frame_num == second.frame_num && !second.is_idr
}
