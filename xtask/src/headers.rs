//! The build dependencies of virtual devices: vendors' public headers, and a C compiler.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    apt::apt,
    process::{Result, cargo, output, succeeds, target},
};

/// The interface of a virtual Quick Sync runtime, as Debian's packages lay it down.
const QSV: [&str; 4] = ["mfx/mfxvideo.h", "vpl/mfx.h", "va/va_backend.h", "libdrm/drm.h"];
const QSV_PACKAGES: [&str; 4] = ["libmfx-dev", "libvpl-dev", "libva-dev", "libdrm-dev"];

/// Provides the headers and reports missing ones. Returns whether every device can be built.
pub fn headers() -> bool {
    if !cfg!(target_os = "linux") {
        println!("setup: virtual devices exist on Linux only: their tests are left out");
        return false;
    }
    let parts = [
        ("C compiler", compiler()),
        ("NVENC 11.1", nvenc_11_1()),
        ("NVENC 13.0", nvenc_13_0()),
        ("Quick Sync", qsv()),
    ];
    for (what, provided) in &parts {
        if let Err(error) = provided {
            println!("setup: no {what}: tests on its virtual device are left out: {error}");
        }
    }
    let all = parts.iter().all(|(_, provided)| provided.is_ok());
    if all {
        println!("setup: headers for virtual devices are there");
    }
    all
}

fn compiler() -> Result<()> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    match succeeds(Command::new(&compiler).arg("--version")) || apt(&["gcc", "libc6-dev"]) {
        true => Ok(()),
        false => Err(format!("{} does not run", compiler.display()).into()),
    }
}

/// From Debian: also the loader that names what FFmpeg wants of the driver's libraries.
fn nvenc_11_1() -> Result<()> {
    let folder = folder("nvenc-11.1");
    let files = ["nvEncodeAPI.h", "dynlink_loader.h", "dynlink_cuda.h"];
    if files.iter().all(|file| folder.join(file).is_file()) {
        return Ok(());
    }
    let system = Path::new("/usr/include/ffnvcodec");
    if !system.is_dir() && !apt(&["libffmpeg-nvenc-dev"]) {
        return Err("install libffmpeg-nvenc-dev".into());
    }
    is_version(&system.join("nvEncodeAPI.h"), "11", "1")?;
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(system)? {
        let entry = entry?;
        fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    Ok(())
}

/// From a crate whose package contains it. Cargo fetches the package and builds nothing.
fn nvenc_13_0() -> Result<()> {
    const CRATE: &str = "shiguredo_nvcodec";
    let header = folder("nvenc-13.0").join("nvEncodeAPI.h");
    if header.is_file() {
        return Ok(());
    }
    let fetch = folder("fetch");
    fs::create_dir_all(fetch.join("src"))?;
    fs::write(fetch.join("src/lib.rs"), "")?;
    let manifest = fetch.join("Cargo.toml");
    let text = format!(
        "[package]\nname = \"fetch\"\nedition = \"2024\"\n\n[dependencies]\n{CRATE} = \"=2026.2.0\"\n\n\
         [workspace]\n"
    );
    fs::write(&manifest, text)?;
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1", "--manifest-path"]).arg(&manifest);
    let metadata: serde_json::Value = serde_json::from_slice(&output(&mut command)?.stdout)?;
    let package =
        metadata["packages"].as_array().into_iter().flatten().find(|p| p["name"] == CRATE);
    let path =
        package.and_then(|p| p["manifest_path"].as_str()).and_then(|p| Path::new(p).parent());
    let found = path.ok_or("no such package")?.join("third_party/nvcodec/include/nvEncodeAPI.h");
    is_version(&found, "13", "0")?;
    fs::create_dir_all(folder("nvenc-13.0"))?;
    fs::copy(&found, &header)?;
    Ok(())
}

fn qsv() -> Result<()> {
    let is_there = || QSV.iter().all(|file| Path::new("/usr/include").join(file).is_file());
    match is_there() || (apt(&QSV_PACKAGES) && is_there()) {
        true => Ok(()),
        false => Err(format!("install {}", QSV_PACKAGES.join(", ")).into()),
    }
}

/// A device of another version than its name would test the wrong interface.
fn is_version(header: &Path, major: &str, minor: &str) -> Result<()> {
    let text = fs::read_to_string(header).map_err(|e| format!("{}: {e}", header.display()))?;
    let value = |name: &str| {
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.find_map(|words| match words[..] {
            ["#define", word, value, ..] if word == name => Some(value.to_string()),
            _ => None,
        })
    };
    let found = [value("NVENCAPI_MAJOR_VERSION"), value("NVENCAPI_MINOR_VERSION")];
    match found == [Some(major.to_string()), Some(minor.to_string())] {
        true => Ok(()),
        false => Err(format!("{} is of another version: {found:?}", header.display()).into()),
    }
}

fn folder(name: &str) -> PathBuf {
    target().join("tools").join("headers").join(name)
}
