//! The suite passes for an encoder that keeps all rules, and each rule fails for an encoder that
//! breaks it.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::{
    BackendOptions, Caps, ConfigError, DecodeError, EncodeError, EncodedChunk, EncoderType,
    FailureKind, Frame, FrameBuffer, FrameLayout, NalKind, Open, OpenError, OpenRequest,
    PictureDecoder, PixelFormat, Preset, ProbeResult, RateControl, Refusal, RefusalKind,
    Resolution, VideoEncoder, nal_units,
};

const FAKE: EncoderType = EncoderType::new("fake");
const SIZE: Resolution = Resolution::new(64, 32);
/// How many frames the encoder keeps.
const DELAY: usize = 2;

/// What is wrong with an encoder.
macro_rules! faults {
    ($($fault:ident: $($rule:literal)*;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Fault {
            $($fault),*
        }

        const ALL: &[Fault] = &[$(Fault::$fault),*];

        /// Each fault with the rules that fail; "…" if others may fail too.
        fn table() -> Vec<(Fault, Open, &'static [&'static str])> {
            vec![$((Fault::$fault, open::<{ Fault::$fault as usize }>, &[$($rule),*])),*]
        }
    };
}

faults! {
    None: ;
    RefusesForced: ;
    Probe: "probe";
    AcceptsKeys: "options";
    OtherKeyError: "options";
    OpensWithoutSize: "no-size";
    NoSizeIsRefused: "no-size";
    OtherName: "name";
    NoDescription: "name";
    TinyIsConfigError: "sizes" "refusals";
    TinyFailsLate: "sizes";
    ProbeSizeIsRefused: "sizes" "…";
    NotItsFormat: "formats";
    Swallows: "count" "…";
    TwoPictures: "count" "…";
    PtsTwice: "pts" "…";
    DtsFromOne: "dts" "start-index" "long-stream" "two-at-once";
    ShownBeforeDecoded: "dts" "…";
    AllAreKeys: "key-flag" "long-stream";
    OnlyFirstIsKey: "key-flag";
    SetsOnce: "parameter-sets";
    SetsBehind: "parameter-sets" "sizes" "…";
    ShortCodes: "start-codes";
    Garbage: "start-codes";
    OneIdr: "gop" "forced-idr" "start-index" "two-at-once";
    TwiceTheGop: "gop" "forced-idr" "start-index" "two-at-once";
    ClaimsForced: "forced-idr";
    IgnoresForced: "forced-idr";
    LongAfterForced: "forced-idr";
    IgnoresForcedWithB: "forced-idr";
    KeepsMore: "delay" "long-stream";
    CountsInAByte: "long-stream";
    FlushLosesLast: "flush" "…";
    FlushInvents: "flush";
    PtsFromZero: "start-index" "two-at-once";
    DtsOfPts: "start-index" "two-at-once";
    StuckDrop: "drop" "…";
    LeakedSession: "drop" "…";
    TakesOtherSize: "mismatch";
    TakesOtherFormat: "mismatch";
    FailsOnMismatch: "mismatch";
    HugePanics: "refusals";
    HugeFailsLate: "refusals";
    NoReason: "refusals" "sizes";
    SlowPresetFails: "presets";
    BitrateFails: "rate-control";
    MaximumIsBusy: "rate-control";
    NeedsTwoThreads: "threads";
    SharedCount: "two-at-once";
    Gray: "pictures" "…";
    Mirrored: "pictures" "…";
    ReadsLate: "frame-memory" "long-stream";
    Panics: "count" "…";
    Hangs: "count" "…";
}

/// The encoder: a NAL unit has the samples themselves, none of which looks like a start code.
struct Fake {
    fault: Fault,
    layout: FrameLayout,
    gop_size: u64,
    /// The frames so far, and since the last IDR picture.
    taken: u64,
    in_gop: u64,
    b_frames: u8,
    /// Whether the encoder fails at its first frame.
    fails: bool,
    /// Frames by which the next GOP is too long.
    extra: u64,
    returned: u64,
    waiting: Vec<EncodedChunk>,
    /// The frame whose samples are not read yet.
    late: Option<EncodedChunk>,
}

