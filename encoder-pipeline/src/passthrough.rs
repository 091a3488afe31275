//! A video topic that is H.264 already: copied, not encoded again.

use bytes::Bytes;
use encoder_core::{EncodedChunk, EncoderType, FrameRate, NalKind, Resolution, nal_units};

use crate::{
    mux::{Sink, SinkError, Sps},
    session::{EncoderSpan, SessionReport},
    timeline::{FrameTimes, TimestampAnalysis, Timing},
};

/// The name that stands in the report instead of an encoder's.
pub const COPY: EncoderType = EncoderType::new("copy");

/// An access unit of a recorded video topic.
pub struct AccessUnit {
    data: Vec<u8>,
    keyframe: bool,
    /// Size of the pictures, where the access unit carries parameter sets.
    pub size: Option<Resolution>,
}

impl AccessUnit {
    /// Reads an Annex B access unit: one message of a video topic.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(data: &Bytes) -> Result<Self, String> {
        let mut unit =
            Self { data: Vec::with_capacity(data.len() + 16), keyframe: false, size: None };
        let mut slices = 0;
        for nal in nal_units(data) {
            match NalKind::of(nal[0]) {
                NalKind::Idr => {
                    unit.keyframe = true;
                    slices += 1;
                }
                NalKind::Slice => slices += 1,
                NalKind::Sps => {
                    let sps =
                        Sps::parse(nal).ok_or("its sequence parameter set (SPS) cannot be read")?;
                    unit.size = Some(sps.size);
                }
                _ => {}
            }
            unit.data.extend_from_slice(&[0, 0, 0, 1]);
            unit.data.extend_from_slice(nal);
        }
        if slices == 0 {
            return Err("the message holds no picture (no H.264 slice in Annex B form)".into());
        }
        Ok(unit)
    }

    /// Whether decoding can start here.
    pub fn starts_decoding(&self) -> bool {
        self.keyframe && self.size.is_some()
    }
}

/// A file into which access units are copied. They come in display order: video topics of
/// recordings have no B-frames.
pub struct Passthrough {
    sink: Box<dyn Sink>,
    size: Resolution,
    analysis: TimestampAnalysis,
    bytes: u64,
}

impl Passthrough {
    /// Begins a file with pictures of `size`. `rate` is assumed for the duration of a single frame.
    pub fn new(size: Resolution, timing: Timing, rate: FrameRate, sink: Box<dyn Sink>) -> Self {
        Self { sink, size, analysis: TimestampAnalysis::new(timing, rate, 0), bytes: 0 }
    }

    /// Size of the pictures.
    pub fn size(&self) -> Resolution {
        self.size
    }

    /// Appends an access unit.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, unit: AccessUnit, times: FrameTimes) -> Result<(), SinkError> {
        let index = self.analysis.frames();
        self.analysis.push(&times);
        self.bytes += unit.data.len() as u64;
        let chunk =
            EncodedChunk { data: unit.data, pts: index, dts: index, keyframe: unit.keyframe };
        self.sink.write(chunk, &times)
    }

    /// The file cannot go on: keeps what is of use, and says where.
    pub fn abandon(self, error: SinkError) -> SinkError {
        match self.sink.abandon() {
            Some(kept) => error.kept(kept),
            None => error,
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> Result<SessionReport, SinkError> {
        let layout = self.analysis.timeline();
        layout.log();
        let count = self.analysis.frames();
        let finished = self.sink.finish(&layout)?;
        let mut warnings = layout.warnings.clone();
        warnings.extend(finished.warnings);
        warnings.push("the topic is H.264 already: it was copied, not encoded again".into());
        Ok(SessionReport {
            encoder: COPY,
            description: "copied as recorded".into(),
            spans: vec![EncoderSpan {
                encoder: COPY,
                description: "copied as recorded".into(),
                frames: count,
            }],
            failovers: Vec::new(),
            refusals: Vec::new(),
            size: self.size,
            file: finished.file,
            frames_in: count,
            frames_encoded: count,
            frames_repeated: 0,
            frames_failed: 0,
            frames_dropped: 0,
            failures: Vec::new(),
            bytes_out: self.bytes,
            duration_s: layout.duration_s(),
            first_ns: layout.first_ns,
            last_ns: layout.last_ns,
            warnings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_units_are_read_and_judged() {
        let sps = [0u8, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0x88];
        // Bytes; key frame and start of decoding, or the error.
        type Row<'a> = (&'a [u8], Result<(bool, bool), &'a str>);
        let table: &[Row<'_>] = &[
            (&[], Err("no picture")),
            (&[0, 0, 1, 0x67, 0xff], Err("SPS")),
            (&sps, Err("no picture")),
            (&[0, 0, 1, 0x41, 1], Ok((false, false))),
            (&[0, 0, 1, 0x65, 1], Ok((true, false))),
        ];
        for (data, expected) in table {
            match (AccessUnit::read(&Bytes::copy_from_slice(data)), expected) {
                (Ok(unit), Ok((key, start))) => {
                    assert_eq!((unit.keyframe, unit.starts_decoding()), (*key, *start));
                    assert!(unit.data.starts_with(&[0, 0, 0, 1]));
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (got, _) => panic!("{data:?}: {:?}", got.map(|u| u.data)),
            }
        }
        let whole = [&sps[..], &[0, 0, 0, 1, 0x65, 9]].concat();
        let unit = AccessUnit::read(&Bytes::from(whole)).map(|u| u.starts_decoding());
        assert_eq!(unit, Ok(true));
    }
}
