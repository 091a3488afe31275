//! Reads what FFmpeg's log says about the video stream of a file, and the filters that its pictures
//! need.

use encoder_core::FrameRate;

/// Demuxers of elementary streams without a container, which have no times. Those of stills one
/// after another (`jpeg_pipe`) have none either.
const WITHOUT_TIMES: &[&str] = &[
    "h264",
    "hevc",
    "vvc",
    "mpegvideo",
    "m4v",
    "mjpeg",
    "mpjpeg",
    "h263",
    "h261",
    "cavsvideo",
    "obu",
    "av1",
    "avs2",
    "avs3",
    "evc",
    "apv",
    "dirac",
    "dnxhd",
    "vc1",
    "ingenient",
    "rawvideo",
    "v210",
    "v210x",
];

/// Demuxers whose times have 33 bits and start again after [`WRAP_NS`].
const WRAPPING: &[&str] = &["mpegts", "mpeg"];
/// 2^33 ticks of 90 kHz: 26.5 hours, in nanoseconds.
const WRAP_NS: i64 = (1 << 33) * (1_000_000_000 / 90_000);

/// Codecs in which every packet has a picture that is displayed.
const PICTURE_PER_PACKET: [&str; 5] = ["h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video"];

/// Scales pictures whose pixels are not square, by the larger side, so that no detail is lost.
/// Aspects of less than 1 % are left alone, and those above 8 are not believed.
const SQUARE: &str = "scale=w='if(between(sar,1.01,8),2*trunc(iw*sar/2+0.5),iw)':\
                      h='if(between(1/sar,1.01,8),2*trunc(ih/sar/2+0.5),ih)':\
                      flags=bicubic+accurate_rnd+full_chroma_int";

/// Reports each picture. Checksums and side data would only make the log longer.
const INFO: &str = "sidedata=mode=delete,showinfo=checksum=0";

/// A transfer function of more than the standard dynamic range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hdr {
    /// Hybrid log-gamma, ARIB STD-B67.
    Hlg,
    /// Perceptual quantiser, SMPTE ST 2084.
    Pq,
    /// Dolby Vision without a picture for other players (profile 5), in a colour space of its own.
    DolbyVision,
}

impl Hdr {
    /// By FFmpeg's name of the transfer function.
    pub(crate) fn of(transfer: &str) -> Option<Self> {
        match transfer {
            "arib-std-b67" => Some(Self::Hlg),
            "smpte2084" => Some(Self::Pq),
            _ => None,
        }
    }
}

impl std::fmt::Display for Hdr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hlg => "HLG",
            Self::Pq => "PQ",
            Self::DolbyVision => "Dolby Vision, profile 5",
        })
    }
}

/// The video stream of a file.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct VideoStream {
    /// FFmpeg's name of the container.
    pub demuxer: String,
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// Width of a pixel and its height, where they differ by more than 1 %.
    pub pixel_aspect: Option<(u32, u32)>,
    /// The dynamic range, if it is a high one.
    pub hdr: Option<Hdr>,
    /// Number of further video streams of the file, which are not decoded.
    pub others: usize,
    /// FFmpeg's frame rate: from the container or the stream, or 25 if neither has one.
    pub rate: Option<FrameRate>,
    /// Primaries and matrix, as FFmpeg names them.
    pub(crate) primaries: String,
    pub(crate) matrix: String,
}

impl VideoStream {
    /// Whether the file has times: a bare elementary stream has none.
    pub fn has_times(&self) -> bool {
        let demuxer = self.demuxer.as_str();
        !WITHOUT_TIMES.contains(&demuxer) && !demuxer.ends_with("_pipe")
    }

    /// How long the times of the file can be told apart, in nanoseconds: behind that they start
    /// again, and FFmpeg continues them without a pause. `None`: always.
    pub fn wraps_after(&self) -> Option<i64> {
        WRAPPING.contains(&self.demuxer.as_str()).then_some(WRAP_NS)
    }

    /// Whether the container has decoding times only. Of B-pictures, FFmpeg then takes the display
    /// times from the packets behind them, and invents those of the last.
    pub fn lacks_display_times(&self) -> bool {
        self.demuxer == "avi"
    }

    /// Whether every packet has a picture that is displayed. Other codecs have packets with hidden
    /// pictures.
    pub fn has_picture_per_packet(&self) -> bool {
        PICTURE_PER_PACKET.contains(&self.codec.as_str())
    }

    /// Whether the container can hide the first and the last pictures, by an edit list.
    pub fn may_hide_pictures(&self) -> bool {
        self.demuxer.starts_with("mov,")
    }

