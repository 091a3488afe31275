//! What the tests need from outside: FFmpeg, headers for virtual devices, and nasm for the speed
//! of the embedded encoder.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    headers,
    process::{Result, cargo, output, show, succeeds},
    pypi,
};

/// What there is for the tests.
pub struct Tools {
    /// The first choice: `ENCODER_FFMPEG` of the tests.
    pub ffmpeg: PathBuf,
    /// One of another origin, mostly of another version: tests that need FFmpeg run again with it.
    pub alternative: Option<PathBuf>,
    /// Whether virtual devices can be made.
    pub testbed: bool,
}

impl Tools {
    /// Tells tests where they are. With everything there, no test may be left out in silence.
    pub fn announce<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("ENCODER_FFMPEG", &self.ffmpeg);
        if let Some(path) = &self.alternative {
            command.env("ENCODER_FFMPEG_2", path);
        }
        if self.testbed {
            command.env("ENCODER_TESTBED", "required");
        }
        command
    }

    /// The two FFmpegs the other way round.
    pub fn swapped(&self) -> Option<Self> {
        let ffmpeg = self.alternative.clone()?;
        Some(Self { ffmpeg, alternative: Some(self.ffmpeg.clone()), testbed: self.testbed })
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
    let testbed = headers::headers();
    Ok(Tools { ffmpeg, alternative, testbed })
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
    let dir = pypi::folder(PACKAGE);
    if let Some(path) = packaged(&dir) {
        return Ok(path);
    }
    pypi::install(&dir, &[PACKAGE])?;
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
