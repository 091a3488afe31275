//! Looks at the first pictures of a camera for what their encoding does not say: depth, or a camera
//! of fewer bits, that is recorded as pictures of 16 bits.

use crate::{
    picture::{self, Levels, PictureOptions},
    source::Payload,
};

/// How many pictures of a camera are looked at. The first ones may be dark.
const LOOKED_AT: u64 = 30;
/// Pictures of 16 bits that use more bits than this are shown as they are.
const MOST_BITS: u8 = 14;

/// The first pictures of a camera, and how its pictures are shown.
pub(crate) struct Inspection {
    topic: String,
    options: PictureOptions,
    levels: Levels,
    seen: u64,
    remarks: Vec<String>,
}

impl Inspection {
    pub fn new(topic: &str, options: PictureOptions) -> Self {
        let (levels, seen, remarks) = Default::default();
        Self { topic: topic.into(), options, levels, seen, remarks }
    }

    /// How the pictures are shown.
    pub fn options(&self) -> &PictureOptions {
        &self.options
    }

    /// Looks at the next picture, before it is shown. Returns what is new to the user.
    pub fn look(&mut self, payload: &Payload) -> Vec<String> {
        if self.seen == LOOKED_AT {
            return Vec::new();
        }
        self.seen += 1;
        let is_wide = self.levels.add(payload, &self.options);
        let mut found = Vec::new();
        if is_wide && self.levels.pictures() == 1 {
            found.extend(self.take_as_depth(payload));
        }
        found.extend(picture::remark(payload, &self.options));
        found.retain(|remark| !self.remarks.contains(remark));
        self.remarks.extend(found.iter().cloned());
        if self.seen == LOOKED_AT {
            found.extend(self.judge());
        }
        found
    }

    /// Ends the inspection of a camera with few pictures.
    pub fn finish(&mut self) -> Option<String> {
        if self.seen == LOOKED_AT {
            return None;
        }
        self.seen = LOOKED_AT;
        self.judge()
    }

    /// Takes pictures as depth, if a range is set for all depth and these look like it.
    fn take_as_depth(&mut self, payload: &Payload) -> Option<String> {
        let options = PictureOptions { is_depth: true, ..self.options };
        self.options.depth_range?;
        picture::size(payload, &options).ok()?;
        let why = match &self.levels {
            _ if self.is_named_depth() => "of its name",
            levels if levels.look_like_depth() => "its values look like depth",
            levels if levels.lie_in_range() => "its values lie in the range of depth",
            _ => return None,
        };
        self.options = options;
        self.levels = Levels::default();
        Some(format!(
            "the encoding of this topic is not one of depth: it is taken as depth because {why}; \
             --depth-range TOPIC=MIN:MAX says which topic is depth"
        ))
    }

    fn is_named_depth(&self) -> bool {
        self.topic.to_ascii_lowercase().contains("depth")
    }