/// Sessions of [`Fault::LeakedSession`].
static SESSIONS: AtomicUsize = AtomicUsize::new(0);
/// Access units of [`Fault::SharedCount`].
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn refuse(kind: RefusalKind, reason: &str) -> OpenError {
    Refusal::new(FAKE, kind, reason, "").into()
}

impl Fake {
    fn open(fault: Fault, request: &OpenRequest<'_>) -> Result<Self, OpenError> {
        use Fault::*;
        let size = match (fault, request.coded_size()) {
            (OpensWithoutSize, _) => request.coded_size().unwrap_or(SIZE),
            (NoSizeIsRefused, Err(_)) => return Err(refuse(RefusalKind::Unsupported, "no size")),
            (_, size) => size?,
        };
        let rate_control = request.config.rate_control;
        let is_tiny = size.width < 4;
        let is_huge = size.width > 1024 || size.height > 1024;
        match fault {
            TinyIsConfigError if is_tiny => {
                return Err(ConfigError::value("encoder.resolution", size, "more").into());
            }
            ProbeSizeIsRefused if size == SIZE => {
                return Err(refuse(RefusalKind::Unsupported, "the size of its own probe"));
            }
            HugePanics if size.width.max(size.height) > 8192 => panic!("too large"),
            NoReason if is_huge => return Err(refuse(RefusalKind::Unsupported, "")),
            LeakedSession if SESSIONS.fetch_add(1, SeqCst) >= 3 => {
                return Err(refuse(RefusalKind::Busy, "all sessions are in use"));
            }
            HugeFailsLate if size.width.max(size.height) > 8192 => {}
            MaximumIsBusy
                if matches!(rate_control, RateControl::Bitrate { max_kbps: Some(_), .. }) =>
            {
                return Err(refuse(RefusalKind::Busy, "no rate control is free"));
            }
            NeedsTwoThreads if request.threads < 2 => {
                return Err(refuse(RefusalKind::Unsupported, "it needs two threads"));
            }
            _ if is_huge => return Err(refuse(RefusalKind::Unsupported, "too large")),
            _ => {}
        }
        Ok(Self {
            fault,
            layout: FrameLayout::new(request.config.pixel_format, size),
            gop_size: request.config.gop_size.into(),
            taken: 0,
            in_gop: 0,
            b_frames: request.config.b_frames,
            fails: match fault {
                TinyFailsLate => is_tiny,
                HugeFailsLate => is_huge,
                SlowPresetFails => request.config.preset == Preset::Veryslow,
                BitrateFails => matches!(rate_control, RateControl::Bitrate { .. }),
                _ => false,
            },
            extra: 0,
            returned: 0,
            waiting: Vec::new(),
            late: Option::None,
        })
    }

    fn size(&self) -> Resolution {
        Resolution::new(self.layout.width, self.layout.height)
    }

    fn failed<T>(&self, index: u64) -> Result<T, EncodeError> {
        Err(EncodeError::failed(FAKE, index, FailureKind::Failed, "on purpose"))
    }

    fn check(&self, frame: &Frame<'_>) -> Result<(), EncodeError> {
        let Resolution { width, height } = self.size();
        let checked = frame.check(self.layout.format, self.size());
        match self.fault {
            Fault::TakesOtherSize if (frame.width, frame.height) != (width, height) => Ok(()),
            Fault::TakesOtherFormat if frame.format != self.layout.format => Ok(()),
            Fault::FailsOnMismatch if checked.is_err() => self.failed(frame.index),
            _ => checked,
        }
    }

