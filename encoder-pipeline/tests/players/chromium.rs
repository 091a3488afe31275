//! Chromium as a player, controlled by a page that this test serves.

use std::{
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{self, Receiver, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use encoder_testbed::process;

use encoder_testbed::fixtures::picture::Picture;

const PAGE: &str = include_str!("page.html");

/// Without these options Chromium connects to its vendor's hosts at every start.
const SILENT: [&str; 5] = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
];

/// After this time without a response, none will come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A picture that Chromium had on the screen.
pub struct Shown {
    /// Its time in the video, in seconds.
    pub time: f64,
    pub picture: Picture,
}

/// The result of playing a video.
#[derive(Default)]
pub struct Play {
    /// Pictures that were seen during playback. On a busy machine some are missing.
    pub played: Vec<Shown>,
    /// The picture on the screen after the end.
    pub last: Option<Picture>,
    /// Number of pictures decoded during one playback.
    pub decoded: usize,
    /// The pictures that the seeks led to.
    pub sought: Vec<Shown>,
}

/// Plays the video, then seeks to times in seconds.
///
/// # Panics
/// If the video cannot be played, with Chromium's message.
pub fn play(chromium: &OsString, video: &Path, seeks: &[f64]) -> Play {
    let server = Server::start(fs::read(video).unwrap());
    let seeks: Vec<_> = seeks.iter().map(f64::to_string).collect();
    let page = format!("http://{}/?seek={}", server.address, seeks.join(","));
    let browser = Browser::start(chromium, &page);
    let mut play = Play::default();
    loop {
        let message = server.messages.recv_timeout(PATIENCE).unwrap_or_else(|e| {
            panic!("Chromium does not answer ({e}); it said: {}", browser.words())
        });
        let mut words = message.path.split('/').skip(1);
        let (what, rest) = (words.next().unwrap(), words.next().unwrap_or_default());
        match what {
            "done" => {
                play.decoded = rest.parse().unwrap();
                return play;
            }
            "failed" => panic!("Chromium: {}", String::from_utf8_lossy(&message.body)),
            _ => {
                let (width, height) = rest.split_once('x').unwrap();
                let rgb = message.body.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
                let picture = Picture::new(width.parse().unwrap(), height.parse().unwrap(), rgb);
                let shown = Shown { time: words.next().unwrap().parse().unwrap(), picture };
                match what {
                    "played" => play.played.push(shown),
                    "sought" => play.sought.push(shown),
                    "last" => play.last = Some(shown.picture),
                    _ => panic!("{}", message.path),
                }
            }
        }
    }
}

/// A running Chromium that writes only to a directory of its own.
struct Browser {
    child: Child,
    folder: tempfile::TempDir,
}

impl Browser {
    fn start(program: &OsString, page: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let words = fs::File::create(folder.path().join("words")).unwrap();
        let mut command = Command::new(program);
        command.args(["--headless", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]);
        // Its sandbox works neither as root nor in most containers; the page is trusted.
        command.arg("--no-sandbox").args(SILENT);
        command.arg(format!("--user-data-dir={}", folder.path().join("user").display()));
        command.arg(page);
        for name in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env(name, folder.path());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words).process_group(0);
        let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        Self { child, folder }
    }

    fn words(&self) -> String {
        fs::read_to_string(self.folder.path().join("words")).unwrap_or_default()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let id = self.child.id();
        let killed = Command::new("kill").args(["-KILL", "--", &format!("-{id}")]).status();
        let _ = (killed, self.child.wait());
        if std::thread::panicking() {
            return;
        }
        process::assert_group_gone(id);
        // Its crash handlers have left the process group; they end when Chromium ends.
        let mark = format!("TMPDIR={}", self.folder.path().display());
        process::until("Chromium is gone", || process::with_environment(&mark).is_empty());
    }
}

/// The data that the page has posted.
struct Message {
    path: String,
    body: Vec<u8>,
}

/// Serves the page and the video on the loopback interface, and receives the posts of the page.
struct Server {
    address: SocketAddr,
    messages: Receiver<Message>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(video: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, messages) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // A thread per connection: a browser opens some connections that it does not use.
            std::thread::scope(|scope| {
                for stream in listener.incoming() {
                    if stopped.load(SeqCst) {
                        return;
                    }
                    let (sender, video) = (sender.clone(), &video);
                    // A broken connection means that the browser has ended.
                    scope.spawn(move || stream.and_then(|stream| serve(stream, video, &sender)));
                }
            });
        });
        Self { address, messages, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Reads one request and responds to it.
fn serve(mut stream: TcpStream, video: &[u8], sender: &Sender<Message>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, kind, answer) = match (method, path.split('?').next()) {
        ("GET", Some("/")) => ("200 OK", "text/html", PAGE.as_bytes()),
        ("GET", Some("/video")) => ("200 OK", "video/mp4", video),
        ("POST", _) => {
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            // If the test has failed, the receiver is gone.
            let _ = sender.send(Message { path: path.into(), body });
            ("200 OK", "text/plain", &[][..])
        }
        _ => ("404 Not Found", "text/plain", &[][..]),
    };
    let length = answer.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    )?;
    stream.write_all(answer)
}
