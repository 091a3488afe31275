//! Compiles C sources to shared libraries, once per content.

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash, Hasher},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use thiserror::Error;

/// The reason why a virtual device cannot be made on this machine.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}; `cargo xtask setup` provides what is missing")]
pub struct Missing(pub String);

/// For tests on a virtual device: if it cannot be made, prints the reason and returns `None`, so
/// that the test is left out. Under `cargo xtask test`, which sets `ENCODER_TESTBED=required`, the
/// test fails.
///
/// # Panics
/// When the device is missing and required.
pub fn or_left_out<T>(device: Result<T, Missing>) -> Option<T> {
    match device {
        Ok(device) => Some(device),
        Err(missing) if env::var_os("ENCODER_TESTBED").is_some_and(|v| v == "required") => {
            panic!("{missing}")
        }
        Err(missing) => {
            eprintln!("left out: {missing}");
            None
        }
    }
}

/// One shared library, or a program if its file name has no `.so`.
pub(crate) struct Library<'a> {
    /// Its file name: `libcuda.so.1`.
    pub(crate) file: &'a str,
    /// Its sources, in the folder `c` of this crate.
    pub(crate) sources: &'a [&'a str],
    /// Folders with headers, before the system's.
    pub(crate) includes: &'a [PathBuf],
    /// Further arguments for the compiler: `-DNAME=value`, `-ldl`.
    pub(crate) arguments: &'a [&'a str],
}

/// Compiles `libraries` and returns the folder that contains them. Libraries that were compiled
/// from the same sources, headers and arguments are reused, also those of another process.
pub(crate) fn compile(libraries: &[Library<'_>]) -> Result<PathBuf, Missing> {
    let missing =
        |error: io::Error| Missing(format!("virtual devices cannot be compiled: {error}"));
    let mut hasher = DefaultHasher::new();
    for library in libraries {
        (library.file, library.arguments).hash(&mut hasher);
        for folder in library.includes {
            hash_folder(folder, &mut hasher).map_err(missing)?;
        }
    }
    hash_folder(&sources(), &mut hasher).map_err(missing)?;
    let home = target().join("testbed");
    let done = home.join(format!("{:016x}", hasher.finish()));
    if done.is_dir() {
        return Ok(done);
    }
    fs::create_dir_all(&home).map_err(missing)?;
    let work = tempfile::tempdir_in(&home).map_err(missing)?;
    for library in libraries {
        compile_one(library, work.path())?;
    }
    match fs::rename(work.path(), &done) {
        Ok(()) => drop(work.keep()),
        // Another process has compiled them in the meantime.
        Err(_) if done.is_dir() => {}
        Err(error) => return Err(missing(error)),
    }
    Ok(done)
}

fn compile_one(library: &Library<'_>, folder: &Path) -> Result<(), Missing> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(&compiler);
    command.args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]);
    command.arg("-o").arg(folder.join(library.file));
    if library.file.contains(".so") {
        command.args(["-fPIC", "-shared"]).arg(format!("-Wl,-soname,{}", library.file));
    }
    for include in library.includes {
        // Warnings are disabled for vendors' headers.
        command.arg("-isystem").arg(include);
    }
    command.args(library.sources.iter().map(|source| sources().join(source)));
    command.args(library.arguments);
    let output = command.output().map_err(|error| {
        Missing(format!("no C compiler: {}: {error}", Path::new(&compiler).display()))
    })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Missing(format!(
            "{} does not compile: {}",
            library.file,
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}

fn hash_folder(folder: &Path, hasher: &mut impl Hasher) -> io::Result<()> {
    let mut files: Vec<_> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        file.hash(hasher);
        fs::read(file)?.hash(hasher);
    }
    Ok(())
}

/// The folder with the headers called `name`, as `cargo xtask setup` installs them.
pub(crate) fn headers(name: &str, file: &str) -> Result<PathBuf, Missing> {
    let folder = target().join("tools").join("headers").join(name);
    match folder.join(file).is_file() {
        true => Ok(folder),
        false => Err(Missing(format!("there is no {file} in {}", folder.display()))),
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("c")
}

fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root.join(folder),
        None => root.join("target"),
    }
}
