//! What the words of a failed FFmpeg mean. Exit codes tell nothing reliable: 1 in old versions,
//! the low byte of an internal number in new ones.

use encoder_core::{EncoderType, Refusal, RefusalKind};

use crate::{child::Exit, find::Ffmpeg, tail::words};

struct Rule {
    /// What stands in the stderr text.
    needle: &'static str,
    kind: RefusalKind,
    meaning: &'static str,
    hint: &'static str,
}

const fn rule(
    needle: &'static str,
    kind: RefusalKind,
    meaning: &'static str,
    hint: &'static str,
) -> Rule {
    Rule { needle, kind, meaning, hint }
}

use RefusalKind::{
    Busy, DriverTooOld, Failed, Missing, NoDevice, NotBuilt, Permission, Unsupported,
};

const DRIVER: &str = "install the NVIDIA driver; in a container run with --gpus all (NVIDIA \
                      Container Toolkit)";
const VIDEO: &str = "install the driver's encode library (package libnvidia-encode); in a \
                     container set NVIDIA_DRIVER_CAPABILITIES=all, or video,compute,utility";
const UPDATE: &str = "update the NVIDIA driver, or use an FFmpeg that was built for this one";
const LATER: &str =
    "close other programs that encode, let gpu.session_wait_s wait for them, or try again later";
const SIZE: &str = "use another size, or another encoder";
const ONEVPL: &str = "install the Intel media driver (intel-media-va-driver) and the oneVPL \
                      runtime (libmfx-gen1.2), which this FFmpeg is built for; check with vainfo";
const MEDIA_SDK: &str = "install the Intel media driver (intel-media-va-driver) and the Media SDK \
                         runtime (libmfx1), which this FFmpeg is built for, or use an FFmpeg that \
                         is built for oneVPL, as newer devices need; check with vainfo";
const VA: &str = "install the device's VA-API driver (mesa-va-drivers for AMD, \
                  intel-media-va-driver or i965-va-driver for Intel); check with vainfo";
const LOG: &str = "check the system log (dmesg) for the driver's message";
const RENDER: &str = "add the user to the group of the device (render or video) and log in again; \
                      in a container pass --device /dev/dri";
const PARAMETERS: &str = "use another size, preset or number of B-frames, or another encoder";
const REPORT: &str = "report it with the output of `encoder detect`";

