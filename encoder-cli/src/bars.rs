//! Progress on a terminal: one bar per camera. If standard error is not a terminal, nothing is
//! drawn.

use std::{
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use encoder_pipeline::{progress::Progress, session::StatsHandle, text::printable};
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

/// Bars that follow the stats, drawn by a thread of their own.
pub struct Bars {
    shared: Arc<Shared>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    all: MultiProgress,
    bars: Mutex<Vec<(ProgressBar, StatsHandle)>>,
}

impl Bars {
    pub fn new(all: MultiProgress) -> Self {
        let shared = Arc::new(Shared { all, bars: Mutex::new(Vec::new()) });
        let (stop, stopped) = mpsc::channel::<()>();
        let seen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) =
                stopped.recv_timeout(Duration::from_millis(100))
            {
                seen.update();
            }
            seen.update();
        });
        Self { shared, stop: Some(stop), thread: Some(thread) }
    }
}

impl Shared {
    fn update(&self) {
        for (bar, stats) in self.bars.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            bar.set_position(stats.get().frames_encoded);
        }
    }
}

impl Progress for Bars {
    fn camera(&self, topic: &str, frames: Option<u64>, stats: StatsHandle) {
        let (bar, template) = match frames {
            Some(frames) => (
                ProgressBar::new(frames),
                "{prefix:32!} {wide_bar:.cyan/dim} {pos}/{len} frames {fps:>9} {eta:>4} left",
            ),
            None => (ProgressBar::no_length(), "{prefix:32!} {spinner} {pos} frames {fps:>9}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            let fps = |state: &ProgressState, out: &mut dyn fmt::Write| {
                // A bar that cannot be drawn is not worth an error.
                let _ = write!(out, "{:.1} fps", state.per_sec());
            };
            bar.set_style(style.with_key("fps", fps));
        }
        bar.set_prefix(printable(topic).into_owned());
        let bar = self.shared.all.add(bar);
        self.shared.bars.lock().unwrap_or_else(PoisonError::into_inner).push((bar, stats));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let bars = self.shared.bars.lock().unwrap_or_else(PoisonError::into_inner);
        for (bar, _) in bars.iter() {
            bar.abandon();
        }
        if !bars.is_empty() {
            // The bars leave the cursor at the end of their last line. A terminal may be gone.
            let _ = writeln!(io::stderr());
        }
    }
}
