//! A platform's archive: `target/dist/encoder-<version>-<platform>.tar.gz`.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

use crate::{
    licences::licences,
    macos,
    process::{Result, cargo, output, root, show, target, typed},
    program::{contains_exactly, detect},
    workspace::{Backend, PROGRAM, backends, feature_list, other_features, target_of},
};

/// The time of every file in an archive, so that equal contents make equal archives: the beginning
/// of 2000.
const TIME: u64 = 946_684_800;

/// The platform and variant of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Platform {
    /// Linux, with every encoder that Linux has.
    LinuxGpu,
    /// Linux, with software encoders only.
    LinuxCpu,
    /// macOS on Apple silicon.
    Macos,
}

impl Platform {
    fn name(self) -> &'static str {
        match self {
            Self::LinuxGpu => "linux-gpu",
            Self::LinuxCpu => "linux-cpu",
            Self::Macos => "macos",
        }
    }

    fn features(self, all: &[Backend]) -> Vec<String> {
        let of_apple = |backend: &Backend| backend.name == "videotoolbox";
        let wanted = |backend: &&Backend| match self {
            Self::LinuxGpu => !of_apple(backend),
            Self::LinuxCpu => backend.is_software(),
            Self::Macos => backend.is_software() || of_apple(backend),
        };
        all.iter().filter(wanted).map(|backend| backend.name.clone()).collect()
    }

    /// Rust's name of the target.
    fn target(self) -> Result<String> {
        if self == Self::Macos {
            return Ok(macos::TARGET.into());
        }
        let host = host()?;
        match host.contains("-linux-") {
            true => Ok(host),
            false => Err(format!("{} is built on Linux; this is {host}", self.name()).into()),
        }
    }
}

/// Builds the program, packs it, unpacks it again and runs it.
///
/// # Errors
/// When something is missing or wrong; then no archive is left.
pub fn dist(platform: Platform) -> Result<()> {
    let backends = backends()?;
    let features = platform.features(&backends);
    let triple = platform.target()?;
    println!("dist: {} for {triple}: {}", platform.name(), features.join(", "));
    // Before the long build, so that a forbidden licence is reported at once.
    let whole = [features.clone(), other_features()?].concat();
    let texts = licences(&whole, &triple)?;
    let program = build(platform, &triple, &whole)?;
    contains_exactly(&program, &features, &backends)?;

    let version = env!("CARGO_PKG_VERSION");
    let folder = format!("encoder-{version}-{}", platform.name());
    let mut files = vec![(String::from("encoder"), fs::read(&program)?, 0o755)];
    for name in ["LICENSE-APACHE", "LICENSE-MIT", "README.md"] {
        files.push((name.into(), fs::read(root().join(name))?, 0o644));
    }
    for text in texts {
        files.push((format!("THIRD-PARTY/{}", text.path), text.text.into_bytes(), 0o644));
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    let archive = pack(&folder, &files)?;

    if triple == host()? {
        try_out(&archive, &folder, &features)?;
    } else {
        println!("dist: not run: this machine cannot run programs for {triple}");
    }
    let home = target().join("dist");
    fs::create_dir_all(&home)?;
    let path = home.join(format!("{folder}.tar.gz"));
    fs::write(&path, &archive)?;
    // In the form that `sha256sum --check` reads.
    let sum: String = Sha256::digest(&archive).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(home.join(format!("{folder}.tar.gz.sha256")), format!("{sum}  {folder}.tar.gz\n"))?;
    println!("dist: {} ({} KiB, SHA-256 {sum})", path.display(), archive.len() / 1024);
    Ok(())
}

fn build(platform: Platform, triple: &str, features: &[String]) -> Result<PathBuf> {
    let mut command = match platform {
        Platform::Macos => macos::cargo_for_macos("build")?,
        _ => {
            let mut cargo = cargo();
            cargo.args(["build", "--target", triple]);
            cargo
        }
    };
    let package = target_of("bin", PROGRAM)?.package;
    command.args(["--profile", "dist", "--package", &package, "--bin", PROGRAM]);
    command.args(["--no-default-features", "--features", &feature_list(features)?]);
    // Source paths in the program must contain no folder of this machine.
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let mut flags = format!("--remap-path-prefix={}=/encoder", root().display());
    if let Some(home) = home {
        flags.push_str(&format!("\u{1f}--remap-path-prefix={}=/cargo", home.display()));
    }
    if !show(command.env("CARGO_ENCODED_RUSTFLAGS", flags))? {
        return Err("the program does not build".into());
    }
    Ok(target().join(triple).join("dist").join(PROGRAM))
}

/// The archive: sorted, and without the name of its creator or the time of its creation.
fn pack(folder: &str, files: &[(String, Vec<u8>, u32)]) -> Result<Vec<u8>> {
    let gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut archive = tar::Builder::new(gzip);
    for (name, bytes, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(bytes.len())?);
        header.set_mode(*mode);
        header.set_mtime(TIME);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, format!("{folder}/{name}"), bytes.as_slice())?;
    }
    Ok(archive.into_inner()?.finish()?)
}

