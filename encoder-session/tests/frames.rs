//! Pictures that can never be in the video, pictures that are damaged, and videos without frames.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::mpsc::Receiver;

use encoder_core::{Backend, EncoderType};
use encoder_media::{Payload, RawImage};
use encoder_picture::PictureError;
use encoder_session::{OnBadFrame, Session, SessionConfig, SessionError};

use common::{Call, Fake, SIZE, TestSink, at, config, picture};

const WORKS: EncoderType = EncoderType::new("frames");

encoder_core::inventory::submit! {
    Backend::new(WORKS, |_| Ok(Box::new(Fake::new(WORKS))))
}

fn patient() -> SessionConfig {
    config(&[WORKS])
}

fn open(config: &SessionConfig) -> (Session, Receiver<Call>) {
    let (sink, calls) = TestSink::new();
    (Session::open(SIZE, config, Box::new(sink)).unwrap(), calls)
}

fn raw(encoding: &str, width: u32, step: u32, bytes: usize) -> Payload {
    Payload::Raw(RawImage {
        encoding: encoding.into(),
        width,
        height: SIZE.height,
        step,
        is_bigendian: false,
        data: vec![90; bytes].into(),
    })
}

/// A JPEG that ends in its header.
fn damaged() -> Payload {
    Payload::Compressed { format: "jpeg".into(), data: vec![0xff, 0xd8, 0xff].into() }
}

/// Pictures that can never be in a video of [`SIZE`], each with a part of the error's text.
fn misfits() -> Vec<(Payload, &'static str)> {
    let webp = b"RIFF1234WEBPVP8 ".to_vec();
    vec![
        (raw("rgb", 64, 0, 64 * 48 * 3), "the encoding `rgb` is not known; known are"),
        (raw("rgb8", 32, 0, 64 * 48 * 3), "the picture has 32x48 pixels, the frame 64x48; "),
        (raw("rgb8", 64, 0, 64 * 48), "64x48 rgb8 needs 9216 bytes, the message has 3072; "),
        (raw("rgb8", 64, 100, 64 * 48 * 3), "has 192 bytes, the step is only 100; `step` is"),
        (raw("rgb8", 64, 0, 0), "holds no picture data; "),
        (Payload::Compressed { format: "webp".into(), data: webp.into() }, "WebP"),
        (Payload::Video { format: "h264".into(), data: vec![0].into() }, "is a video stream"),
    ]
}

#[test]
fn a_picture_that_can_never_fit_is_an_error_of_its_push() {
    let (mut session, calls) = open(&patient());
    for (n, (misfit, text)) in misfits().into_iter().enumerate() {
        session.push(&picture(128), at(n)).unwrap();
        let error = session.push(&misfit, at(n)).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        let SessionError::Picture { number, error } = error else { panic!("{error:?}") };
        assert_eq!(number, n as u64 + 1);
        assert!(!matches!(error, PictureError::Broken(_)), "{error:?}");
    }
    let report = session.finish().unwrap();
    // The session goes on, without these pictures.
    let count = misfits().len() as u64;
    assert_eq!((report.frames_in, report.frames_encoded, report.frames_failed), (count, count, 0));
    assert_eq!(calls.iter().filter(|call| matches!(call, Call::Write(_))).count() as u64, count);
}

#[test]
fn a_slot_that_gets_such_a_picture_fails() {
    let (mut session, _calls) = open(&patient());
    session.push(&picture(128), at(0)).unwrap();
    for (n, (misfit, text)) in misfits().into_iter().enumerate() {
        let slot = session.reserve(at(n + 1)).unwrap().unwrap();
        let error = slot.fill(&misfit).unwrap_err();
        let reason = text.split("; ").next().unwrap();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(error.hint().is_some());
    }
    let slot = session.reserve(at(100)).unwrap().unwrap();
    assert_eq!(slot.fill(&damaged()), Ok(()), "a damaged picture is no error of `fill`");
    let report = session.finish().unwrap();
    let bad = misfits().len() as u64 + 1;
    assert_eq!((report.frames_in, report.frames_failed), (bad + 1, bad));
    assert_eq!((report.frames_encoded, report.frames_repeated), (bad + 1, bad));
}

#[test]
fn names_of_ffmpeg_are_taken() {
    let (mut session, _calls) = open(&patient());
    for name in ["rgb24", "bgr24", "rgb8"] {
        session.push(&raw(name, 64, 0, 64 * 48 * 3), at(0)).unwrap();
    }
    for name in ["gray", "gray8", "rgba", "bgra", "yuv420p", "yuyv422", "uyvy422"] {
        session.push(&raw(name, 64, 0, 64 * 48 * 4), at(0)).unwrap();
    }
    let report = session.finish().unwrap();
    assert_eq!((report.frames_encoded, report.frames_failed), (10, 0));
}

#[test]
fn a_video_without_a_frame_is_an_error() {
    type Push = fn(&mut Session);
    let cases: [(&str, Push, (u64, u64), &str); 4] = [
        ("none", |_| {}, (0, 0), "no picture was accepted"),
        (
            "refused",
            |session| {
                let misfit = raw("rgb", 64, 0, 0);
                assert!(session.push(&misfit, at(0)).is_err());
            },
            (0, 0),
            "no picture was accepted",
        ),
        (
            "damaged",
            |session| (0..5).for_each(|n| session.push(&damaged(), at(n)).unwrap()),
            (5, 5),
            "of 5 pushed, 5 cannot be decoded and 0 were dropped; frame 0: ",
        ),
        (
            "failed",
            |session| session.reserve(at(0)).unwrap().unwrap().fail("the lens cap was on"),
            (1, 1),
            "; frame 0: the lens cap was on",
        ),
    ];
    for policy in [OnBadFrame::Repeat, OnBadFrame::Skip] {
        for (what, push, counts, text) in cases {
            let (mut session, calls) = open(&patient().with_on_bad_frame(policy));
            push(&mut session);
            let error = session.finish().unwrap_err();
            assert!(error.to_string().contains(text), "{what}: {error}");
            let SessionError::Empty(report) = error else { panic!("{what}: {error:?}") };
            assert_eq!((report.frames_in, report.frames_failed), counts, "{what}");
            assert_eq!(report.frames_encoded, 0, "{what}");
            // The sink made nothing.
            assert_eq!(calls.iter().collect::<Vec<_>>(), [Call::Dropped], "{what}");
        }
    }
}

#[test]
fn after_a_failure_a_picture_that_does_not_fit_gets_the_cause_too() {
    let config = patient().with_on_bad_frame(OnBadFrame::Fail);
    let (mut session, _calls) = open(&config);
    session.reserve(at(0)).unwrap().unwrap().fail("the lens cap was on");
    let pushed = (1..).find_map(|n| session.push(&picture(128), at(n)).err()).unwrap();
    assert!(matches!(pushed, SessionError::Failed(_)), "{pushed:?}");
    for (misfit, _) in misfits() {
        let error = session.push(&misfit, at(0)).unwrap_err();
        assert_eq!(error.to_string(), pushed.to_string());
    }
}
