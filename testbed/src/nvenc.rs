//! The virtual NVENC device: `libcuda.so.1`, `libnvidia-encode.so.1` and `libnvidia-ml.so.1` of
//! our own, which the real FFmpeg loads in place of NVIDIA's, and an `nvidia-smi`.
//!
//! It is as strict as a driver: it checks the version of every struct, the state in every call and
//! the release of every resource, and it writes lossless H.264, so that the decoded pictures can be
//! compared with the input. It serves clients of the encode APIs 11.1, 13.0 and 13.1.

mod event;
mod fault;

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

pub use self::{
    event::{Config, Event, What},
    fault::{Action, Fault, Stage, Wrong},
};
use crate::{
    compile::{self, Library, Missing},
    log,
};

/// A capability of the encoder, with its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability {
    /// 145 samples.
    WidthMin,
    /// 4096 samples.
    WidthMax,
    /// 49 samples.
    HeightMin,
    /// 4096 samples.
    HeightMax,
    /// 4 in a row.
    BFrames,
    /// 1: 4:4:4 can be encoded.
    Yuv444,
    /// 1: lossless tuning is known.
    Lossless,
    /// 0: no 10 bit.
    TenBit,
    /// 1: lookahead is possible.
    Lookahead,
    /// 1: temporal adaptive quantisation is possible.
    TemporalAq,
}

impl Capability {
    fn key(self) -> &'static str {
        match self {
            Self::WidthMin => "cap_width_min",
            Self::WidthMax => "cap_width_max",
            Self::HeightMin => "cap_height_min",
            Self::HeightMax => "cap_height_max",
            Self::BFrames => "cap_b_frames",
            Self::Yuv444 => "cap_yuv444",
            Self::Lossless => "cap_lossless",
            Self::TenBit => "cap_ten_bit",
            Self::Lookahead => "cap_lookahead",
            Self::TemporalAq => "cap_temporal_aq",
        }
    }
}

/// A part of the driver that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `libcuda.so.1`: there is no driver.
    Cuda,
    /// `libnvidia-encode.so.1`: a container without the capability "video".
    Encode,
    /// `libnvidia-ml.so.1`.
    Ml,
    /// The program `nvidia-smi`.
    Smi,
}

/// A defect of a library of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// It aborts the process that loads it.
    CrashAtLoad,
    /// Loading it never returns.
    HangAtLoad,
    /// The end of a process that has loaded it never returns.
    HangAtExit,
}

/// How `nvidia-smi` behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Smi {
    /// It prints names and the version of the driver.
    Works,
    /// It cannot communicate with the driver.
    Fails,
    /// "Driver/library version mismatch".
    Mismatch,
    /// It hangs.
    Hangs,
}

/// One device with its own folder, which is removed when the value is dropped.
///
/// By default it has one GPU without faults. Programs see it through [`apply`](Self::apply) or
/// [`environment`](Self::environment); several may run at the same time.
///
/// A part that is left out is absent only if the machine itself has none.
#[derive(Debug)]
pub struct VirtualNvenc {
    folder: TempDir,
    /// Each part in its own folder.
    parts: Vec<(Part, PathBuf)>,
    spec: Vec<(String, String)>,
}

impl VirtualNvenc {
    /// A healthy GPU with a current driver. The libraries are compiled when they are first asked
    /// for.
    ///
    /// # Errors
    /// Without a C compiler or without the vendor's headers.
    pub fn new() -> Result<Self, Missing> {
        let parts = parts()?;
        let folder = tempfile::Builder::new()
            .prefix("virtual-nvenc-")
            .tempdir()
            .map_err(|error| Missing(format!("no folder for a virtual device: {error}")))?;
        let dir = folder.path().to_string_lossy().into_owned();
        let device = Self { folder, parts, spec: vec![("dir".into(), dir)] };
        Ok(device.gpus(&["NVIDIA Virtual"]).driver("610.43.02", (13, 1), (13, 1)))
    }

