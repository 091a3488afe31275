//! Encoders that refuse their first frame: the next encoder encodes it, and no frame is lost.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use encoder_core::{
    Backend, EncodeError, EncodedChunk, EncoderType, Frame, PixelFormat, Plan, Refusal,
    RefusalKind, Resolution, Settings, VideoEncoder, Waiter,
};
use encoder_pipeline::{
    mux::{Mp4Options, Mp4Sink},
    session::{Session, SessionConfig},
    source::{Payload, RawImage},
    timeline::FrameTimes,
};
use encoder_testbed::fixtures::{EPOCH, MS, decode::decode, entries, picture::Picture};

const SIZE: Resolution = Resolution::new(160, 120);

/// Opens for NV12 frames and permanently refuses the first of them.
const REFUSING: EncoderType = EncoderType::new("refusing");
/// Opens, and reports no free session at the first frame of its first two encoders.
const CROWDED: EncoderType = EncoderType::new("crowded");
/// Refuses a later frame, which violates the contract.
const LATE: EncoderType = EncoderType::new("late");

macro_rules! register {
    ($($id:ident $delay:literal),*) => {$(
        encoder_core::inventory::submit! {
            Backend::new($id, |_| Ok(Box::new(Fake { id: $id, taken: 0 })))
                .hardware(true)
                .max_delay(|_| $delay)
        }
    )*};
}
// One encoder holds fewer frames than its fallback, another holds more.
register!(REFUSING 0, CROWDED 50, LATE 1);

struct Fake {
    id: EncoderType,
    taken: u32,
}

static CROWD: AtomicU32 = AtomicU32::new(0);

impl VideoEncoder for Fake {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        assert_eq!(frame.format, self.pixel_format());
        let refusal = |kind| Refusal::new(self.id, kind, format!("{} says no", self.id), "wait");
        self.taken += 1;
        Err(match self.id {
            LATE if self.taken == 1 => return Ok(None),
            CROWDED => {
                CROWD.fetch_add(1, SeqCst);
                refusal(RefusalKind::Busy).transient().into()
            }
            _ => refusal(RefusalKind::Unsupported).into(),
        })
    }
    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        Ok(Vec::new())
    }
    fn encoder_type(&self) -> EncoderType {
        self.id
    }
    fn description(&self) -> String {
        self.id.to_string()
    }
    fn pixel_format(&self) -> PixelFormat {
        if self.id == REFUSING { PixelFormat::Nv12 } else { PixelFormat::Yuv420p }
    }
}

fn picture(n: usize) -> Payload {
    let (data, step) = Picture::stamped(160, 120, n).raw("bgr8", 32);
    let (width, height) = (160, 120);
    let (encoding, data) = ("bgr8".into(), data.into());
    Payload::Raw(RawImage { encoding, width, height, step, is_bigendian: false, data })
}

fn config(order: &[EncoderType], wait: u32) -> SessionConfig {
    let mut settings = Settings::default();
    // The smallest possible ring: it must be large enough for each encoder of the chain.
    settings.gpu.enable_ring_buffer = false;
    settings.gpu.session_wait_s = wait;
    SessionConfig::new(settings, Plan::new(order.to_vec(), vec![]))
}

fn numbers(count: usize) -> Vec<Option<usize>> {
    (0..count).map(Some).collect()
}

#[test]
fn whoever_takes_the_first_frame_gets_them_all() {
    const COUNT: usize = 70;
    // NV12 in the ring; OpenH264 accepts planar frames only, x264 either, with a look-ahead.
    for last in [EncoderType::OPENH264, EncoderType::X264] {
        for order in [vec![REFUSING, last], vec![CROWDED, REFUSING, last]] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.mp4");
            let sink = Box::new(Mp4Sink::create(&path, &Mp4Options::default()).unwrap());
            let mut session = Session::open(SIZE, &config(&order, 0), sink).unwrap();
            assert_eq!(session.encoder(), order[0]);
            for n in 0..COUNT {
                session.push(&picture(n), FrameTimes::at(EPOCH + n as i64 * 40 * MS)).unwrap();
            }
            let report = session.finish().unwrap();
            assert_eq!(report.encoder, last);
            let refused: Vec<_> = report.refusals.iter().map(|r| r.encoder).collect();
            assert_eq!(refused, order[..order.len() - 1]);
            assert_eq!(decode(&path).numbers(), numbers(COUNT), "{order:?}");
        }
    }
}

#[test]
fn one_that_is_busy_is_asked_again_before_the_next_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mp4");
    let sink = Box::new(Mp4Sink::create(&path, &Mp4Options::default()).unwrap());
    let before = CROWD.load(SeqCst);
    let mut config = config(&[CROWDED, EncoderType::OPENH264], 100);
    config.waiter = Waiter::manual();
    let mut session = Session::open(SIZE, &config, sink).unwrap();
    for n in 0..5 {
        session.push(&picture(n), FrameTimes::at(EPOCH + n as i64 * 40 * MS)).unwrap();
    }
    let report = session.finish().unwrap();
    assert!(CROWD.load(SeqCst) > before + 1);
    assert!(report.refusals[0].reason.contains("for 100 s now"), "{}", report.refusals[0]);
    assert_eq!(decode(&path).numbers(), numbers(5));
}

#[test]
fn when_none_is_left_or_it_is_too_late_there_is_no_file() {
    for (order, expected) in [
        (vec![REFUSING], "no encoder could be opened: refusing: refusing says no; hint: wait"),
        // After three refusals no encoder is left.
        (vec![LATE], "no encoder could be opened: late: late says no; hint: wait"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.mp4");
        let sink = Box::new(Mp4Sink::create(&path, &Mp4Options::default()).unwrap());
        let mut session = Session::open(SIZE, &config(&order, 0), sink).unwrap();
        for n in 0..4 {
            // It may already have ended.
            let _ = session.push(&picture(n), FrameTimes::at(EPOCH + n as i64 * 40 * MS));
        }
        let error = session.finish().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(entries(directory.path()), Vec::<String>::new());
    }
}
