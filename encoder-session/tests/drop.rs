//! Dropping a session never waits, and leaves nothing: no thread, no child, no sink.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{Sender, channel, sync_channel},
    },
    time::Duration,
};

use encoder_core::{Backend, EncodeError, EncoderType, FailureKind, Waiter, block_on};
use encoder_ffmpeg::{Ffmpeg, FfmpegSpec, HostedEncoder};
use encoder_session::{Session, SessionError};
use encoder_testbed::{
    process,
    scripted::{Kind, Script, Step},
};

use common::{
    Call, Fake, PATIENCE, SIZE, TestSink, assert_ended, at, config, drop_at_once, next, open,
    picture, threads, until,
};

macro_rules! instant {
    ($($name:ident = $id:literal),*) => {$(
        const $name: EncoderType = EncoderType::new($id);
        encoder_core::inventory::submit! {
            Backend::new($name, |_| Ok(Box::new(Fake::new($name))))
        }
    )*};
}
// Each test has an encoder of its own, so that it finds the threads of its sessions by name.
instant!(IDLE = "idle", BLOCKED = "blocked", FULL = "full", HELD = "held", PANIC = "panic");
instant!(OWN = "own", FINISH = "finish", WAIT = "wait", GONE = "gone");

#[test]
fn an_idle_session_drops_its_sink_before_the_drop_returns() {
    for close in [false, true] {
        let (sink, calls) = TestSink::new();
        let mut session = open(&[IDLE], sink);
        session.push(&picture(128), at(0)).unwrap();
        assert_eq!(next(&calls), Call::Write(0));
        // A slot that is not filled keeps the session waiting.
        let slot = session.reserve(at(1)).unwrap();
        // The write has returned: its frame is counted after it.
        until("frame 0", || session.stats().frames_encoded == 1);
        match close {
            true => drop_at_once("an idle session that is closed", session.close()),
            false => drop_at_once("an idle session", session),
        }
        assert_eq!(calls.try_recv(), Ok(Call::Dropped));
        drop(slot);
        assert_ended(IDLE);
        assert!(calls.recv().is_err());
    }
}

#[test]
fn a_callback_that_is_blocked_does_not_block_the_drop() {
    // The task that pushes also owns the receiver of the callback.
    let (send, receive) = sync_channel(1);
    let (sink, calls) = TestSink::writing(move |pts| {
        let _ = send.send(pts);
        Ok(())
    });
    let mut session = open(&[BLOCKED], sink);
    for n in 0..3 {
        session.push(&picture(128), at(n)).unwrap();
    }
    assert_eq!([next(&calls), next(&calls)], [Call::Write(0), Call::Write(1)]);
    drop_at_once("a session whose callback is blocked", session);
    assert_eq!(receive.recv_timeout(PATIENCE), Ok(0));
    // The callback returns: nothing more is written, and the sink is dropped.
    assert_eq!(next(&calls), Call::Dropped);
    assert_ended(BLOCKED);
}

#[test]
fn a_full_ring_does_not_block_the_drop() {
    let (release, gate) = channel::<()>();
    let (sink, calls) = TestSink::writing(move |_| {
        let _ = gate.recv();
        Ok(())
    });
    let mut session = open(&[FULL], sink);
    while session.stats().frames_dropped == 0 {
        session.push(&picture(128), at(0)).unwrap();
    }
    assert_eq!(next(&calls), Call::Write(0));
    drop_at_once("a session whose ring is full", session);
    drop(release);
    assert_eq!(next(&calls), Call::Dropped, "the frames in the ring are not written");
    assert_ended(FULL);
}

#[test]
fn slots_that_other_threads_hold_do_not_keep_the_session() {
    let (sink, calls) = TestSink::new();
    let mut session = open(&[HELD], sink);
    let slots: Vec<_> = (0..3).map(|n| session.reserve(at(n)).unwrap().unwrap()).collect();
    drop_at_once("a session with reserved slots", session);
    assert_eq!(calls.try_recv(), Ok(Call::Dropped));
    assert_ended(HELD);
    // The memory of the slots is still there.
    let fill = |slot: encoder_session::Slot| std::thread::spawn(move || slot.fill(&picture(128)));
    for filled in slots.into_iter().map(fill).collect::<Vec<_>>() {
        filled.join().unwrap().unwrap();
    }
    assert!(calls.recv().is_err());
}

