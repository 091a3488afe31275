//! Looks at the pictures of a camera for what their encoding does not say: an orientation, an
//! unknown order of colours, and depth, or a camera of fewer bits, that is recorded as pictures of 16
//! bits.

use crate::{
    picture::{self, Levels, PictureOptions, Remark},
    source::Payload,
};

/// How many pictures of 16 bits are looked at. The first ones may be dark.
const LOOKED_AT: u64 = 30;
/// Pictures of 16 bits that use more bits than this are shown as they are.
const MOST_BITS: u8 = 14;

/// The pictures of a camera so far, and how they are shown.
pub(crate) struct Inspection {
    topic: String,
    options: PictureOptions,
    pictures: u64,
    levels: Levels,
    /// The levels have been judged.
    is_judged: bool,
    /// Pictures with an unknown order of colours, and with an orientation that is not applied.
    unknown_order: u64,
    turned: u64,
}

impl Inspection {
    pub fn new(topic: &str, options: PictureOptions) -> Self {
        Self {
            topic: topic.into(),
            options,
            pictures: 0,
            levels: Levels::default(),
            is_judged: false,
            unknown_order: 0,
            turned: 0,
        }
    }

    /// How the pictures are shown.
    pub fn options(&self) -> &PictureOptions {
        &self.options
    }

    /// Looks at the next picture, before it is shown. `number` is that of its message. Returns what
    /// is new to the user.
    pub fn look(&mut self, number: u64, payload: &Payload) -> Vec<String> {
        self.pictures += 1;
        let mut found = Vec::new();
        if !self.is_judged {
            let is_wide = self.levels.add(payload, &self.options);
            if is_wide && self.levels.pictures() == 1 {
                found.extend(self.take_as_depth(payload).map(|text| self.beginning(number, text)));
            }
            if self.levels.pictures() == LOOKED_AT {
                self.is_judged = true;
                found.extend(self.judge());
            }
        }
        for remark in picture::remarks(payload, &self.options) {
            let count = match remark {
                Remark::UnknownOrder => &mut self.unknown_order,
                Remark::Orientation(_) => &mut self.turned,
            };
            *count += 1;
            if *count == 1 {
                found.push(self.beginning(number, describe(remark, payload)));
            }
        }
        found
    }

    /// What is said of the pictures from frame `number` on.
    fn beginning(&self, number: u64, text: String) -> String {
        match self.pictures {
            1 => text,
            _ => format!("from frame {number} on: {text}"),
        }
    }

    /// Ends the inspection.
    pub fn finish(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        if !std::mem::replace(&mut self.is_judged, true) {
            found.extend(self.judge());
        }
        let all = self.pictures;
        for (count, which) in [
            (self.unknown_order, "do not state the order of their colours"),
            (self.turned, "have an EXIF orientation that was not applied"),
        ] {
            if (1..all).contains(&count) {
                found.push(format!("{count} of the {all} pictures {which}"));
            }
        }
        found
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
             `PictureOptions::is_depth` states which topic is depth"
        ))
    }

    fn is_named_depth(&self) -> bool {
        self.topic.to_ascii_lowercase().contains("depth")
    }

    /// The warning about pictures that use few of their bits.
    fn judge(&self) -> Option<String> {
        let (bits, highest) = (self.levels.bits()?, self.levels.highest());
        let topic = &self.topic;
        match self.options.bits {
            // The session counts the pictures with values above.
            Some(_) => None,
            None if bits <= MOST_BITS => {
                let bits_of_camera = [10, 12].into_iter().find(|&n| n >= bits).unwrap_or(MOST_BITS);
                let depth = format!("`pictures[{topic}].depth_range` shows depth as grey");
                let camera = format!(
                    "`pictures[{topic}].bits = {bits_of_camera}` shows a camera of {bits_of_camera} bits"
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
                 depth: `pictures[{topic}].depth_range` shows depth as grey"
            )),
            _ => None,
        }
    }
}