    /// The names of the GPUs; none: a driver without a device. `:no-encoder` after a name makes
    /// one that cannot encode.
    #[must_use]
    pub fn gpus(self, names: &[&str]) -> Self {
        self.set("gpus", &names.join("|"))
    }

    /// The version of the driver, the newest encode API that it knows and its version of CUDA.
    #[must_use]
    pub fn driver(self, version: &str, api: (u32, u32), cuda: (u32, u32)) -> Self {
        self.set("driver", version)
            .set("api", &format!("{}.{}", api.0, api.1))
            .set("cuda", &(cuda.0 * 1000 + cuda.1 * 10).to_string())
    }

    /// How many sessions may be open at once, over all processes, and the code with which an
    /// open above that fails: 10, out of memory, or 21, incompatible client key.
    #[must_use]
    pub fn session_limit(self, sessions: u32, code: i32) -> Self {
        self.set("sessions", &sessions.to_string()).set("session_code", &code.to_string())
    }

    /// Sets a capability to another value than its default.
    #[must_use]
    pub fn capability(self, capability: Capability, value: i32) -> Self {
        self.set(capability.key(), &value.to_string())
    }

    /// How long each picture takes.
    #[must_use]
    pub fn frame_time(self, time: Duration) -> Self {
        self.set("frame_ms", &time.as_millis().to_string())
    }

    /// Injects a fault. A device has at most one fault: this one replaces an earlier one.
    #[must_use]
    pub fn fault(self, fault: Fault) -> Self {
        fault.pairs().into_iter().fold(self, |device, (key, value)| device.set(key, &value))
    }

    /// How `nvidia-smi` behaves.
    #[must_use]
    pub fn smi(self, smi: Smi) -> Self {
        let value = match smi {
            Smi::Works => "works",
            Smi::Fails => "fails",
            Smi::Mismatch => "mismatch",
            Smi::Hangs => "hangs",
        };
        self.set("smi", value)
    }

    /// Leaves out a part of the driver.
    #[must_use]
    pub fn without(mut self, part: Part) -> Self {
        self.parts.retain(|(known, _)| *known != part);
        self
    }

    /// Gives a library of the driver a defect.
    ///
    /// # Panics
    /// When the library does not compile, or is [`Part::Smi`].
    #[must_use]
    pub fn defect(mut self, part: Part, defect: Defect) -> Self {
        let argument = match defect {
            Defect::CrashAtLoad => "-DAT_LOAD=abort()",
            Defect::HangAtLoad => "-DAT_LOAD=for(;;)pause()",
            Defect::HangAtExit => "-DAT_EXIT=for(;;)pause()",
        };
        let folder =
            library(part, &[argument]).unwrap_or_else(|Missing(reason)| panic!("{reason}"));
        self.parts.retain(|(known, _)| *known != part);
        self.parts.push((part, folder));
        self
    }