#[test]
fn a_panic_that_drops_a_session_keeps_what_was_written() {
    for blocked in [false, true] {
        let (release, gate) = channel::<()>();
        let (mut sink, calls) = TestSink::new();
        if blocked {
            sink.write = Box::new(move |_| {
                let _ = gate.recv();
                Ok(())
            });
        }
        let mut session = open(&[PANIC], sink);
        session.push(&picture(128), at(0)).unwrap();
        assert_eq!(next(&calls), Call::Write(0));
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _session = session;
            panic!("the caller panics");
        }));
        assert!(panicked.is_err());
        drop(release);
        assert_eq!([next(&calls), next(&calls)], [Call::Abandon, Call::Dropped], "{blocked}");
        assert_ended(PANIC);
    }
}

#[test]
fn a_sink_may_drop_or_finish_its_own_session() {
    type End = fn(Session) -> Option<SessionError>;
    let ends: [End; 6] = [
        |session| {
            drop(session);
            None
        },
        |session| session.finish().err(),
        |session| session.close().join().err(),
        |session| session.close().join_within(PATIENCE).err(),
        |session| block_on(session.finish_async(), Some(PATIENCE)).unwrap().err(),
        |session| {
            let closing = session.close().with_deadline(PATIENCE);
            block_on(closing, Some(PATIENCE)).unwrap().err()
        },
    ];
    for (n, end) in ends.into_iter().enumerate() {
        let own = Arc::new(Mutex::new(None::<Session>));
        let (ended, result) = channel();
        let (mut sink, calls) = TestSink::new();
        sink.write = Box::new({
            let own = Arc::clone(&own);
            move |pts| {
                if pts == 1 {
                    let session = own.lock().unwrap().take().unwrap();
                    ended.send(end(session)).unwrap();
                }
                Ok(())
            }
        });
        let mut session = open(&[OWN], sink);
        session.push(&picture(128), at(0)).unwrap();
        let slot = session.reserve(at(1)).unwrap().unwrap();
        *own.lock().unwrap() = Some(session);
        slot.fill(&picture(128)).unwrap();
        let error = result.recv_timeout(PATIENCE).unwrap();
        assert_eq!(error.is_none(), n == 0);
        assert!(matches!(error, None | Some(SessionError::OwnThread)), "{error:?}");
        assert_eq!([next(&calls), next(&calls)], [Call::Write(0), Call::Write(1)]);
        assert_eq!(next(&calls), Call::Dropped);
        assert_ended(OWN);
    }
}

#[test]
fn a_video_that_is_being_completed_stays() {
    let (release, gate) = channel::<()>();
    let (mut sink, calls) = TestSink::new();
    sink.finish = Box::new(move || {
        let _ = gate.recv();
    });
    let mut session = open(&[FINISH], sink);
    session.push(&picture(128), at(0)).unwrap();
    let closing = session.close();
    assert_eq!([next(&calls), next(&calls)], [Call::Write(0), Call::Finish]);
    drop_at_once("a session that is being completed", closing);
    release.send(()).unwrap();
    assert_eq!(next(&calls), Call::Dropped);
    assert_ended(FINISH);
}

#[test]
fn the_end_of_a_discarded_session_can_be_waited_for() {
    let (release, gate) = channel::<()>();
    let (sink, calls) = TestSink::writing(move |_| {
        let _ = gate.recv();
        Ok(())
    });
    let mut session = open(&[WAIT], sink);
    session.push(&picture(128), at(0)).unwrap();
    assert_eq!(next(&calls), Call::Write(0));
    let closing = session.discard();
    assert!(!closing.wait_ended(Duration::ZERO));
    drop(release);
    assert!(closing.wait_ended(PATIENCE));
    assert_eq!(calls.try_recv(), Ok(Call::Dropped));
    assert!(matches!(closing.join(), Err(SessionError::Ended)));
}

