//! What the tests need from outside: FFmpeg, and nasm for the speed of the embedded encoder.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::process::{Result, cargo, output, show, succeeds, target};

/// The FFmpeg programs for the tests.
pub struct Tools {
    /// The first choice: `ENCODER_FFMPEG` of the tests.
    pub ffmpeg: PathBuf,
    /// One of another origin, mostly of another version: tests that need FFmpeg run again with it.
    pub alternative: Option<PathBuf>,
}

impl Tools {
    /// Tells a command where they are.
    pub fn announce<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("ENCODER_FFMPEG", &self.ffmpeg)
    }
}

/// Makes the tools available and says where they are.
///
/// # Errors
/// When there is no FFmpeg and no way to get one.
pub fn setup() -> Result<Tools> {
    nasm();
    let chosen = ffmpeg();
    let packaged = match from_pypi() {
        Ok(path) => Some(path),
        Err(error) => {
            println!("setup: no second FFmpeg (tests of two versions are left out): {error}");
            None
        }
    };
    let (ffmpeg, alternative) = match (chosen, packaged) {
        (Some(first), second) => (first, second),
        (None, Some(only)) => (only, None),
        (None, None) => {
            return Err("no FFmpeg: install it, or set ENCODER_FFMPEG to its path".into());
        }
    };
    println!("setup: FFmpeg {} at {}", version(&ffmpeg), ffmpeg.display());
    if let Some(path) = &alternative {
        println!("setup: second FFmpeg {} at {}", version(path), path.display());
    }
    Ok(Tools { ffmpeg, alternative })
}

/// Installs packages, where this is Debian or Ubuntu and the user may: whether it did.
pub fn apt(packages: &[&str]) -> bool {
    let is_root = || output(Command::new("id").arg("-u")).is_ok_and(|o| o.stdout == b"0\n");
    if !cfg!(target_os = "linux") || !succeeds(Command::new("apt-get").arg("--version")) {
        return false;
    }
    if !is_root() {
        println!("setup: only root can run: apt-get install {}", packages.join(" "));
        return false;
    }
    let install = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
        show(&mut command).unwrap_or(false)
    };
    // On a fresh machine the package lists may be missing or old.
    install()
        || (show(Command::new("apt-get").args(["update", "-qq"])).unwrap_or(false) && install())
}

/// Without nasm the embedded encoder is built without its assembly, in silence.
fn nasm() {
    let is_there = || succeeds(Command::new("nasm").arg("-v"));
    if is_there() {
        return println!("setup: nasm is there");
    }
    if apt(&["nasm"]) && is_there() {
        // What was built before does not know of it.
        let mut forget = cargo();
        forget.args(["clean", "-p", "openh264-sys2"]);
        println!("setup: nasm installed");
        if !succeeds(&mut forget) {
            println!("setup: run `cargo clean -p openh264-sys2`, so that it is used");
        }
        return;
    }
    println!("setup: no nasm: OpenH264 will be about three times slower; install nasm");
}

fn ffmpeg() -> Option<PathBuf> {
    if let Some(path) = env::var_os("ENCODER_FFMPEG").map(PathBuf::from) {
        if runs(&path) {
            return Some(path);
        }
        println!("setup: ENCODER_FFMPEG = {} does not run: passed over", path.display());
    }
    on_path().or_else(|| if apt(&["ffmpeg"]) { on_path() } else { None })
}

fn on_path() -> Option<PathBuf> {
    let name = format!("ffmpeg{}", env::consts::EXE_SUFFIX);
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(&name)).find(|path| path.is_file() && runs(path))
}

/// The FFmpeg of the Python package imageio-ffmpeg, which has one for every system.
fn from_pypi() -> Result<PathBuf> {
    const PACKAGE: &str = "imageio-ffmpeg";
    let dir = target().join("tools").join(PACKAGE);
    if let Some(path) = packaged(&dir) {
        return Ok(path);
    }
    let python = ["python3", "python"]
        .into_iter()
        .find(|name| succeeds(Command::new(name).arg("--version")))
        .ok_or("no Python")?;
    let venv = target().join("tools").join("venv");
    // With --target nothing else of this Python is touched.
    let install = |python: &Path| {
        let mut command = Command::new(python);
        command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
        output(command.arg(&dir).arg(PACKAGE)).map(drop)
    };
    install(Path::new(python)).or_else(|error| {
        // A Python without pip may bring one along in a virtual environment.
        if !succeeds(Command::new(python).args(["-m", "venv"]).arg(&venv)) {
            return Err(error);
        }
        let bin = venv.join(if cfg!(windows) { "Scripts" } else { "bin" });
        install(&bin.join(format!("python{}", env::consts::EXE_SUFFIX)))
    })?;
    println!("setup: {PACKAGE} installed in {}", dir.display());
    packaged(&dir).ok_or_else(|| format!("{PACKAGE} has no program for this system").into())
}

fn packaged(dir: &Path) -> Option<PathBuf> {
    let programs = fs::read_dir(dir.join("imageio_ffmpeg").join("binaries")).ok()?;
    programs
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("ffmpeg")))
        .find(|path| runs(path))
}

fn runs(ffmpeg: &Path) -> bool {
    succeeds(Command::new(ffmpeg).args(["-hide_banner", "-version"]))
}

fn version(ffmpeg: &Path) -> String {
    let text = output(Command::new(ffmpeg).arg("-version")).map(|o| o.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let word = text.strip_prefix("ffmpeg version ").and_then(|t| t.split_whitespace().next());
    word.unwrap_or("of unknown version").to_string()
}