    /// Any key of the spec, as `c/log.h` lists them.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.spec.retain(|(known, _)| known != key);
        self.spec.push((key.into(), value.into()));
        self
    }

    /// The environment in which a program finds the device. Lists such as `PATH` end with the
    /// values of this process.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let spec: Vec<_> = self.spec.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            ("ENCODER_VIRTUAL_NVENC".into(), spec.join(";").into()),
            ("LD_LIBRARY_PATH".into(), self.in_front("LD_LIBRARY_PATH", |part| part != Part::Smi)),
            ("PATH".into(), self.in_front("PATH", |part| part == Part::Smi)),
        ]
    }

    /// A list of folders with those of some parts in front.
    fn in_front(&self, variable: &str, wanted: impl Fn(Part) -> bool) -> OsString {
        let behind = env::var_os(variable).filter(|folders| !folders.is_empty());
        let behind: Vec<_> = behind.iter().flat_map(env::split_paths).collect();
        let parts = self.parts.iter().filter(|(part, _)| wanted(*part));
        let folders = parts.filter_map(|(_, file)| file.parent().map(Path::to_path_buf));
        // A folder with a colon in its name cannot be an entry of the list.
        env::join_paths(folders.chain(behind)).unwrap_or_default()
    }

    /// Makes the program that `command` starts, and those that it starts, find the device.
    pub fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.environment())
    }

    /// The file of a part of the driver, unless it is left out.
    pub fn file(&self, part: Part) -> Option<&Path> {
        self.parts.iter().find(|(known, _)| *known == part).map(|(_, file)| file.as_path())
    }

    /// The events so far, in all processes.
    ///
    /// # Panics
    /// When the log cannot be read.
    pub fn log(&self) -> Vec<Event> {
        log::read(self.folder.path())
    }

    /// Calls so far that a real driver might reject, and resources that were not released.
    /// Meaningful without a fault: after an injected fault, FFmpeg's own clean-up is incomplete.
    pub fn violations(&self) -> Vec<String> {
        let violation = |event: Event| match event.what {
            What::Violation { what } | What::Leak { what } => Some(what),
            _ => None,
        };
        self.log().into_iter().filter_map(violation).collect()
    }

    /// The configurations with which sessions were initialised so far.
    pub fn configs(&self) -> Vec<Config> {
        let config = |event: Event| match event.what {
            What::Initialized(config) => Some(*config),
            _ => None,
        };
        self.log().into_iter().filter_map(config).collect()
    }

    /// How many sessions are open now, in all processes.
    ///
    /// # Panics
    /// When the device's folder cannot be read.
    pub fn open_sessions(&self) -> usize {
        let held = || -> io::Result<usize> {
            // As in the libraries, the lock prevents that a slot is taken during the count.
            let gate = File::create(self.folder.path().join("gate"))?;
            gate.lock()?;
            let mut held = 0;
            for entry in fs::read_dir(self.folder.path())? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with("slot-") {
                    let taken = File::open(entry.path())?.try_lock_shared().is_err();
                    held += usize::from(taken);
                }
            }
            Ok(held)
        };
        held().unwrap_or_else(|error| panic!("the sessions of the virtual device: {error}"))
    }
}

/// The parts of the driver, compiled if needed.
fn parts() -> Result<Vec<(Part, PathBuf)>, Missing> {
    let smi = Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join("nvidia-smi");
    Ok(vec![
        (Part::Cuda, library(Part::Cuda, &[])?),
        (Part::Encode, library(Part::Encode, &[])?),
        (Part::Ml, library(Part::Ml, &[])?),
        (Part::Smi, smi),
    ])
}

/// The file of a library of the driver, compiled if needed; with `defects`, arguments for
/// `broken_library.c`, that is a part of it.
fn library(part: Part, defects: &[&str]) -> Result<PathBuf, Missing> {
    let old = compile::headers("nvenc-11.1", "nvEncodeAPI.h")?;
    let new = compile::headers("nvenc-13.0", "nvEncodeAPI.h")?;
    // The sources name the folder of the version: `nvenc-13.0/nvEncodeAPI.h`.
    let all = old.parent().unwrap_or(&old).to_path_buf();
    let includes = [all, old, new];
    let (file, sources): (_, &[&str]) = match part {
        Part::Cuda => ("libcuda.so.1", &["cuda.c", "log.c"]),
        Part::Encode => (
            "libnvidia-encode.so.1",
            &[
                "nvenc.c",
                "nvenc_11_1.c",
                "nvenc_13_0.c",
                "nvenc_13_1.c",
                "nvenc_core.c",
                "nvenc_pictures.c",
                "nvenc_slots.c",
                "picture.c",
                "log.c",
            ],
        ),
        Part::Ml => ("libnvidia-ml.so.1", &["nvml.c", "nvenc_slots.c", "log.c"]),
        Part::Smi => return Err(Missing("nvidia-smi is no library".into())),
    };
    let broken: &[&str] = if defects.is_empty() { &[] } else { &["broken_library.c"] };
    let sources: Vec<_> = sources.iter().chain(broken).copied().collect();
    let arguments: Vec<_> = ["-fvisibility=hidden"].iter().chain(defects).copied().collect();
    let library = Library { file, sources: &sources, includes: &includes, arguments: &arguments };
    Ok(compile::compile(&[library])?.join(file))
}