#[test]
fn a_session_that_was_discarded_stays_discarded() {
    for aborts in [false, true] {
        let (sink, calls) = TestSink::new();
        let mut session = open(&[GONE], sink);
        session.push(&picture(128), at(0)).unwrap();
        until("frame 0", || session.stats().frames_encoded == 1);
        assert_eq!(next(&calls), Call::Write(0));
        match aborts {
            true => session.discard().abort(),
            false => {
                session.discard();
            }
        }
        assert_eq!(next(&calls), Call::Dropped);
        assert_ended(GONE);
    }
}

#[test]
fn a_stop_of_the_waiter_ends_sessions_whose_encoder_is_a_child() {
    let _turn = TURN.lock();
    let program = Script::new().encoding(vec![one_picture(), Step::Hang]).lay_down().unwrap();
    *PROGRAM.lock().unwrap() = Some(program.path().into());
    let (sink, calls) = TestSink::new();
    let waiter = Waiter::new();
    let config = config(&[HUNG, SPARE]).with_waiter(waiter.clone());
    let mut session = Session::open(SIZE, &config, Box::new(sink)).unwrap();
    (0..2).for_each(|n| session.push(&picture(128), at(n)).unwrap());
    assert_eq!(next(&calls), Call::Write(0));
    waiter.stop();
    let error = session.finish().unwrap_err();
    assert!(matches!(error, SessionError::Kept { .. }), "{error:?}");
    assert!(matches!(error.cause(), SessionError::Lost { .. }), "{error:?}");
    assert_eq!(next(&calls), Call::Abandon);
    assert_ended(HUNG);
    assert_eq!(SPARES.load(SeqCst), 0);
}

/// An encoder in a scripted FFmpeg that hangs.
const HUNG: EncoderType = EncoderType::new("hung");
/// The program of [`HUNG`].
static PROGRAM: Mutex<Option<PathBuf>> = Mutex::new(None);
/// The tests with [`HUNG`] run one at a time.
static TURN: Mutex<()> = Mutex::new(());
/// The encoder after [`HUNG`].
const SPARE: EncoderType = EncoderType::new("spare");
static SPARES: AtomicUsize = AtomicUsize::new(0);

encoder_core::inventory::submit! {
    Backend::new(HUNG, |request| {
        let path = PROGRAM.lock().unwrap().clone().unwrap();
        let ffmpeg = Ffmpeg::at(&path, HUNG, PATIENCE)?;
        let mut spec = FfmpegSpec::new(HUNG, "h264_nvenc", request.config);
        // The limits are longer than the test.
        (spec.start, spec.stall) = (10 * PATIENCE, 10 * PATIENCE);
        spec.waiter = request.waiter.unwrap().clone();
        Ok(Box::new(HostedEncoder::open(&ffmpeg, spec, request.config)?))
    })
}
encoder_core::inventory::submit! {
    Backend::new(SPARE, |_| {
        SPARES.fetch_add(1, SeqCst);
        Ok(Box::new(Fake::new(SPARE)))
    })
}

/// An FLV header, parameter sets and one IDR picture.
fn one_picture() -> Step {
    Step::Write(encoder_testbed::flv::stream(1, 2))
}

