//! After a failure each push returns the cause, which `finish` returns too.
#![allow(clippy::unwrap_used)]

mod common;

use std::io;

use encoder_core::{Backend, EncodeError, EncoderType, FailureKind};
use encoder_media::{Location, SinkError};
use encoder_session::{OnBadFrame, OnFull, Panicked, Session, SessionConfig, SessionError};

use common::{FAKE, Fake, SIZE, TestSink, at, config, picture, unit};

const WORKS: EncoderType = EncoderType::new("works");
const FAILS: EncoderType = EncoderType::new("fails");
const PANICS: EncoderType = EncoderType::new("panics");

encoder_core::inventory::submit! {
    Backend::new(WORKS, |_| Ok(Box::new(Fake::new(WORKS))))
}
encoder_core::inventory::submit! {
    Backend::new(FAILS, |_| {
        Ok(Box::new(Fake::encoding(FAILS, |frame| match frame.index {
            // Given up after three failures in a row.
            1 => Err(EncodeError::failed(FAILS, 1, FailureKind::Failed, "it was unplugged")),
            _ => Ok(Some(unit(frame))),
        })))
    })
}
encoder_core::inventory::submit! {
    Backend::new(PANICS, |_| {
        Ok(Box::new(Fake::encoding(PANICS, |frame| {
            assert!(frame.index != 1, "the encoder panics at frame {}", frame.index);
            Ok(Some(unit(frame)))
        })))
    })
}

fn unreachable_disk(pts: u64) -> Result<(), SinkError> {
    match pts {
        1 => Err(SinkError::io(Location::Name("bucket/a".into()))(io::Error::other("no disk"))),
        _ => Ok(()),
    }
}

fn foreign(pts: u64) -> Result<(), SinkError> {
    if pts == 1 { Err(SinkError::other("the upload was refused")) } else { Ok(()) }
}

fn panicking(pts: u64) -> Result<(), SinkError> {
    assert!(pts != 1, "the callback panics at {pts}");
    Ok(())
}

/// Pushes until a push fails; then all pushes fail with the same cause, and so does `finish`.
fn cause(config: &SessionConfig, sink: TestSink) -> SessionError {
    let mut session = Session::open(SIZE, config, Box::new(sink)).unwrap();
    let first = (0..).find_map(|n| session.push(&picture(128), at(n)).err()).unwrap();
    let SessionError::Failed(first) = first else { panic!("{first:?}") };
    for n in 0..3 {
        let error = session.reserve(at(n)).err().unwrap();
        assert_eq!(error.to_string(), first.to_string());
        assert!(matches!(error, SessionError::Failed(_)), "{error:?}");
        assert!(std::error::Error::source(&error).is_none());
    }
    let ended = session.finish().unwrap_err();
    assert_eq!(ended.to_string(), first.to_string());
    assert_eq!(std::mem::discriminant(&ended), std::mem::discriminant(&*first));
    ended
}

#[test]
fn each_push_after_a_failure_returns_the_cause() {
    type Write = fn(u64) -> Result<(), SinkError>;
    type Check = fn(&SessionError) -> bool;
    let fine: Write = |_| Ok(());
    let cases: [(EncoderType, Write, &str, Check); 5] = [
        (FAILS, fine, "it was unplugged", |e| matches!(e, SessionError::Encode(_))),
        (PANICS, fine, "it panicked: the encoder panics at frame 1", |e| {
            matches!(e, SessionError::Encode(_))
        }),
        (WORKS, unreachable_disk, "bucket/a: no disk", |e| {
            matches!(e, SessionError::Sink(SinkError::Io { .. }))
        }),
        (WORKS, foreign, "the upload was refused", |e| {
            matches!(e, SessionError::Sink(SinkError::Other(_)))
        }),
        (WORKS, panicking, "the sink panicked: the callback panics at 1", |e| {
            matches!(e, SessionError::Panicked { place: Panicked::Sink, .. })
        }),
    ];
    for (encoder, write, text, is_right) in cases {
        let (sink, calls) = TestSink::writing(write);
        let error = cause(&config(&[encoder]), sink);
        // What was written before is kept.
        let kept = format!("{text}; what was written so far is in what was written");
        assert!(error.to_string().ends_with(&kept), "{error}");
        assert!(is_right(error.cause()), "{error:?}");
        let calls: Vec<_> = calls.iter().collect();
        assert!(calls.contains(&common::Call::Abandon), "{calls:?}");
    }
}

