//! A session that is no longer needed ends its FFmpeg at once, whatever its own thread is doing.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    future::Future,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Waker},
    time::Duration,
};

use encoder_core::{Backend, Detection, EncoderType, Plan, Policy, Resolution, Settings};
use encoder_ffmpeg::{Ffmpeg, FfmpegSpec, HostedEncoder};
use encoder_media::{AccessUnit, CallbackSink, Payload, RawImage, timeline::FrameTimes};
use encoder_session::{Session, SessionConfig};
use encoder_testbed::{
    flv,
    process::{assert_group_gone, until},
    scripted::{Kind, Script, Step},
};

const SIZE: Resolution = Resolution::new(64, 48);
/// Only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// An encoder in a scripted FFmpeg.
const HOSTED: EncoderType = EncoderType::new("hosted");
/// The program of [`HOSTED`].
static PROGRAM: Mutex<Option<PathBuf>> = Mutex::new(None);
encoder_core::inventory::submit! {
    Backend::new(HOSTED, |request| {
        let path = PROGRAM.lock().unwrap().clone().unwrap();
        let ffmpeg = Ffmpeg::at(&path, HOSTED, PATIENCE)?;
        let mut spec = FfmpegSpec::new(HOSTED, "h264_nvenc", request.config);
        // The limits are longer than the test.
        (spec.start, spec.stall) = (10 * PATIENCE, 10 * PATIENCE);
        let spec = spec.with_waiter(request.waiter);
        Ok(Box::new(HostedEncoder::open(&ffmpeg, spec, request.config)?))
    })
}

/// An encoder in the FFmpeg of the settings.
const SEARCHING: EncoderType = EncoderType::new("searching");
encoder_core::inventory::submit! {
    Backend::new(SEARCHING, |request| {
        encoder_ffmpeg::open(FfmpegSpec::new(SEARCHING, "libx264", request.config), request)
    })
    .probe(|request, deadline| {
        let spec = |config: &_| Ok(FfmpegSpec::new(SEARCHING, "libx264", config));
        encoder_ffmpeg::test_encode_b_frames(SEARCHING, request, spec, deadline)
    })
}

fn config(encoder: EncoderType) -> SessionConfig {
    let mut settings = Settings::default();
    settings.encoder.b_frames = 0;
    SessionConfig::new(settings, Plan::new(vec![encoder], vec![]))
}

fn picture() -> Payload {
    Payload::Raw(RawImage {
        encoding: "i420".into(),
        width: SIZE.width,
        height: SIZE.height,
        step: SIZE.width,
        is_bigendian: false,
        data: vec![128; 64 * 48 * 3 / 2].into(),
    })
}

/// A callback that blocks until something is sent, what receives its calls, and what releases it.
fn blocked() -> (impl FnMut(AccessUnit) + Send, Receiver<u64>, Sender<()>) {
    let ((called, calls), (release, gate)) = (channel(), channel());
    let callback = move |unit: AccessUnit| {
        let _ = called.send(unit.chunk.pts);
        let _ = gate.recv();
    };
    (callback, calls, release)
}

#[test]
fn a_child_is_killed_while_the_callback_is_blocked() {
    type End = fn(Session) -> Option<encoder_session::Closing>;
    let ends: [(&str, End); 4] = [
        ("dropped", |session| {
            drop(session);
            None
        }),
        ("closed and dropped", |session| {
            drop(session.close());
            None
        }),
        ("aborted", |session| {
            let closing = session.close();
            closing.abort();
            Some(closing)
        }),
        ("discarded", |session| Some(session.discard())),
    ];
    for (how, end) in ends {
        // The child ignores requests to end, and has a child of its own that holds its pipes.
        let steps =
            [Step::IgnoreSignals, Step::HoldPipes, Step::Write(flv::stream(1, 20)), Step::Hang];
        let program = Script::new().encoding(steps).lay_down().unwrap();
        *PROGRAM.lock().unwrap() = Some(program.path().into());
        let (callback, calls, release) = blocked();
        let sink = Box::new(CallbackSink(callback));
        let mut session = Session::open(SIZE, &config(HOSTED), sink).unwrap();
        for n in 0..2 {
            session.push(&picture(), FrameTimes::at(n * 40_000_000)).unwrap();
        }
        assert_eq!(calls.recv_timeout(PATIENCE), Ok(0), "{how}");
        let child = program.calls_for(Kind::Encoding).remove(0).process;
        let closing = end(session);
        // The callback is still blocked.
        assert_group_gone(child);
        assert!(calls.try_recv().is_err(), "{how}");
        drop(release);
        // The session's thread drops the callback.
        assert!(calls.recv_timeout(PATIENCE).is_err(), "{how}");
        if let Some(closing) = closing {
            assert!(closing.wait_ended(PATIENCE), "{how}");
        }
    }
}

/// An FFmpeg that hangs while it lists its encoders. It writes its process id into the file `calls`.
fn hung_listing(folder: &Path) -> PathBuf {
    let file = folder.join("ffmpeg");
    fs::write(&file, "#!/bin/sh\necho $$ >\"${0%/*}/calls\"\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file
}

/// Polls a future once, and drops it when FFmpeg runs; FFmpeg must be gone before its deadline.
fn cancel<T>(folder: &Path, future: impl Future<Output = T>) {
    let process = || {
        let text = fs::read_to_string(folder.join("calls")).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    };
    {
        let mut future = pin!(future);
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        until("FFmpeg runs", || process().is_some());
    }
    assert_group_gone(process().unwrap());
}

#[test]
fn a_cancelled_open_ends_an_ffmpeg_that_hangs_while_it_lists_its_encoders() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(SEARCHING);
    config.settings.ffmpeg.path = Some(hung_listing(folder.path()));
    let (dropped, sink_dropped) = channel::<()>();
    let sink = CallbackSink(move |_: AccessUnit| {
        let _ = dropped.send(());
    });
    cancel(folder.path(), Session::open_async(SIZE, &config, Box::new(sink)));
    // The thread that opens has ended, and with it the sink: before the limit of the search.
    let closed = sink_dropped.recv_timeout(Duration::from_secs(8));
    assert_eq!(closed, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn a_cancelled_detection_ends_an_ffmpeg_that_hangs_while_it_lists_its_encoders() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.gpu.probe_timeout_s = 120;
    settings.ffmpeg.path = Some(hung_listing(folder.path()));
    let policy = Policy::new(&settings.gpu, Some(SEARCHING.as_str()));
    cancel(folder.path(), Detection::new(&settings).for_policy(&policy).run_async());
}