    /// The data of an access unit.
    fn data(&self, frame: &Frame<'_>, is_idr: bool) -> Vec<u8> {
        let code: &[u8] = if self.fault == Fault::ShortCodes && self.taken % 3 == 2 {
            &[0, 0, 1]
        } else {
            &[0, 0, 0, 1]
        };
        let unit = |head: u8, payload: &[u8]| [code, &[head], payload].concat();
        let sets = [unit(0x67, &[66, 1, 40]), unit(0x68, &[1])].concat();
        let mut planar = FrameBuffer::new(FrameLayout::new(PixelFormat::Yuv420p, self.size()));
        if (frame.width, frame.height) == (self.layout.width, self.layout.height) {
            planar.copy_from(frame);
        }
        match self.fault {
            Fault::Gray => planar.memory_mut().fill(128),
            Fault::Mirrored => planar.memory_mut().reverse(),
            _ => {}
        }
        let mut samples = Vec::new();
        planar.frame(0).append_packed(&mut samples);
        let slice = unit(if is_idr { 0x65 } else { 0x41 }, &samples);
        let mut data = match self.fault {
            _ if !is_idr => slice,
            Fault::SetsOnce if self.taken > 0 => slice,
            Fault::SetsBehind => [slice, sets].concat(),
            _ => [sets, slice].concat(),
        };
        match self.fault {
            Fault::TwoPictures if self.taken == 3 => data.extend(unit(0x65, &samples)),
            Fault::Garbage => data.extend([0, 0, 0]),
            _ => {}
        }
        data
    }

    /// Whether the frame is coded as an IDR picture.
    fn is_idr(&mut self, frame: &Frame<'_>) -> bool {
        let is_ignored = match self.fault {
            Fault::IgnoresForced => true,
            Fault::IgnoresForcedWithB => self.b_frames > 0,
            _ => false,
        };
        let forced = frame.force_idr && !is_ignored;
        let gop_size = match self.fault {
            Fault::OneIdr => u64::MAX,
            Fault::TwiceTheGop => self.gop_size * 2,
            _ => self.gop_size,
        };
        let is_due = self.in_gop == 0 || self.in_gop >= gop_size.saturating_add(self.extra);
        let is_idr = is_due || forced;
        self.in_gop = if is_idr { 1 } else { self.in_gop + 1 };
        if is_idr {
            self.extra = u64::from(self.fault == Fault::LongAfterForced && forced);
        }
        is_idr
    }
}

impl VideoEncoder for Fake {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        self.check(frame)?;
        let inside = !self.in_gop.is_multiple_of(self.gop_size);
        match self.fault {
            Fault::RefusesForced | Fault::ClaimsForced if frame.force_idr && inside => {
                return self.failed(frame.index);
            }
            _ if self.fails => return self.failed(frame.index),
            Fault::Panics if self.taken == 4 => panic!("on purpose"),
            Fault::Hangs if self.taken == 4 => loop {
                thread::park();
            },
            _ => {}
        }
        let is_idr = self.is_idr(frame);
        let data = self.data(frame, is_idr);
        let keyframe = match self.fault {
            Fault::AllAreKeys => true,
            Fault::OnlyFirstIsKey => self.taken == 0,
            _ => is_idr,
        };
        let pts = match self.fault {
            Fault::PtsFromZero => self.taken,
            Fault::PtsTwice if self.taken == 2 => frame.index - 1,
            // As if each pair were out of order.
            Fault::ShownBeforeDecoded if self.taken.is_multiple_of(2) => frame.index + 1,
            Fault::ShownBeforeDecoded => frame.index - 1,
            _ => frame.index,
        };
        let dts = match self.fault {
            Fault::DtsOfPts => frame.index,
            Fault::DtsFromOne => self.taken + 1,
            Fault::CountsInAByte => self.taken % 256,
            Fault::SharedCount if self.taken == 0 => {
                COUNT.store(0, SeqCst);
                0
            }
            Fault::SharedCount => COUNT.fetch_add(1, SeqCst) as u64 + 1,
            _ => self.taken,
        };
        let chunk = EncodedChunk { data, pts, dts, keyframe };
        let is_lost = self.fault == Fault::Swallows && self.taken == 4;
        self.taken += 1;
        if self.fault == Fault::ReadsLate && !frame.is_stable {
            // The samples of the frame before are gone: the memory has those of this frame.
            if let Some(mut before) = self.late.replace(chunk) {
                let is_idr = before.keyframe;
                before.data = self.data(frame, is_idr);
                self.waiting.push(before);
            }
        } else if !is_lost {
            self.waiting.push(chunk);
        }
        let most = DELAY + usize::from(self.fault == Fault::KeepsMore);
        let kept = (self.taken - self.returned) as usize;
        let is_due = kept > most && !self.waiting.is_empty();
        self.returned += u64::from(is_due);
        Ok(is_due.then(|| self.waiting.remove(0)))
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        let mut rest = std::mem::take(&mut self.waiting);
        rest.extend(self.late.take());
        match self.fault {
            Fault::FlushLosesLast if self.taken == 1 => rest.clear(),
            Fault::FlushInvents if self.taken == 0 => {
                let layout = self.layout;
                let data = self.data(&FrameBuffer::new(layout).frame(0), true);
                rest.push(EncodedChunk { data, pts: 0, dts: 0, keyframe: true });
            }
            _ => {}
        }
        self.returned = self.taken;
        Ok(rest)
    }

    fn can_force_idr(&self) -> bool {
        self.fault != Fault::RefusesForced
    }

    fn encoder_type(&self) -> EncoderType {
        if self.fault == Fault::OtherName { EncoderType::new("other") } else { FAKE }
    }

    fn description(&self) -> String {
        if self.fault == Fault::NoDescription { String::new() } else { "a fake".into() }
    }

    fn pixel_format(&self) -> PixelFormat {
        match self.fault {
            Fault::NotItsFormat => PixelFormat::Yuv420p,
            _ => self.layout.format,
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let is_early = self.taken > 0 && self.returned < self.taken;
        match self.fault {
            Fault::StuckDrop if is_early => loop {
                thread::park();
            },
            Fault::LeakedSession if is_early => {}
            Fault::LeakedSession => drop(SESSIONS.fetch_sub(1, SeqCst)),
            _ => {}
        }
    }
}

