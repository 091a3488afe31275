//! A worker in an async program: frames of four cameras arrive in channels, each camera becomes a
//! video, Ctrl-C completes the videos early.
//!
//! ```sh
//! cargo run --release -p encoder-example-worker -- OUT_DIR [SECONDS]
//! ```
//!
//! [`camera`] is all that a pipeline has to write for one camera. The rest is what surrounds it in
//! a real program: detection once, a pool that bounds the memory of all cameras, a task that logs
//! the state of the sessions, metrics for Prometheus, and the handling of each camera's result.

mod frames;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use encoder_core::{Cache, Detection, Policy, Settings, plan};
use encoder_pipeline::{
    mux::{Mp4Options, Mp4Sink},
    session::{Pool, PoolLimits, Session, SessionConfig, SessionError, StatsHandle, VideoReport},
};
use frames::{Frame, frames};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    select, signal,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{interval, timeout},
};

const CAMERAS: [&str; 4] = ["front", "left", "right", "wrist"];
/// Memory of the rings and encoders of all cameras.
const MEMORY: u64 = 512 << 20;
/// How long a camera may take to complete its video.
const DEADLINE: Duration = Duration::from_secs(60);

/// What all cameras share.
#[derive(Clone)]
struct Worker {
    out: PathBuf,
    config: SessionConfig,
    /// Becomes true when the cameras are to end.
    stop: watch::Receiver<bool>,
    /// Receives a handle to each session that has opened.
    opened: mpsc::UnboundedSender<(&'static str, StatsHandle)>,
}

/// Encodes the frames of one camera until the channel is closed or the worker is stopped. Either
/// way the video has every frame that was taken from the channel.
async fn camera(
    name: &'static str,
    mut frames: mpsc::Receiver<Frame>,
    mut worker: Worker,
) -> Result<Option<VideoReport>, SessionError> {
    let Some(first) = frames.recv().await else { return Ok(None) };
    let config = worker.config.with_camera_label(name);
    let options = Mp4Options::new(config.timing, &config.settings.encoder);
    let sink = Mp4Sink::create(&worker.out.join(format!("{name}.mp4")), &options)?;
    let mut session = Session::open_async(first.size, &config, Box::new(sink)).await?;
    let _ = worker.opened.send((name, session.stats_handle()));
    session.push_async(&first.picture, first.times).await?;
    loop {
        let frame = select! {
            frame = frames.recv() => frame,
            _ = worker.stop.wait_for(|stop| *stop) => None,
        };
        let Some(frame) = frame else { break };
        session.push_async(&frame.picture, frame.times).await?;
    }
    session.close().with_deadline(DEADLINE).await.map(Some)
}

/// Logs the state of all sessions each second.
async fn monitor(mut opened: mpsc::UnboundedReceiver<(&'static str, StatsHandle)>) {
    let (mut sessions, mut second) = (Vec::new(), interval(Duration::from_secs(1)));
    loop {
        select! {
            session = opened.recv() => match session {
                Some(session) => sessions.push(session),
                None => return,
            },
            _ = second.tick() => for (name, session) in &sessions {
                let stats = session.get();
                eprintln!(
                    "{name}: {} frames by {}, {:.0} per second, {} of {} slots used, latency {:.0} ms",
                    stats.frames_encoded,
                    stats.encoder,
                    stats.fps,
                    stats.ring_used,
                    stats.ring_slots,
                    stats.latency.p50_s * 1000.0,
                );
            },
        }
    }
}

/// Reports how a camera ended. Returns whether its video is complete and has every frame.
fn report(name: &str, result: Result<Option<VideoReport>, SessionError>) -> bool {
    match result {
        Ok(None) => {
            eprintln!("{name}: no frames");
            false
        }
        Ok(Some(report)) => {
            println!("{name}: {} frames by {}", report.frames_encoded, report.encoder);
            report.warnings.iter().for_each(|warning| eprintln!("{name}: warning: {warning}"));
            report.frames_failed == 0 && report.frames_dropped == 0 && report.warnings.is_empty()
        }
        Err(error) => {
            // `Kept` names the file that plays up to the error.
            eprintln!("{name}: {error}");
            if is_full(&error) {
                eprintln!("{name}: free some space; the other cameras go on");
            }
            false
        }
    }
}

/// Whether the disk is full.
fn is_full(error: &SessionError) -> bool {
    match error {
        SessionError::Kept { error, .. } => is_full(error),
        SessionError::Failed(error) => is_full(error),
        SessionError::Sink(error) => error.io_error().is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge)
        }),
        _ => false,
    }
}

/// Encodes all cameras. Returns whether all videos are complete.
async fn work(out: &Path, seconds: u64) -> Result<bool, Box<dyn std::error::Error>> {
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let settings = Settings::default();
    // Once per process: what works on this machine, and in which order to try it.
    let found = Detection::new(&settings).cache(Cache::of_user()).run_async().await?;
    let plan = plan(&Policy::new(&settings.gpu, None), &found)?;
    let pool = Pool::new(PoolLimits::new().with_memory(MEMORY).with_sessions(CAMERAS.len()));
    let (stop, stopped) = watch::channel(false);
    let (opened, sessions) = mpsc::unbounded_channel();
    let config = SessionConfig::new(settings, plan).with_pool(pool);
    let worker = Worker { out: out.to_owned(), config, stop: stopped, opened };

    let mut cameras = JoinSet::new();
    for name in CAMERAS {
        let (frames, worker) = (frames(name, seconds), worker.clone());
        cameras.spawn(async move { (name, camera(name, frames, worker).await) });
    }
    drop(worker);
    let monitor = tokio::spawn(monitor(sessions));
    let mut is_complete = true;
    loop {
        select! {
            ended = cameras.join_next() => match ended {
                Some(ended) => {
                    let (name, result) = ended?;
                    is_complete &= report(name, result);
                }
                None => break,
            },
            _ = signal::ctrl_c(), if !*stop.borrow() => {
                eprintln!("stopping: the videos are completed");
                stop.send_replace(true);
            }
        }
    }
    let _ = timeout(DEADLINE, monitor).await;
    std::fs::write(out.join("metrics.prom"), metrics.render())?;
    Ok(is_complete)
}

fn main() -> ExitCode {
    // As a helper process, the program does only its task: see docs/embedding.md.
    if let Some(code) = encoder_core::run_as_helper() {
        return code;
    }
    if let Ok(program) = encoder_core::own_program() {
        encoder_core::set_helper(program);
    }
    let mut args = std::env::args_os().skip(1);
    let Some(out) = args.next() else {
        eprintln!("usage: encoder-example-worker OUT_DIR [SECONDS]");
        return ExitCode::from(2);
    };
    let seconds = args.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(10);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|it| it.block_on(work(out.as_ref(), seconds)));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