/// The first rule whose needle occurs decides: causes come before their consequences.
const RULES: &[Rule] = &[
    // This program and FFmpeg do not fit.
    rule(
        "Unknown encoder",
        NotBuilt,
        "this FFmpeg was built without the encoder",
        "install an FFmpeg that has it",
    ),
    rule("Unrecognized option", Failed, "FFmpeg does not know an option", REPORT),
    rule("Option not found", Failed, "FFmpeg does not know an option", REPORT),
    rule("Error setting option", Failed, "FFmpeg does not take an option's value", REPORT),
    rule("Unable to parse option value", Failed, "FFmpeg does not take an option's value", REPORT),
    rule("has not been used for any stream", Failed, "FFmpeg ignores an option", REPORT),
    // NVENC: libraries and drivers.
    rule("Cannot load libcuda.so.1", Missing, "the NVIDIA driver is not installed", DRIVER),
    rule("Cannot load nvcuda.dll", Missing, "the NVIDIA driver is not installed", DRIVER),
    rule(
        "Cannot load libnvidia-encode.so.1",
        Missing,
        "the driver's encode library is missing",
        VIDEO,
    ),
    rule("Cannot load nvEncodeAPI", Missing, "the driver's encode library is missing", VIDEO),
    rule("Cannot load cu", DriverTooOld, "the NVIDIA driver lacks a function", UPDATE),
    rule(
        "does not support the required nvenc API version",
        DriverTooOld,
        "the NVIDIA driver is too old for this FFmpeg",
        UPDATE,
    ),
    rule(
        "invalid version (15)",
        DriverTooOld,
        "the NVIDIA driver is too old for this FFmpeg",
        UPDATE,
    ),
    rule("CUDA_ERROR_NO_DEVICE", NoDevice, "there is no NVIDIA GPU", DRIVER),
    rule("No CUDA capable devices found", NoDevice, "there is no NVIDIA GPU", DRIVER),
    rule(
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        Failed,
        "the NVIDIA driver's parts are of different versions",
        "restart the machine after a driver update; in a container use the host's version",
    ),
    rule("CUDA_ERROR_DEVICE_UNAVAILABLE", Busy, "the GPU is taken by another program", LATER),
    rule("CUDA_ERROR_OUT_OF_MEMORY", Busy, "the GPU's memory is full", LATER),
    rule("cuInit(0) failed", Failed, "CUDA does not start", "check that nvidia-smi works"),
    // NVENC: sessions and capabilities.
    rule(
        "unsupported device (2)",
        NoDevice,
        "this GPU has no video encoder, or the container does not see all GPUs that it was given",
        "use a GPU with NVENC (T4, L4, L40S, A10, RTX; not A100, H100, H200), or another encoder",
    ),
    rule(
        "OpenEncodeSessionEx failed: out of memory (10)",
        Busy,
        "all encode sessions are in use",
        LATER,
    ),
    rule("incompatible client key (21)", Busy, "all encode sessions are in use", LATER),
    rule("out of memory (10)", Busy, "the GPU's memory is full", LATER),
    rule("encoder busy (18)", Busy, "the GPU's encoder is busy", LATER),
    rule(
        "Dimension less than the minimum",
        Unsupported,
        "the picture is too small for this device",
        SIZE,
    ),
    rule(
        "Cannot get the preset configuration",
        Unsupported,
        "the device does not take the preset",
        "use another preset",
    ),
    rule("device does not exist (5)", Failed, "the GPU was lost", LOG),
    rule("EncodePicture failed", Failed, "the GPU's encoder failed", LOG),
    rule("Failed locking bitstream buffer", Failed, "the GPU's encoder failed", LOG),
    // Device nodes.
    rule("Permission denied", Permission, "the device may not be opened by this user", RENDER),
    rule(
        "No such file or directory",
        NoDevice,
        "the device is not there",
        "check the option `device`; ls /dev/dri shows what there is",
    ),
    // Quick Sync: the device, of which the parameters are asked for later.
    rule(
        "Error initializing an internal MFX session",
        NoDevice,
        "the Media SDK runtime finds no device",
        MEDIA_SDK,
    ),
    rule(
        "Error initializing an MFX session",
        NoDevice,
        "the Media SDK runtime finds no device",
        MEDIA_SDK,
    ),
    rule("Error creating a MFX session", NoDevice, "the oneVPL runtime finds no device", ONEVPL),
    // The dispatcher fell back on a runtime that does not know the device.
    rule(
        "Error setting child device handle",
        NoDevice,
        "the oneVPL runtime finds no device",
        ONEVPL,
    ),
    rule("Error during set display handle", NoDevice, "the oneVPL runtime finds no device", ONEVPL),
    rule("device failed (-17)", Failed, "the device failed", LOG),
    rule(
        "Selected ratecontrol mode is unsupported",
        Unsupported,
        "the device has no constant quality (ICQ)",
        "set low_power = false in [backend.qsv], or use the encoder vaapi",
    ),
    rule(
        "Low power mode is unsupported",
        Unsupported,
        "the device has no low-power encoder",
        "leave low_power out of [backend.qsv]",
    ),
    rule(
        "Current resolution is unsupported",
        Unsupported,
        "the device does not take this size",
        SIZE,
    ),
    rule(
        "not supported by the QSV runtime",
        Unsupported,
        "the device does not take these parameters",
        PARAMETERS,
    ),
    rule(
        "invalid video parameters (-15)",
        Unsupported,
        "the device does not take these parameters",
        PARAMETERS,
    ),
    rule("unsupported (-3)", Unsupported, "the device does not take these parameters", PARAMETERS),
    rule(
        "failed to resolve symbol 'va",
        DriverTooOld,
        "libva is too old for this FFmpeg",
        "install libva 2.21 or later, or set ENCODER_FFMPEG to the FFmpeg of this system",
    ),
    // VA-API, which is below Quick Sync too.
    rule(
        "Cannot open a VA display from DRM device",
        NoDevice,
        "the device is no GPU for VA-API",
        VA,
    ),
    rule("No VA display found", NoDevice, "there is no VA-API driver for the device", VA),
    rule(
        "Failed to initialise VAAPI connection",
        NoDevice,
        "there is no VA-API driver for the device",
        VA,
    ),
    rule(
        "No usable encoding profile found",
        NoDevice,
        "the device, or its driver, has no H.264 encoder",
        "use a driver with H.264 (Fedora and openSUSE: mesa-va-drivers of RPM Fusion or Packman); \
         check with vainfo: VAProfileH264High with VAEntrypointEncSlice",
    ),
    rule(
        "No usable encoding entrypoint found",
        NoDevice,
        "the device has no H.264 encoder of this kind",
        "set or unset low_power in [backend.vaapi]; check with vainfo: VAEntrypointEncSlice, and \
         VAEntrypointEncSliceLP for low power",
    ),
    rule(
        "(supported modes:",
        Unsupported,
        "the driver does not have this rate control",
        "set rc_mode = \"cqp\" in [backend.vaapi]",
    ),
    rule(
        "does not support encoding at size",
        Unsupported,
        "the device does not take this size",
        SIZE,
    ),
    rule("picture encode issue", Failed, "the device failed", LOG),
    rule("Failed to sync to picture completion", Failed, "the device failed", LOG),
    rule("Device creation failed", NoDevice, "the device cannot be opened", VA),
    // VideoToolbox.
    rule(
        "qscale not available for encoder",
        NotBuilt,
        "this FFmpeg is built for Intel Macs",
        "install an FFmpeg for Apple silicon (arm64), or set ENCODER_FFMPEG to one",
    ),
    rule("-12903", Busy, "the hardware encoder is busy or does not take this size", LATER),
    rule("-12908", Unsupported, "the hardware encoder does not take these parameters", SIZE),
    rule(
        "hardware encoder may be busy",
        Busy,
        "the hardware encoder is busy or not supported",
        LATER,
    ),
    rule("cannot create compression session", Failed, "VideoToolbox does not open", REPORT),
    // Sizes.
    rule("Decode error rate", Failed, "too many errors", REPORT),
    rule(" exceeds ", Unsupported, "the picture is too large for this device", SIZE),
    rule("not divisible by 2", Unsupported, "odd sizes are not taken", SIZE),
    // The sum of all that a device can lack, only when nothing above said what.
    rule(
        "No capable devices found",
        NoDevice,
        "no GPU can do this encode",
        "use a GPU with NVENC, or another encoder",
    ),
    rule("Cannot allocate memory", Busy, "memory or sessions are used up", LATER),
];