/// Decodes the streams of [`Fake`].
struct FakeDecoder(Resolution);

impl PictureDecoder for FakeDecoder {
    fn decode(&mut self, unit: &[u8], show: &mut dyn FnMut(&Frame<'_>)) -> Result<(), DecodeError> {
        let is_picture = |nal: &&[u8]| matches!(NalKind::of(nal[0]), NalKind::Idr | NalKind::Slice);
        let samples = &nal_units(unit).find(is_picture).unwrap()[1..];
        let (width, height) = (self.0.width as usize, self.0.height as usize);
        let (luma, chroma) = (width * height, width * height / 4);
        if samples.len() != luma + 2 * chroma {
            return Err(DecodeError::Broken("too short".into()));
        }
        let planes = [
            (&samples[..luma], width),
            (&samples[luma..luma + chroma], width / 2),
            (&samples[luma + chroma..], width / 2),
        ];
        show(&Frame::from_planes(PixelFormat::Yuv420p, self.0, &planes).unwrap());
        Ok(())
    }

    fn flush(&mut self, _: &mut dyn FnMut(&Frame<'_>)) -> Result<(), DecodeError> {
        Ok(())
    }
}

fn open<const FAULT: usize>(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    Ok(Box::new(Fake::open(ALL[FAULT], request)?))
}

/// Refuses each key, and does not name it as unknown.
fn refuse_keys(options: &BackendOptions) -> Result<(), ConfigError> {
    match options.keys().next() {
        Some(key) => Err(ConfigError::value("backend.fake", key, "nothing")),
        None => Ok(()),
    }
}

fn backend(fault: Fault, open: Open) -> &'static Backend {
    let backend = Backend::new(FAKE, open).max_delay(|_| DELAY).probe_size(SIZE);
    let usable: fn(&OpenRequest<'_>, Duration) -> ProbeResult =
        |_, _| ProbeResult::Usable(Caps::default());
    Box::leak(Box::new(match fault {
        Fault::Probe => backend.probe(|_, _| {
            ProbeResult::Refused(Refusal::new(FAKE, RefusalKind::NoDevice, "no device", ""))
        }),
        Fault::AcceptsKeys => backend.check_options(|_| Ok(())),
        Fault::OtherKeyError => backend.check_options(refuse_keys),
        // Faults that the default probe finds too.
        Fault::KeepsMore | Fault::ProbeSizeIsRefused => backend.probe(usable),
        _ => backend,
    }))
}

fn run(fault: Fault, open: Open) -> Report {
    let suite = Suite::new(backend(fault, open));
    let suite = suite.with_decoder(|size| Ok(Box::new(FakeDecoder(size))));
    match fault {
        // A rule that hangs takes as long as this.
        Fault::Hangs | Fault::StuckDrop => suite.with_deadline(Duration::from_secs(5)).run(),
        _ => suite.run(),
    }
}

#[test]
fn each_rule_fails_for_an_encoder_that_breaks_it() {
    let mut shown = Vec::new();
    for (fault, open, expected) in table() {
        let report = run(fault, open);
        let failed: Vec<_> = report.failures().map(|result| result.rule).collect();
        match expected {
            [rule, .., "…"] => assert!(failed.contains(rule), "{fault:?}: {report}"),
            _ => {
                let (mut failed, mut expected) = (failed, expected.to_vec());
                failed.sort_unstable();
                expected.sort_unstable();
                assert_eq!(failed, expected, "{fault:?}: {report}");
            }
        }
        shown.extend(expected.first());
    }
    for rule in rules::RULES {
        assert!(shown.contains(&rule.name), "no encoder breaks the rule {}", rule.name);
    }
}

#[test]
fn an_encoder_that_keeps_all_rules_passes() {
    let report = run(Fault::None, open::<{ Fault::None as usize }>);
    assert!(report.is_ok(), "{report}");
    assert_eq!(report.results.len(), rules::RULES.len());
    for result in &report.results {
        let refused = match result.rule {
            "sizes" => "refused: 1920x1080",
            "refusals" => "refused: 16384x2, 2x16384",
            _ => "",
        };
        assert_eq!(result.outcome, Outcome::Passed(refused.into()), "{report}");
    }
    // What an encoder refuses is part of the report.
    let report = run(Fault::RefusesForced, open::<{ Fault::RefusesForced as usize }>);
    let refused = "refused: frame 5 of a GOP of 30, frame 2 of a GOP of 4, \
                   frame 5 of a GOP with B-frames";
    assert_eq!(report.outcome("forced-idr"), Some(&Outcome::Passed(refused.into())));
    assert!(report.to_string().contains(refused), "{report}");
}

#[test]
fn without_a_decoder_pictures_are_not_checked() {
    let report = Suite::new(backend(Fault::Gray, open::<{ Fault::Gray as usize }>)).run();
    assert!(report.is_ok(), "{report}");
    for rule in ["pictures", "frame-memory"] {
        assert!(matches!(report.outcome(rule), Some(Outcome::NotChecked(_))), "{report}");
    }
}

#[test]
#[should_panic(expected = "FAILED   dts              access unit 0 has the dts 1")]
fn check_panics_with_the_report() {
    check(backend(Fault::DtsFromOne, open::<{ Fault::DtsFromOne as usize }>));
}

#[test]
fn an_encoder_of_square_pictures_passes() {
    let backend = backend(Fault::None, open::<{ Fault::None as usize }>);
    let square = Backend::new(FAKE, backend.open).max_delay(|_| DELAY);
    let square = Box::leak(Box::new(square.probe_size(Resolution::new(64, 64))));
    let report = Suite::new(square).check();
    assert_eq!(report.outcome("mismatch"), Some(&Outcome::Passed(String::new())), "{report}");
}

#[test]
fn after_a_rule_that_hangs_no_rule_is_checked() {
    let report = run(Fault::Hangs, open::<{ Fault::Hangs as usize }>);
    let mut rest = report.results.iter().skip_while(|result| !result.is_failed());
    let hung = rest.next().unwrap();
    let text = "it did not return within 5 s";
    assert_eq!((hung.rule, &hung.outcome), ("count", &Outcome::Failed(text.into())));
    let skipped = Outcome::NotChecked("an encoder hangs".into());
    assert!(rest.all(|result| result.outcome == skipped), "{report}");
    assert_eq!(report.failures().count(), 1, "{report}");
}

#[test]
#[should_panic(expected = "FAILED   name             the description is empty")]
fn the_check_of_a_suite_panics_with_the_report() {
    let backend = backend(Fault::NoDescription, open::<{ Fault::NoDescription as usize }>);
    Suite::new(backend).check();
}