#[test]
fn a_ring_that_is_full_is_the_cause_of_all_later_errors() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let (sink, _calls) = TestSink::writing(move |_| {
        let _ = gate.recv();
        Ok(())
    });
    let config = config(&[WORKS]).with_on_full(OnFull::Error);
    let mut session = Session::open(SIZE, &config, Box::new(sink)).unwrap();
    let full = (0..).find_map(|n| session.push(&picture(128), at(n)).err()).unwrap();
    assert!(matches!(full, SessionError::Full { .. }), "{full:?}");
    for n in 0..3 {
        let error = session.push(&picture(128), at(n)).unwrap_err();
        assert!(
            matches!(&error, SessionError::Failed(cause) if matches!(**cause, SessionError::Full { .. }))
        );
        assert_eq!(error.to_string(), full.to_string());
    }
    drop(release);
    let ended = session.finish().unwrap_err();
    assert!(matches!(ended.cause(), SessionError::Full { .. }), "{ended:?}");
    assert!(ended.to_string().starts_with(&full.to_string()));
}

#[test]
fn a_bad_frame_that_ends_the_session_is_the_cause() {
    let (sink, calls) = TestSink::new();
    let config = config(&[WORKS]).with_on_bad_frame(OnBadFrame::Fail);
    let mut session = Session::open(SIZE, &config, Box::new(sink)).unwrap();
    session.reserve(at(0)).unwrap().unwrap().fail("the cable was loose");
    let failed = (0..).find_map(|n| session.push(&picture(128), at(n)).err()).unwrap();
    assert!(failed.to_string().contains("frame 0 cannot be decoded: the cable was loose"));
    assert!(matches!(session.finish(), Err(SessionError::BadFrame { number: 0, .. })));
    assert_eq!(calls.iter().collect::<Vec<_>>(), [common::Call::Dropped]);
}

#[test]
fn a_slot_that_is_dropped_ends_the_session() {
    let (sink, calls) = TestSink::new();
    let mut session = Session::open(SIZE, &config(&[FAKE]), Box::new(sink)).unwrap();
    session.push(&picture(128), at(0)).unwrap();
    drop(session.reserve(at(1)).unwrap().unwrap().numbered(7));
    let failed = (2..).find_map(|n| session.push(&picture(128), at(n)).err()).unwrap();
    assert!(matches!(failed.cause(), SessionError::SlotDropped { number: 7 }), "{failed:?}");
    let ended = session.finish().unwrap_err();
    let text =
        "the slot of frame 7 was dropped: it was neither filled nor failed; what was written";
    assert!(ended.to_string().starts_with(text), "{ended}");
    assert!(matches!(ended.cause(), SessionError::SlotDropped { number: 7 }), "{ended:?}");
    assert!(calls.iter().any(|call| call == common::Call::Abandon));
}

/// In a process whose threads would need more memory than can be addressed.
#[cfg(unix)]
#[test]
fn a_session_without_a_thread_is_an_error() {
    const CHILD: &str = "TEST_WITHOUT_THREADS";
    let name = "a_session_without_a_thread_is_an_error";
    if std::env::var_os(CHILD).is_some() {
        let (sink, calls) = TestSink::new();
        let error = Session::open(SIZE, &config(&[FAKE]), Box::new(sink)).err().unwrap();
        assert!(matches!(error, SessionError::Thread(_)), "{error:?}");
        assert!(error.to_string().starts_with("the system starts no thread: "), "{error}");
        assert_eq!(calls.iter().collect::<Vec<_>>(), [common::Call::Dropped]);
        let (sink, _calls) = TestSink::new();
        let opening = Session::open_async(SIZE, &config(&[FAKE]), Box::new(sink));
        let error = encoder_core::block_on(opening, None).unwrap().err().unwrap();
        assert!(matches!(error, SessionError::Thread(_)), "{error:?}");
        return;
    }
    // With one test thread, tests run on the main thread, whose stack is there already.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads=1"])
        .envs([(CHILD, "1"), ("RUST_MIN_STACK", "1152921504606846976")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}