/// Puts a name to a failure of FFmpeg: from its `stderr` text, and from how it ended where the
/// text says nothing. A pure function.
pub fn classify(encoder: EncoderType, stderr: &str, exit: Exit) -> Refusal {
    for rule in RULES {
        let Some(line) = stderr.lines().find(|line| line.contains(rule.needle)) else { continue };
        let reason = format!("{}: {}", rule.meaning, without_marks(line));
        let refusal = Refusal::new(encoder, rule.kind, reason, rule.hint);
        return if rule.kind == Busy { refusal.transient() } else { refusal };
    }
    let words = words(stderr);
    let said = if words.is_empty() { "without a word".into() } else { format!("saying: {words}") };
    match exit {
        Exit::TimedOut(_) => Refusal::new(
            encoder,
            RefusalKind::Timeout,
            format!("FFmpeg gave {exit}, {said}"),
            "check the driver (a hung device needs a restart); try again when the machine is idle",
        )
        .transient(),
        Exit::Signal(_) => Refusal::new(
            encoder,
            Failed,
            format!("FFmpeg was ended by {exit}, {said}"),
            "update FFmpeg and the driver",
        ),
        _ => Refusal::new(
            encoder,
            Failed,
            format!("FFmpeg ended with {exit}, {said}"),
            "run FFmpeg by hand with this encoder to see more",
        ),
    }
}

/// The refusal of an encoder that FFmpeg was built without.
pub fn not_listed(id: EncoderType, ffmpeg: &Ffmpeg, encoder: &str) -> Refusal {
    Refusal::new(
        id,
        NotBuilt,
        format!("{} at {} was built without {encoder}", ffmpeg.label(), ffmpeg.path.display()),
        "install an FFmpeg that has it, or set ENCODER_FFMPEG to one",
    )
}

