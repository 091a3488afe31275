//! The real FFmpegs of this machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Missing, or_left_out};

/// A real FFmpeg.
#[derive(Clone, Debug)]
pub struct Ffmpeg {
    /// The program, or its name on the `PATH`.
    pub path: PathBuf,
    /// 5 for 5.1.9.
    pub major: u32,
}

/// The FFmpegs that have `encoder` and are `usable`, each version once: the programs that the
/// variables `ENCODER_FFMPEG` and `ENCODER_FFMPEG_2` name, the program on the path, and the program
/// that `cargo xtask setup` fetches.
///
/// # Panics
/// If there is none and the test bed is required: see [`or_left_out`].
pub fn ffmpegs(encoder: &str, usable: impl Fn(&Ffmpeg) -> bool) -> Vec<Ffmpeg> {
    let named = ["ENCODER_FFMPEG", "ENCODER_FFMPEG_2"].into_iter().filter_map(env::var_os);
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/tools/imageio-ffmpeg/imageio_ffmpeg/binaries");
    let fetched = fs::read_dir(fetched).into_iter().flatten().flatten();
    let fetched = fetched.map(|entry| entry.path()).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ffmpeg-"))
    });
    let mut found: Vec<Ffmpeg> = Vec::new();
    for path in named.map(PathBuf::from).chain(["ffmpeg".into()]).chain(fetched) {
        let new = look(&path, encoder).filter(|new| found.iter().all(|f| f.major != new.major));
        found.extend(new.filter(&usable));
    }
    if found.is_empty() {
        or_left_out::<()>(Err(Missing(format!("there is no FFmpeg with {encoder}"))));
    }
    found
}

/// The FFmpeg at `path`, if it has the encoder.
fn look(path: &Path, encoder: &str) -> Option<Ffmpeg> {
    let text = |argument| {
        let output = Command::new(path).args(["-hide_banner", argument]).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    if !text("-encoders")?.contains(encoder) {
        return None;
    }
    let version = text("-version")?;
    let version = version.strip_prefix("ffmpeg version ")?.trim_start_matches('n');
    let major = version.split('.').next()?.parse().ok()?;
    Some(Ffmpeg { path: path.into(), major })
}