/// Unpacks the archive as a user would, and runs the program in it.
fn try_out(archive: &[u8], folder: &str, features: &[String]) -> Result<()> {
    let room = tempfile::tempdir()?;
    let mut tar = Command::new("tar");
    tar.args(["-xzf", "archive.tar.gz"]).current_dir(room.path());
    fs::File::create(room.path().join("archive.tar.gz"))?.write_all(archive)?;
    output(&mut tar)?;
    let program = room.path().join(folder).join("encoder");
    let answer = run(&program, &["--version"])?;
    let expected = format!("encoder {}", env!("CARGO_PKG_VERSION"));
    if answer.trim() != expected {
        return Err(format!("`encoder --version` answers {answer:?}, not {expected:?}").into());
    }
    print!("{}", run(&program, &["detect"])?);
    let found: Vec<_> =
        detect(&mut Command::new(&program))?.into_iter().map(|one| one.encoder).collect();
    if found != features {
        return Err(format!("`encoder detect` has {found:?}, not {features:?}").into());
    }
    // The embedded encoder depends on nothing on this machine.
    let sample = root().join("sample").join("two_cameras.mcap");
    let (sample, videos) = (sample.to_string_lossy(), room.path().join("videos"));
    run(&program, &["encode", &sample, "-o", &videos.to_string_lossy(), "--encoder", "openh264"])?;
    println!("dist: the unpacked program runs and converts the sample");
    Ok(())
}

fn run(program: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    println!("+ {}", typed(command.args(args)));
    Ok(String::from_utf8(output(&mut command)?.stdout)?)
}

fn host() -> Result<String> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let text = String::from_utf8(output(rustc.arg("-vV"))?.stdout)?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.ok_or("rustc -vV names no host")?.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn platforms_have_their_encoders() {
        let names = ["nvenc", "qsv", "videotoolbox", "x264", "openh264"];
        let all = names.map(|name| Backend { name: name.into(), package: String::new() });
        for (platform, expected) in [
            (Platform::LinuxGpu, "nvenc qsv x264 openh264"),
            (Platform::LinuxCpu, "x264 openh264"),
            (Platform::Macos, "videotoolbox x264 openh264"),
        ] {
            assert_eq!(platform.features(&all).join(" "), expected);
        }
    }

    #[test]
    fn archives_are_equal_and_whole() {
        let long = format!("THIRD-PARTY/{}/LICENSE", "long".repeat(40));
        let files = [("encoder".to_string(), vec![1, 2, 3], 0o755), (long, vec![4], 0o644)];
        let archive = pack("encoder-0", &files).unwrap();
        assert_eq!(archive, pack("encoder-0", &files).unwrap());
        let mut reader = tar::Archive::new(flate2::read::GzDecoder::new(archive.as_slice()));
        let mut count = 0;
        for (entry, (name, bytes, mode)) in reader.entries().unwrap().zip(&files) {
            let mut entry = entry.unwrap();
            let mut found = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut found).unwrap();
            assert_eq!(entry.path().unwrap().to_str(), Some(format!("encoder-0/{name}").as_str()));
            assert_eq!((&found, entry.header().mode().unwrap()), (bytes, *mode));
            assert_eq!(entry.header().mtime().unwrap(), TIME);
            count += 1;
        }
        assert_eq!(count, files.len());
    }
}