/// The line without `[encoder]` and `[error]` in front.
fn without_marks(mut line: &str) -> &str {
    while let Some((_, rest)) = line.strip_prefix('[').and_then(|l| l.split_once("] ")) {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use RefusalKind::Timeout;

    #[test]
    fn the_table() {
        // stderr | kind | transient
        let table: &[(&str, RefusalKind, bool)] = &[
            ("[h264_nvenc] [error] Cannot load libcuda.so.1", Missing, false),
            (
                "Cannot load libnvidia-encode.so.1\nThe minimum required Nvidia driver for nvenc is 470.57.02 or newer",
                Missing,
                false,
            ),
            (
                "cuInit(0) failed -> CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected",
                NoDevice,
                false,
            ),
            ("No CUDA capable devices found", NoDevice, false),
            (
                "cuCtxCreate failed -> CUDA_ERROR_DEVICE_UNAVAILABLE\nNo capable devices found",
                Busy,
                true,
            ),
            (
                "cuCtxCreate failed -> CUDA_ERROR_OUT_OF_MEMORY: out of memory\nNo capable devices found",
                Busy,
                true,
            ),
            ("cuInit(0) failed -> CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: x", Failed, false),
            ("cuInit(0) failed -> CUDA_ERROR_UNKNOWN: unknown error", Failed, false),
            (
                "OpenEncodeSessionEx failed: unsupported device (2): (no details)\nNo capable devices found",
                NoDevice,
                false,
            ),
            (
                "OpenEncodeSessionEx failed: out of memory (10): (no details)\nNo capable devices found",
                Busy,
                true,
            ),
            (
                "OpenEncodeSessionEx failed: incompatible client key (21): (no details)\nNo capable devices found",
                Busy,
                true,
            ),
            (
                "Driver does not support the required nvenc API version. Required: 13.1 Found: 12.2\nThe minimum required Nvidia driver for nvenc is 610.00 or newer",
                DriverTooOld,
                false,
            ),
            (
                "Failed to create nvenc instance: invalid version (15): (no details)",
                DriverTooOld,
                false,
            ),
            ("Cannot load cuCtxSynchronize", DriverTooOld, false),
            (
                "Cannot get the preset configuration: unsupported param (12): (no details)",
                Unsupported,
                false,
            ),
            (
                "InitializeEncoder failed: invalid param (8): Frame Dimension less than the minimum supported value.",
                Unsupported,
                false,
            ),
            ("Width 640 exceeds 512\nNo capable devices found", Unsupported, false),
            ("[error] Decode error rate 1 exceeds maximum 0.666667", Failed, false),
            ("No capable devices found", NoDevice, false),
            ("CreateInputBuffer failed: out of memory (10): (no details)", Busy, true),
            ("EncodePicture failed!: generic error (20): (no details)", Failed, false),
            ("EncodePicture failed!: device does not exist (5): (no details)", Failed, false),
            ("Failed locking bitstream buffer: device does not exist (5)", Failed, false),
            ("EncodePicture failed!: encoder busy (18): (no details)", Busy, true),
            (
                "[h264_qsv] [error] Error initializing an internal MFX session: unsupported (-3)",
                NoDevice,
                false,
            ),
            ("[AVHWDeviceContext] [error] Error initializing an MFX session: -3.", NoDevice, false),
            ("[h264_qsv] [error] Error creating a MFX session: -9.", NoDevice, false),
            ("[QSV] [error] Error setting child device handle: -17", NoDevice, false),
            ("[h264_qsv] [error] Error during set display handle", NoDevice, false),
            (
                "[h264_qsv] [error] Selected ratecontrol mode is unsupported\n[h264_qsv] [error] some encoding parameters are not supported by the QSV runtime. Please double check the input parameters.",
                Unsupported,
                false,
            ),
            ("[h264_qsv] [error] Low power mode is unsupported", Unsupported, false),
            ("[h264_qsv] [error] Current resolution is unsupported", Unsupported, false),
            ("some encoding parameters are not supported by the QSV runtime.", Unsupported, false),
            ("Error initializing the encoder: invalid video parameters (-15)", Unsupported, false),
            ("Error initializing the encoder: unsupported (-3)", Unsupported, false),
            ("Error during encoding: device failed (-17)", Failed, false),
            // As FFmpeg 5.1 and 9.0 say it for a node that is not there, and for one that is none.
            (
                "[VAAPI] [verbose] Failed to open /dev/dri/renderD128 as DRM device node.\n[VAAPI] [verbose] Cannot open X11 display /dev/dri/renderD128.\n[VAAPI] [error] No VA display found for device /dev/dri/renderD128.\n[error] Device creation failed: -22.\n[error] Failed to set value 'vaapi=va:/dev/dri/renderD128' for option 'init_hw_device': Invalid argument",
                NoDevice,
                false,
            ),
            (
                "[AVHWDeviceContext] [verbose] Cannot open a VA display from DRM device /dev/null.\n[error] Device creation failed: -542398533.",
                NoDevice,
                false,
            ),
            (
                "[VAAPI] [error] Failed to initialise VAAPI connection: -1 (unknown libva error).\n[error] Device creation failed: -5.",
                NoDevice,
                false,
            ),
            ("[h264_vaapi] [error] No usable encoding profile found.", NoDevice, false),
            (
                "implib-gen: libva.so.2: failed to resolve symbol 'vaMapBuffer2' via dlsym: /lib/x86_64-linux-gnu/libva.so.2: undefined symbol: vaMapBuffer2",
                DriverTooOld,
                false,
            ),
            (
                "[h264_vaapi] [error] No usable encoding entrypoint found for profile VAProfileH264High (7).",
                NoDevice,
                false,
            ),
            (
                "[h264_vaapi] [error] Driver does not support ICQ RC mode (supported modes: CQP, CBR, VBR).",
                Unsupported,
                false,
            ),
            (
                "[h264_vaapi] [error] Hardware does not support encoding at size 640x360 (constraints: width 1280-4096 height 720-4096).",
                Unsupported,
                false,
            ),
            (
                "[h264_vaapi] [error] Failed to end picture encode issue: 24 (internal encoding error).",
                Failed,
                false,
            ),
            ("[error] Device creation failed: -22.", NoDevice, false),
            (
                "Cannot open DRM render node for device 0\nFailed to open /dev/dri/renderD128: Permission denied",
                Permission,
                false,
            ),
            (
                "Error: -q:v qscale not available for encoder. Use -b:v bitrate instead.",
                NotBuilt,
                false,
            ),
            (
                "Error: cannot create compression session: -12903\nTry -allow_sw 1. The hardware encoder may be busy, or not supported.",
                Busy,
                true,
            ),
            ("Error: cannot create compression session: -12908", Unsupported, false),
            ("[error] Unknown encoder 'h264_nvenc'", NotBuilt, false),
            (
                "Unrecognized option 'vsync'.\nError splitting the argument list: Option not found",
                Failed,
                false,
            ),
            (
                "Codec AVOption cq (x) has not been used for any stream. The most likely reason",
                Failed,
                false,
            ),
            ("width not divisible by 2 (641x480)", Unsupported, false),
            ("Error: Cannot allocate memory", Busy, true),
            ("something new", Failed, false),
            ("", Failed, false),
        ];
        for (stderr, kind, transient) in table {
            let refusal = classify(EncoderType::NVENC, stderr, Exit::Code(1));
            assert_eq!((refusal.kind, refusal.transient), (*kind, *transient), "{refusal}");
            assert!(!refusal.hint.is_empty());
            // The user sees FFmpeg's own words too.
            let said = stderr.lines().any(|line| refusal.reason.contains(without_marks(line)));
            assert!(said || stderr.is_empty(), "{refusal}");
        }
    }

    #[test]
    fn the_runtime_that_this_ffmpeg_wants_is_named() {
        for (stderr, package) in [
            ("Error initializing an internal MFX session: unsupported (-3)", "libmfx1"),
            ("Error creating a MFX session: -9.", "libmfx-gen1.2"),
            ("No VA display found for device /dev/dri/renderD128.", "mesa-va-drivers"),
        ] {
            let refusal = classify(EncoderType::QSV, stderr, Exit::Code(1));
            assert!(refusal.hint.contains(package), "{refusal}");
        }
    }

    #[test]
    fn silence_is_told_by_the_exit() {
        let of = |exit| classify(EncoderType::QSV, "", exit);
        assert!(of(Exit::Signal(11)).reason.contains("segmentation fault"));
        assert!(of(Exit::Code(134)).reason.contains("exit status 134, without a word"));
        let late = of(Exit::TimedOut(Duration::from_secs(10)));
        assert_eq!((late.kind, late.transient), (Timeout, true));
        assert!(late.reason.contains("no answer in 10 s"));
        // What was said before the silence counts more.
        let said = classify(EncoderType::NVENC, "Cannot load libcuda.so.1", Exit::Signal(9));
        assert_eq!(said.kind, Missing);
        assert_eq!(said.reason, "the NVIDIA driver is not installed: Cannot load libcuda.so.1");
        assert_eq!(without_marks("[h264_nvenc] [error] [x"), "[x");
    }
}
