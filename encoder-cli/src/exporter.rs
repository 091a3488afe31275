//! Exports metrics: to an endpoint that Prometheus scrapes, and to a file.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use encoder_pipeline::metrics::{LATENCY, LATENCY_BUCKETS, describe};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use tracing::{info, warn};

use crate::{options::MetricsArgs, settings::Refused};

/// How often the file is written.
const INTERVAL: Duration = Duration::from_secs(10);

/// The exports that the command line requests. Dropping it writes the file for the last time.
pub struct Exporter {
    _file: Option<Periodic>,
}

impl Exporter {
    /// Starts the requested exports; `None` if none is requested.
    pub fn start(args: &MetricsArgs) -> Result<Option<Self>, Refused> {
        let MetricsArgs { metrics_listen, metrics_file, .. } = args;
        if metrics_listen.is_none() && metrics_file.is_none() {
            return Ok(None);
        }
        let refuse = |text: String| Refused::failed(text);
        let internal = |error: &dyn ToString| refuse(format!("metrics: {}", error.to_string()));
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(LATENCY.into()), &LATENCY_BUCKETS)
            .map_err(|error| internal(&error))?;
        let recorder = match metrics_listen {
            Some(address) => listen(builder, *address).map_err(refuse)?,
            None => builder.build_recorder(),
        };
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| internal(&error))?;
        describe();
        let file = metrics_file.as_ref().map(|path| {
            Periodic::start(path.clone(), INTERVAL, move || handle.render()).map_err(|error| {
                let path = path.display();
                refuse(format!("--metrics-file {path}: {error}; choose another file"))
            })
        });
        Ok(Some(Self { _file: file.transpose()? }))
    }
}

/// Serves the metrics on a detached thread, which ends with the program.
fn listen(builder: PrometheusBuilder, address: SocketAddr) -> Result<PrometheusRecorder, String> {
    let cannot = |error: &dyn ToString| {
        format!(
            "--metrics-listen {address}: {}; another program may listen there: give another port, \
             such as --metrics-listen {}",
            error.to_string(),
            SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(9464))
        )
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| cannot(&error))?;
    let (recorder, exporter) = {
        let _entered = runtime.enter();
        builder.with_http_listener(address).build().map_err(|error| cannot(&error))?
    };
    let serve = move || {
        if let Err(error) = runtime.block_on(exporter) {
            warn!("the endpoint of metrics has ended: {error:?}");
        }
    };
    thread::Builder::new().name("metrics".into()).spawn(serve).map_err(|error| cannot(&error))?;
    info!("metrics at http://{address}/metrics");
    Ok(recorder)
}

/// A file that is written at once, at each interval, and at the end.
struct Periodic {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Periodic {
    fn start(
        path: PathBuf,
        interval: Duration,
        render: impl Fn() -> String + Send + 'static,
    ) -> io::Result<Self> {
        replace(&path, &render())?;
        let (stop, stopped) = channel::<()>();
        let thread = thread::Builder::new().name("metrics-file".into()).spawn(move || {
            let mut reported = false;
            loop {
                let last = stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout);
                if let Err(error) = replace(&path, &render())
                    && (last || !reported)
                {
                    warn!("{}: metrics cannot be written: {error}", path.display());
                    reported = true;
                }
                if last {
                    return;
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Periodic {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The thread panics only by a defect of the renderer; the panic was reported there.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Writes a file whole or not at all, so that no reader sees a part of it. The reader is usually
/// another user.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A collector reads every file with the extension of `path`, so the temporary file has another.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".metrics.").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o644));
    }
    let mut file = builder.tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        time::Instant,
    };

    use super::*;

    #[test]
    fn the_file_is_updated_and_contains_the_last_values() {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.prom");
        let render = || format!("n {}\n", COUNT.fetch_add(1, SeqCst));
        let read = || fs::read_to_string(&path).unwrap();
        let file = Periodic::start(path.clone(), Duration::from_millis(1), render).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut seen = vec![read()];
        while seen.len() < 5 {
            assert!(Instant::now() < deadline, "{seen:?}");
            let text = read();
            if seen.last() != Some(&text) {
                seen.push(text);
            }
        }
        // A partial file is never seen.
        assert!(seen.iter().all(|text| text.starts_with("n ") && text.ends_with('\n')));
        drop(file);
        assert_eq!(read(), format!("n {}\n", COUNT.load(SeqCst) - 1));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o644);
        }
        assert!(Periodic::start(path.join("below"), Duration::MAX, render).is_err());
    }
}