    /// The filters that convert to 4:2:0 in limited range by BT.601, whatever the format of the
    /// file.
    pub(crate) fn filters(&self) -> String {
        let transfer = match self.hdr {
            Some(Hdr::Hlg) => "arib-std-b67",
            Some(Hdr::Pq) => "smpte2084",
            _ => {
                return format!(
                    "{SQUARE}:out_color_matrix=smpte170m:out_range=tv,format=yuv420p,{INFO}"
                );
            }
        };
        let known = |name: &str, otherwise| match name {
            "" | "unknown" | "unspecified" | "reserved" => format!("={otherwise}"),
            _ => String::new(),
        };
        // An option without a value in the file is given that of BT.2100.
        let given = |option: &str, value: String| match value.as_str() {
            "" => String::new(),
            value => format!(":{option}{value}"),
        };
        let primaries = given("pin", known(&self.primaries, "bt2020"));
        let matrix = given("min", known(&self.matrix, "bt2020nc"));
        // Linear light in which 1 is reference white (203 cd/m², BT.2408). Up to 1000 cd/m², the
        // usual peak, is compressed; colours keep their hue.
        format!(
            "{SQUARE},zscale=tin={transfer}{primaries}{matrix}:t=linear:npl=203,\
             format=gbrpf32le,zscale=p=bt709,tonemap=tonemap=mobius:desat=0:peak=4.926,\
             zscale=t=iec61966-2-1:m=170m:r=tv,format=yuv420p,{INFO}"
        )
    }
}

/// Whether pixels of this aspect are square, but for 1 %. An unknown aspect (0) counts as square.
pub(crate) fn is_square((width, height): (u32, u32)) -> bool {
    let (width, height) = (u64::from(width), u64::from(height));
    width == 0 || height == 0 || 100 * width.abs_diff(height) <= width.min(height)
}

/// Collects the lines about the streams of a file.
#[derive(Default)]
pub(crate) struct StreamLines {
    demuxer: String,
    /// Number of each video stream, and what is known about it.
    videos: Vec<(String, VideoStream)>,
}

impl StreamLines {
    /// Reads a line, without its marks. Returns the stream when FFmpeg says which one it decodes.
    pub fn line(&mut self, text: &str) -> Option<VideoStream> {
        let text = text.trim_start();
        if let Some(rest) = text.strip_prefix("Input #0, ") {
            self.demuxer = rest.split_once(", from ")?.0.into();
        } else if text.starts_with("DOVI configuration record") {
            if text.contains("compatibility id: 0") {
                self.videos.last_mut()?.1.hdr = Some(Hdr::DolbyVision);
            }
        } else if let Some(rest) = text.strip_prefix("Stream #0:") {
            if let Some((number, _)) = rest.split_once(" -> #0:") {
                let (_, stream) = self.videos.iter().find(|(known, _)| known == number)?;
                let others = self.videos.iter().filter(|(other, _)| other != number).count();
                let demuxer = self.demuxer.clone();
                return Some(VideoStream { demuxer, others, ..stream.clone() });
            }
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            let (number, rest) = rest.split_at(end);
            let (_, video) = rest.split_once(": Video: ")?;
            // Pictures of the cover are no video.
            if !video.contains("(attached pic)") {
                self.videos.push((number.into(), video_stream(video)));
            }
        }
        None
    }
}