fn describe(remark: Remark, payload: &Payload) -> String {
    match remark {
        Remark::UnknownOrder => {
            let format = match payload {
                Payload::Compressed { format, .. } => format.as_str(),
                _ => "",
            };
            format!(
                "the format `{format}` does not say whether red and blue are exchanged in the file, \
                 as image_transport did before version 1.8.5: they are shown as the file has them"
            )
        }
        Remark::Orientation(orientation) => format!(
            "the pictures lie on their side or are mirrored by their EXIF data (orientation \
             {orientation}), and are shown as they are stored; `PictureOptions::turn_upright` turns \
             them upright"
        ),
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
        let mut all: Vec<_> = (0..count).flat_map(|n| inspection.look(n, &picture)).collect();
        all.extend(inspection.finish());
        (all, inspection.options().is_depth)
    }

    #[test]
    fn pictures_that_use_few_bits_are_named_once() {
        let table: [(&dyn Fn(u32) -> u16, &[&str]); 7] = [
            (
                &depth,
                &["look like depth", "`pictures[/x].depth_range`", "`pictures[/x].bits = 12`"],
            ),
            // Near black, but no depth: nothing is so near.
            (
                &|n| if n < 99 { 0 } else { 256 + n as u16 },
                &["reach only 511 (9 bits), so they are dark: `pictures[/x].bits = 10`"],
            ),
            (
                &camera(10),
                &[
                    "reach only 1023 (10 bits)",
                    "`pictures[/x].bits = 10`",
                    "`pictures[/x].depth_range`",
                ],
            ),
            (&camera(14), &["`pictures[/x].bits = 14`"]),
            (&camera(16), &[]),
            // A mask, and a hole that is marked by the highest value.
            (&|n| if n < 99 { 0 } else { u16::MAX }, &[]),
            (&|n| if n < 9 { u16::MAX } else { 2000 }, &["`pictures[/x].bits = 12`"]),
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
            [(12, "they look like depth: `pictures[/depth].depth_range`"), (16, "called depth")]
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
    fn the_pictures_of_16_bits_may_begin_late() {
        let (wide, mut narrow) = (mono16(camera(10)), mono16(camera(10)));
        let Payload::Raw(image) = &mut narrow else { unreachable!() };
        image.encoding = "mono8".into();
        let mut inspection = Inspection::new("/x", PictureOptions::default());
        let said: Vec<_> = std::iter::repeat_n(&narrow, 40)
            .chain(std::iter::repeat_n(&wide, 40))
            .enumerate()
            .flat_map(|(n, picture)| inspection.look(n as u64, picture))
            .collect();
        assert!(said.len() == 1 && said[0].contains("`pictures[/x].bits = 10`"), "{said:?}");
        assert_eq!(inspection.finish(), Vec::<String>::new());

        let depth_range = Some((400.0, 4000.0));
        let options = PictureOptions { depth_range, ..PictureOptions::default() };
        let mut inspection = Inspection::new("/depth", options);
        assert_eq!(inspection.look(0, &narrow), Vec::<String>::new());
        let said = inspection.look(1, &wide);
        assert!(
            said[0].starts_with("from frame 1 on: ") && said[0].contains("as depth"),
            "{said:?}"
        );
        assert!(inspection.options().is_depth);
    }

    /// A PNG of one grey pixel, with an orientation in its EXIF data or without.
    fn still(format: &str, orientation: Option<u8>) -> Payload {
        let mut data =
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0".to_vec();
        data.extend([0; 4]);
        if let Some(number) = orientation {
            data.extend(b"\0\0\0\x1aeXIfII*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0");
            data.extend([number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        Payload::Compressed { format: format.into(), data: data.into() }
    }

    #[test]
    fn each_remark_is_made_once_whenever_it_appears() {
        let mut inspection = Inspection::new("/x", PictureOptions::default());
        let mut look =
            |n: u64, format, orientation| inspection.look(n, &still(format, orientation));
        assert_eq!(look(0, "png", None).len(), 0);
        for n in 1..100 {
            assert_eq!(look(n, "png", None).len(), 0);
        }
        let said = look(100, "rgb8; png compressed", Some(6));
        let [order, turned] = &said[..] else { panic!("{said:?}") };
        assert!(order.starts_with("from frame 100 on: the format `rgb8; png compressed`"));
        assert!(turned.contains("orientation 6") && turned.starts_with("from frame 100 on: "));
        assert_eq!(look(101, "rgb8; png compressed", Some(3)).len(), 0);
        assert_eq!(look(102, "png", Some(3)).len(), 0);
        let said = inspection.finish();
        let [order, turned] = &said[..] else { panic!("{said:?}") };
        assert!(order.starts_with("2 of the 103 pictures do not state the order"), "{order}");
        assert!(turned.starts_with("3 of the 103 pictures have an EXIF"), "{turned}");
    }

    #[test]
    fn a_remark_about_all_pictures_has_no_count() {
        let mut inspection = Inspection::new("/x", PictureOptions::default());
        let said: Vec<_> =
            (0..3).flat_map(|n| inspection.look(n, &still("png", Some(6)))).collect();
        assert!(said.len() == 1 && said[0].starts_with("the pictures lie"), "{said:?}");
        assert_eq!(inspection.finish(), Vec::<String>::new());
    }
}