#[test]
fn a_child_that_hangs_is_killed_at_once_and_no_other_encoder_is_opened() {
    let _turn = TURN.lock();
    /// What happens to the session.
    #[derive(Clone, Copy)]
    enum End {
        Dropped,
        ClosedAndDropped,
        AtDeadline,
    }
    use End::{AtDeadline, ClosedAndDropped, Dropped};
    // steps of the child | frames | what happens to the session
    let cases: [(&str, Vec<Step>, i64, End); 6] = [
        ("a child that hangs before its encoder is open", vec![Step::Hang], 1, Dropped),
        ("a child that hangs in mid-stream", vec![one_picture(), Step::Hang], 2, Dropped),
        (
            "a child that hangs in mid-stream, closed",
            vec![one_picture(), Step::Hang],
            2,
            ClosedAndDropped,
        ),
        ("a child that hangs before its deadline", vec![Step::Hang], 1, AtDeadline),
        ("a child that hangs in mid-stream", vec![one_picture(), Step::Hang], 2, AtDeadline),
        ("a child that hangs at its end", vec![one_picture(), Step::Hang], 1, ClosedAndDropped),
    ];
    for (what, steps, frames, end) in cases {
        let has_begun = steps.len() > 1;
        let program = Script::new().encoding(steps).lay_down().unwrap();
        *PROGRAM.lock().unwrap() = Some(program.path().into());
        let (sink, calls) = TestSink::new();
        let mut session = open(&[HUNG, SPARE], sink);
        for n in 0..frames {
            session.push(&picture(128), at(n)).unwrap();
        }
        until("the child runs", || !program.calls_for(Kind::Encoding).is_empty());
        if has_begun {
            assert_eq!(next(&calls), Call::Write(0), "{what}");
        }
        match end {
            Dropped => drop_at_once(what, session),
            ClosedAndDropped => drop_at_once(what, session.close()),
            AtDeadline => {
                let closing = session.close().with_deadline(Duration::from_millis(20));
                let error = block_on(closing, Some(PATIENCE)).unwrap().unwrap_err();
                assert!(matches!(error.cause(), SessionError::Deadline { .. }), "{error}");
                assert!(matches!(error, SessionError::Kept { .. }), "{error}");
                assert_eq!(next(&calls), Call::Abandon, "{what}");
            }
        }
        // By the drop, or by the session's thread if the write has not returned.
        assert_eq!(next(&calls), Call::Dropped, "{what}");
        // A child that has returned all access units may otherwise take 5 s to end.
        assert!(assert_ended(HUNG) < Duration::from_secs(4), "{what}");
        for call in program.calls() {
            process::assert_group_gone(call.process);
        }
        assert_eq!(threads("ffmpeg-stdout") + threads("child-stderr"), 0, "{what}");
        assert_eq!(SPARES.load(SeqCst), 0, "{what}");
    }
}

/// Fails at its first frame.
const FAILING: EncoderType = EncoderType::new("failing");
/// An encoder that opens when the test allows it.
const SLOW: EncoderType = EncoderType::new("slow");
/// Gets what releases [`SLOW`], when it is being opened.
static OPENING: Mutex<Option<Sender<Sender<()>>>> = Mutex::new(None);
/// The encoders [`SLOW`] that are open, and the frames that they got.
static SLOW_OPEN: AtomicUsize = AtomicUsize::new(0);
static SLOW_FRAMES: AtomicUsize = AtomicUsize::new(0);

encoder_core::inventory::submit! {
    Backend::new(FAILING, |_| {
        // After a wrong picture another encoder follows at once.
        Ok(Box::new(Fake::encoding(FAILING, |frame| {
            Err(EncodeError::failed(FAILING, frame.index, FailureKind::WrongPicture, "a test"))
        })))
    })
}
encoder_core::inventory::submit! {
    Backend::new(SLOW, |_| {
        let (release, gate) = channel();
        OPENING.lock().unwrap().take().unwrap().send(release).unwrap();
        let _ = gate.recv();
        SLOW_OPEN.fetch_add(1, SeqCst);
        let open = Open;
        Ok(Box::new(Fake::encoding(SLOW, move |_| {
            let _ = &open;
            SLOW_FRAMES.fetch_add(1, SeqCst);
            Ok(None)
        })))
    })
}

/// Counts an encoder as open until it is dropped.
struct Open;

impl Drop for Open {
    fn drop(&mut self) {
        SLOW_OPEN.fetch_sub(1, SeqCst);
    }
}

#[test]
fn an_encoder_that_opens_during_the_drop_is_not_used() {
    let (send, opening) = channel();
    *OPENING.lock().unwrap() = Some(send);
    let (sink, calls) = TestSink::new();
    let mut session = open(&[FAILING, SLOW], sink);
    session.push(&picture(128), at(0)).unwrap();
    let release = opening.recv_timeout(PATIENCE).unwrap();
    drop_at_once("a session that opens an encoder", session);
    assert_eq!(calls.try_recv(), Ok(Call::Dropped));
    drop(release);
    assert_ended(FAILING);
    assert_eq!((SLOW_OPEN.load(SeqCst), SLOW_FRAMES.load(SeqCst)), (0, 0));
}