/// `hevc (Main 10) (hvc1 / 0x31637668), yuv420p10le(tv, bt2020nc/bt2020/arib-std-b67), 320x240 [SAR
/// 4:3 DAR 16:9], 20 fps`.
fn video_stream(text: &str) -> VideoStream {
    let codec = text.split([' ', ',']).next().unwrap_or_default();
    let mut stream = VideoStream { codec: codec.into(), ..VideoStream::default() };
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-/:".contains(c)));
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    for pair in words.windows(2) {
        let aspect = pair[1].split_once(':').filter(|_| pair[0] == "SAR");
        let aspect = aspect.and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
        // The last one is that of the container, which counts.
        stream.pixel_aspect = aspect.filter(|&a| !is_square(a)).or(match aspect {
            Some(_) => None,
            None => stream.pixel_aspect,
        });
    }
    for word in words {
        if let [matrix, primaries, transfer] = word.split('/').collect::<Vec<_>>()[..]
            && let Some(hdr) = Hdr::of(transfer)
        {
            stream.hdr = Some(hdr);
            (stream.primaries, stream.matrix) = (primaries.into(), matrix.into());
        }
    }
    stream
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<VideoStream> {
        let mut parser = StreamLines::default();
        lines.iter().find_map(|line| parser.line(line))
    }

    #[test]
    fn the_stream_that_is_decoded() {
        let stream = read(&[
            "Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:x, from y':",
            "  Stream #0:0[0x1](und): Video: mjpeg, yuvj420p(pc), 100x100 [SAR 1:1 DAR 1:1]",
            "  Stream #0:3[0x4]: Video: mjpeg, yuvj420p(pc), 100x100, 90k tbr (attached pic)",
            "  Stream #0:1[0x2](und): Audio: aac (LC)",
            "  Stream #0:2[0x3](und): Video: hevc (Main 10) (hvc1 / 0x31637668), \
             yuv420p10le(tv, bt2020nc/bt2020/arib-std-b67, progressive), 320x240 [SAR 1:1 DAR \
             4:3], 50 kb/s, SAR 8:9 DAR 32:27, 20 fps, 20 tbr, 10240 tbn (default)",
            "Stream mapping:",
            "  Stream #0:2 -> #0:0 (hevc (native) -> rawvideo (native))",
        ])
        .unwrap();
        assert_eq!(stream.demuxer, "mov,mp4,m4a,3gp,3g2,mj2");
        assert_eq!((stream.codec.as_str(), stream.others), ("hevc", 1));
        assert_eq!((stream.pixel_aspect, stream.hdr), (Some((8, 9)), Some(Hdr::Hlg)));
        assert!(stream.has_times() && stream.may_hide_pictures());
        let filters = stream.filters();
        assert!(filters.contains("zscale=tin=arib-std-b67:t=linear"), "{filters}");
    }

    #[test]
    fn properties_of_streams() {
        for (text, aspect, hdr) in [
            (
                "h264 (High), yuv420p(tv, smpte170m/unknown/unknown), 240x240 [SAR 4:3 DAR 4:3]",
                Some((4, 3)),
                None,
            ),
            ("h264, yuv420p, 240x240 [SAR 1:1 DAR 1:1], SAR 1:1 DAR 1:1", None, None),
            ("h264, yuv420p, 240x240 [SAR 4:3 DAR 4:3], SAR 1:1 DAR 1:1", None, None),
            ("h264, yuv420p(bt709), 1920x1080 [SAR 201:200 DAR 1:1]", None, None),
            ("h264, yuv420p(bt709), 1920x1080 [SAR 0:1 DAR 0:0]", None, None),
            ("hevc, yuv420p10le(tv, bt2020nc/bt2020/smpte2084), 64x48", None, Some(Hdr::Pq)),
            ("hevc, yuv420p10le(tv, unknown/unknown/smpte2084), 64x48", None, Some(Hdr::Pq)),
            ("vp9, yuv420p10le(tv, bt2020nc/bt2020/bt2020-10), 64x48", None, None),
            ("", None, None),
        ] {
            let stream = video_stream(text);
            assert_eq!((stream.pixel_aspect, stream.hdr), (aspect, hdr), "{text}");
        }
        let untagged = video_stream("hevc, yuv420p10le(tv, unknown/unknown/smpte2084), 64x48");
        let filters = untagged.filters();
        assert!(filters.contains("tin=smpte2084:pin=bt2020:min=bt2020nc:t=linear"), "{filters}");
    }

    #[test]
    fn dolby_vision_for_no_other_player() {
        let record = "      DOVI configuration record: version: 1.0, profile: 5, level: 6, rpu flag: \
                      1, el flag: 0, bl flag: 1, compatibility id: 0";
        for (record, hdr) in [
            (record.to_owned(), Some(Hdr::DolbyVision)),
            (record.replace("id: 0", "id: 4"), Some(Hdr::Pq)),
        ] {
            let stream = read(&[
                "Input #0, mov, from 'x':",
                "  Stream #0:0: Video: hevc, yuv420p10le(tv, bt2020nc/bt2020/smpte2084), 64x48",
                &record,
                "  Stream #0:0 -> #0:0 (hevc (native) -> rawvideo (native))",
            ]);
            assert_eq!(stream.unwrap().hdr, hdr);
        }
    }

    #[test]
    fn streams_without_times() {
        for (demuxer, expected) in [
            ("h264", false),
            ("jpeg_pipe", false),
            ("mpjpeg", false),
            ("dnxhd", false),
            ("mpegts", true),
            ("mov,mp4,m4a,3gp,3g2,mj2", true),
        ] {
            let stream = VideoStream { demuxer: demuxer.into(), ..VideoStream::default() };
            assert_eq!(stream.has_times(), expected, "{demuxer}");
        }
    }
}
