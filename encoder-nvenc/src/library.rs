//! Why a library of the driver does not load, from the message of the system's loader.

use encoder_core::{Refusal, RefusalKind};

use crate::{facts::Facts, messages::refuse};

/// A part of the loader's message, its meaning, and the hint.
const CAUSES: &[(&str, &str, &str)] = &[
    (
        "file too short",
        "the file of this library is empty",
        "delete the empty files of the driver (find / -xdev -name 'lib*cuda*' -size 0, and \
         'libnvidia*'): an image that was made in a container with the NVIDIA runtime contains \
         them in place of the driver, which the runtime mounts only when the container is started \
         with --gpus all",
    ),
    (
        "invalid ELF header",
        "the file of this library is damaged",
        "install the NVIDIA driver again; in an image delete the files of the driver, which the \
         NVIDIA Container Toolkit mounts",
    ),
    (
        "wrong ELF class",
        "only the 32-bit library of the driver is found",
        "install the 64-bit libraries of the NVIDIA driver, and take folders of 32-bit libraries \
         out of LD_LIBRARY_PATH",
    ),
    (
        "version `GLIBC_",
        "the C library of this system is older than the NVIDIA driver needs",
        "use a newer system or container image",
    ),
    (
        "failed to map segment",
        "the system does not allow the library to be mapped",
        "check that its file system is not mounted with noexec, and the limit of memory (ulimit \
         -v)",
    ),
    (
        "Permission denied",
        "this user may not read the library",
        "check the permissions of the file and of the folders above it, and LD_LIBRARY_PATH; no \
         device is concerned",
    ),
    // As musl reports it. The name of the library itself means that the driver is elsewhere, any
    // other name that the driver needs glibc.
    (
        "Error loading shared library",
        "the C library of this system is musl (Alpine Linux), and the NVIDIA driver needs glibc",
        MUSL,
    ),
    (
        "Error relocating",
        "the C library of this system is musl (Alpine Linux), and the NVIDIA driver needs glibc",
        MUSL,
    ),
];

const MUSL: &str = "use a system or image with glibc (Debian, Ubuntu, RHEL), with its own FFmpeg";

const WSL: &str = "add /usr/lib/wsl/lib to LD_LIBRARY_PATH, or write it to a file in \
                   /etc/ld.so.conf.d and run sudo ldconfig; install no NVIDIA driver in Linux";
const WINDOWS: &str = "install the NVIDIA driver in Windows, and none in Linux, and run wsl \
                       --update; in a container run with --gpus all; without an NVIDIA GPU use \
                       another encoder";

/// The refusal of Jetson.
pub(crate) fn jetson(details: &str) -> Refusal {
    refuse(
        RefusalKind::NoDevice,
        format!("this is a Jetson, and FFmpeg's h264_nvenc does not work there ({details})"),
        "use another encoder: the encoder of a Jetson is reached through V4L2 \
         (nvv4l2h264enc of GStreamer), which FFmpeg and this program do not use, and Orin Nano has \
         none",
    )
}

/// Whether this program is linked so that it can load no library at all: whether the driver is
/// there cannot be checked.
pub(crate) fn is_static(error: &str) -> bool {
    error.contains("Dynamic loading not supported")
}

/// The refusal of a library that does not load for a reason of its own. `None` if it may simply be
/// missing. `part` is its name in messages: "the CUDA part of the NVIDIA driver".
pub(crate) fn broken(facts: &Facts, part: &str, error: &str) -> Option<Refusal> {
    if facts.is_jetson {
        return Some(jetson(error));
    }
    let of_message = CAUSES.iter().find(|(needle, ..)| error.contains(needle));
    let (kind, meaning, hint) = match of_message {
        Some((_, meaning, hint)) => (RefusalKind::Missing, *meaning, *hint),
        None if facts.is_wsl() && facts.has_wsl_driver => {
            (RefusalKind::Missing, "the loader does not look into /usr/lib/wsl/lib", WSL)
        }
        None if facts.is_wsl() => {
            (RefusalKind::NoDevice, "Windows provides no NVIDIA driver to WSL", WINDOWS)
        }
        None => return None,
    };
    Some(refuse(kind, format!("{part} does not load: {meaning}: {error}"), hint))
}