    /// The warning about pictures that use few of their bits, or more than are shown.
    fn judge(&self) -> Option<String> {
        let (bits, highest) = (self.levels.bits()?, self.levels.highest());
        let topic = &self.topic;
        match self.options.bits {
            Some(shown) if bits > shown => Some(format!(
                "the values of the pictures reach {highest}, which is more than {shown} bits: higher \
                 values are white"
            )),
            None if bits <= MOST_BITS => {
                let bits_of_camera = [10, 12].into_iter().find(|&n| n >= bits).unwrap_or(MOST_BITS);
                let depth = format!("--depth-range {topic}=MIN:MAX shows depth as grey");
                let camera = format!(
                    "--bits {topic}={bits_of_camera} shows a camera of {bits_of_camera} bits"
                );
                let looks_like_depth = self.is_named_depth() || self.levels.look_like_depth();
                let (looks, first, second) = match looks_like_depth {
                    true => ("; they look like depth", depth, camera),
                    false => ("", camera, depth),
                };
                Some(format!(
                    "the pictures have 16 bits, and their values reach only {highest} ({bits} bits), \
                     so they are dark{looks}: {first}, {second}"
                ))
            }
            None if self.is_named_depth() => Some(format!(
                "the pictures have 16 bits and are shown as pictures, though their topic is called \
                 depth: --depth-range {topic}=MIN:MAX shows depth as grey"
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::source::RawImage;

    fn mono16(values: impl Fn(u32) -> u16) -> Payload {
        let data: Vec<u8> = (0..16 * 16).flat_map(|n| values(n).to_le_bytes()).collect();
        let (encoding, is_bigendian) = ("mono16".into(), false);
        let (width, height, step) = (16, 16, 0);
        let data = data.into();
        Payload::Raw(RawImage { encoding, width, height, step, is_bigendian, data })
    }

    fn depth(n: u32) -> u16 {
        if n.is_multiple_of(10) { 0 } else { 400 + 14 * n as u16 }
    }

    fn camera(bits: u32) -> impl Fn(u32) -> u16 {
        move |n| (n * ((1 << bits) - 1) / 255) as u16
    }

    /// What is said of `count` equal pictures, and whether they are taken as depth.
    fn said(
        topic: &str,
        options: PictureOptions,
        count: u64,
        values: impl Fn(u32) -> u16,
    ) -> (Vec<String>, bool) {
        let mut inspection = Inspection::new(topic, options);
        let picture = mono16(values);
        let mut all: Vec<_> = (0..count).flat_map(|_| inspection.look(&picture)).collect();
        all.extend(inspection.finish());
        (all, inspection.options().is_depth)
    }

    #[test]
    fn pictures_that_use_few_bits_are_named_once() {
        let table: [(&dyn Fn(u32) -> u16, &[&str]); 7] = [
            (&depth, &["look like depth", "--depth-range /x=MIN:MAX", "--bits /x=12"]),
            // Near black, but no depth: nothing is so near.
            (
                &|n| if n < 99 { 0 } else { 256 + n as u16 },
                &["reach only 511 (9 bits), so they are dark: --bits /x=10"],
            ),
            (&camera(10), &["reach only 1023 (10 bits)", "--bits /x=10", "--depth-range /x="]),
            (&camera(14), &["--bits /x=14"]),
            (&camera(16), &[]),
            // A mask, and a hole that is marked by the highest value.
            (&|n| if n < 99 { 0 } else { u16::MAX }, &[]),
            (&|n| if n < 9 { u16::MAX } else { 2000 }, &["--bits /x=12"]),
        ];
        for (values, expected) in table {
            for count in [1, 40] {
                let (said, is_depth) = said("/x", PictureOptions::default(), count, values);
                assert_eq!(said.len(), usize::from(!expected.is_empty()), "{said:?}");
                assert!(expected.iter().all(|text| said[0].contains(text)), "{said:?}");
                assert!(!is_depth);
            }
        }
    }

    #[test]
    fn a_topic_called_depth_is_named_at_any_depth() {
        for (bits, expected) in
            [(12, "they look like depth: --depth-range /d"), (16, "called depth")]
        {
            let (said, _) = said("/depth", PictureOptions::default(), 3, camera(bits));
            assert!(said.len() == 1 && said[0].contains(expected), "{said:?}");
        }
    }

    #[test]
    fn a_range_for_all_depth_is_used_for_what_looks_like_it() {
        let range = |is_depth| PictureOptions {
            depth_range: Some((400.0, 4000.0)),
            is_depth,
            ..PictureOptions::default()
        };
        for (topic, values, is_guess) in [
            ("/x", &depth as &dyn Fn(u32) -> u16, true),
            ("/Depth_0/image", &camera(12), true),
            ("/x", &|n| 500 + 12 * n as u16, true),
            ("/x", &camera(12), false),
        ] {
            let (said, is_depth) = said(topic, range(false), 12, values);
            assert_eq!(is_depth, is_guess, "{topic} {said:?}");
            assert_eq!(said.len(), 1, "{said:?}");
            assert_eq!(said[0].contains("taken as depth"), is_guess, "{said:?}");
        }
        // A topic that the user names is no guess.
        assert_eq!(said("/x", range(true), 12, depth), (Vec::new(), true));
    }

    #[test]
    fn values_beyond_the_bits_are_said() {
        for (bits, count) in [(9, 1), (10, 0), (12, 0)] {
            let options = PictureOptions { bits: Some(bits), ..PictureOptions::default() };
            let (said, _) = said("/x", options, 3, camera(10));
            assert_eq!(said.len(), count, "{said:?}");
        }
    }
}
