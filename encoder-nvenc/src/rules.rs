//! The meaning of lines of FFmpeg's log for `h264_nvenc`.

use encoder_core::RefusalKind::{Busy, DriverTooOld, Failed, Missing, NoDevice, Unsupported};
use encoder_ffmpeg::{
    Rule,
    hints::{LATER, LOG, SIZE},
};

const DRIVER: &str = "install the NVIDIA driver; in a container run with --gpus all (NVIDIA \
                      Container Toolkit)";
const VIDEO: &str = "install the driver's encode library (package libnvidia-encode); in a \
                     container set NVIDIA_DRIVER_CAPABILITIES=all, or video,compute,utility";
const UPDATE: &str = "update the NVIDIA driver, or use an FFmpeg that was built for this one";
const STUB: &str = "take the folder of the CUDA toolkit's stubs (such as /usr/local/cuda/lib64/stubs) \
                    out of LD_LIBRARY_PATH and /etc/ld.so.conf.d: they are for linking only; \
                    ldconfig -p | grep libcuda lists what the loader finds";
const COMPAT: &str = "take the folder /usr/local/cuda/compat out of LD_LIBRARY_PATH, or remove the \
                      package cuda-compat: it works on data-centre GPUs only, and the driver has a \
                      libcuda of its own";
const ECC: &str = "reset the GPU (sudo nvidia-smi --gpu-reset) or restart the machine; \
                   nvidia-smi -q -d ECC,ROW_REMAPPER shows the errors: if they return, the GPU is \
                   faulty";
const UNKNOWN: &str = "load nvidia_uvm again (sudo modprobe -r nvidia_uvm && sudo modprobe \
                       nvidia_uvm), which helps after a suspend; in a container start it again \
                       with --gpus all, which passes /dev/nvidia-uvm too; or restart the machine";
const RESTART: &str = "restart the machine; look at the system log (dmesg) for messages with Xid";
const B_FRAMES: &str = "set b_frames = 0 in [encoder], or the most that the message names; or use \
                        another encoder";

/// Causes come before their consequences.
pub(crate) const RULES: &[Rule] = &[
    // Libraries and drivers.
    Rule::new("Cannot load libcuda.so.1", Missing, "FFmpeg finds no NVIDIA driver", DRIVER),
    Rule::new("Cannot load nvcuda.dll", Missing, "FFmpeg finds no NVIDIA driver", DRIVER),
    Rule::new(
        "Cannot load libnvidia-encode.so.1",
        Missing,
        "FFmpeg does not find the driver's encode library",
        VIDEO,
    ),
    Rule::new(
        "Cannot load nvEncodeAPI",
        Missing,
        "FFmpeg does not find the driver's encode library",
        VIDEO,
    ),
    Rule::new("Cannot load cu", DriverTooOld, "the NVIDIA driver lacks a function", UPDATE),
    Rule::new(
        "does not support the required nvenc API version",
        DriverTooOld,
        "the NVIDIA driver is too old for this FFmpeg",
        UPDATE,
    ),
    Rule::new(
        "invalid version (15)",
        DriverTooOld,
        "the NVIDIA driver is too old for this FFmpeg",
        UPDATE,
    ),
    Rule::new(
        "CUDA_ERROR_STUB_LIBRARY",
        Failed,
        "FFmpeg loads a stub of libcuda in place of the driver's",
        STUB,
    ),
    Rule::new(
        "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        Failed,
        "FFmpeg loads the libcuda of another driver (CUDA compatibility), which this GPU does not \
         support",
        COMPAT,
    ),
    Rule::new(
        "CUDA_ERROR_SYSTEM_NOT_READY",
        Failed,
        "the connection between the GPUs is not ready",
        "start the fabric manager (sudo systemctl start nvidia-fabricmanager), of the driver's \
         version",
    ),
    Rule::new(
        "CUDA_ERROR_ECC_UNCORRECTABLE",
        Failed,
        "the GPU's memory has an error that cannot be corrected (ECC)",
        ECC,
    ),
    Rule::new("CUDA_ERROR_UNKNOWN", Failed, "CUDA does not start", UNKNOWN),
    Rule::new("CUDA_ERROR_ILLEGAL_ADDRESS", Failed, "the GPU's driver failed", RESTART),
    Rule::new("CUDA_ERROR_LAUNCH_FAILED", Failed, "the GPU's driver failed", RESTART),
    Rule::new("CUDA_ERROR_NO_DEVICE", NoDevice, "there is no NVIDIA GPU", DRIVER),
    Rule::new("No CUDA capable devices found", NoDevice, "there is no NVIDIA GPU", DRIVER),
    Rule::new(
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        Failed,
        "the NVIDIA driver's parts are of different versions",
        "restart the machine after a driver update; in a container use the host's version",
    ),
    Rule::new("CUDA_ERROR_DEVICE_UNAVAILABLE", Busy, "the GPU is taken by another program", LATER),
    Rule::new("CUDA_ERROR_OUT_OF_MEMORY", Busy, "the GPU's memory is full", LATER),
    Rule::new("cuInit(0) failed", Failed, "CUDA does not start", "check that nvidia-smi works")
        .and(" -> "),
    // A stub library has no names of errors.
    Rule::new(
        "cuInit(0) failed",
        Failed,
        "CUDA does not start and does not name the error, as a stub of libcuda does",
        STUB,
    ),
    // Sessions and capabilities.
    Rule::new(
        "unsupported device (2)",
        NoDevice,
        "this GPU has no video encoder, or the container does not see all GPUs that it was given",
        "use a GPU with NVENC (T4, L4, L40S, A10, RTX; not A100, H100, H200), or another encoder",
    ),
    Rule::new(
        "OpenEncodeSessionEx failed: out of memory (10)",
        Busy,
        "all encode sessions are in use",
        LATER,
    ),
    Rule::new("incompatible client key (21)", Busy, "all encode sessions are in use", LATER),
    Rule::new("out of memory (10)", Busy, "the GPU's memory is full", LATER),
    Rule::new("encoder busy (18)", Busy, "the GPU's encoder is busy", LATER),
    Rule::new(
        "Dimension less than the minimum",
        Unsupported,
        "the picture is too small for this device",
        SIZE,
    ),
    Rule::new(
        "Cannot get the preset configuration",
        Unsupported,
        "the device does not take the preset",
        "use another preset",
    ),
    // Old versions of FFmpeg report missing capabilities as verbose.
    Rule::new("Max B-frames ", Unsupported, "the GPU cannot encode that many B-frames", B_FRAMES)
        .and(" exceed ")
        .at_any_level(),
    Rule::new(
        "Lossless encoding not supported",
        Unsupported,
        "the GPU has no lossless encoding",
        "set nvenc_tune = \"hq\" in [gpu], or use another encoder",
    )
    .at_any_level(),
    Rule::new(
        "RC lookahead not supported",
        Unsupported,
        "the GPU has no look-ahead",
        "set rc_lookahead = 0 in [backend.nvenc], or use another encoder",
    )
    .at_any_level(),
    Rule::new(
        "Temporal AQ not supported",
        Unsupported,
        "the GPU has no temporal adaptive quantisation",
        "set temporal_aq = false in [backend.nvenc], or use another encoder",
    )
    .at_any_level(),
    Rule::new("device does not exist (5)", Failed, "the GPU was lost", LOG),
    Rule::new("EncodePicture failed", Failed, "the GPU's encoder failed", LOG),
    Rule::new("Failed locking bitstream buffer", Failed, "the GPU's encoder failed", LOG),
    Rule::new("Width ", Unsupported, "the picture is too large for this device", SIZE)
        .and(" exceeds ")
        .at_any_level()
        .as_last_resort(),
    Rule::new("Height ", Unsupported, "the picture is too large for this device", SIZE)
        .and(" exceeds ")
        .at_any_level()
        .as_last_resort(),
    // FFmpeg's summary of all missing capabilities.
    Rule::new(
        "No capable devices found",
        NoDevice,
        "no GPU can do this encode",
        "use a GPU with NVENC, or another encoder",
    )
    .as_last_resort(),
];

#[cfg(test)]
mod tests {
    use encoder_core::{EncoderType, RefusalKind};
    use encoder_ffmpeg::{Exit, classify};

    use super::*;

    #[test]
    fn causes_of_logs() {
        // stderr | kind | transient | a part of the reason
        let table: &[(&str, RefusalKind, bool, &str)] = &[
            ("[h264_nvenc] [error] Cannot load libcuda.so.1", Missing, false, "finds no NVIDIA"),
            (
                "Cannot load libnvidia-encode.so.1\n\
                 The minimum required Nvidia driver for nvenc is 470.57.02 or newer",
                Missing,
                false,
                "encode library",
            ),
            (
                "cuInit(0) failed -> CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected",
                NoDevice,
                false,
                "no NVIDIA GPU",
            ),
            ("No CUDA capable devices found", NoDevice, false, "no NVIDIA GPU"),
            (
                "cuCtxCreate failed -> CUDA_ERROR_DEVICE_UNAVAILABLE\nNo capable devices found",
                Busy,
                true,
                "another program",
            ),
            (
                "cuCtxCreate failed -> CUDA_ERROR_OUT_OF_MEMORY: out of memory\n\
                 No capable devices found",
                Busy,
                true,
                "memory is full",
            ),
            ("cuInit(0) failed -> CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: x", Failed, false, "versions"),
            ("cuInit(0) failed -> CUDA_ERROR_UNKNOWN: unknown error", Failed, false, "not start"),
            (
                "OpenEncodeSessionEx failed: unsupported device (2): (no details)\n\
                 No capable devices found",
                NoDevice,
                false,
                "no video encoder",
            ),
            (
                "OpenEncodeSessionEx failed: out of memory (10): (no details)\n\
                 No capable devices found",
                Busy,
                true,
                "sessions are in use",
            ),
            (
                "OpenEncodeSessionEx failed: incompatible client key (21): (no details)\n\
                 No capable devices found",
                Busy,
                true,
                "sessions are in use",
            ),
            (
                "Driver does not support the required nvenc API version. Required: 13.1 Found: \
                 12.2\nThe minimum required Nvidia driver for nvenc is 610.00 or newer",
                DriverTooOld,
                false,
                "Required: 13.1 Found: 12.2",
            ),
            (
                "Failed to create nvenc instance: invalid version (15): (no details)",
                DriverTooOld,
                false,
                "too old",
            ),
            ("Cannot load cuCtxSynchronize", DriverTooOld, false, "lacks a function"),
            (
                "Cannot get the preset configuration: unsupported param (12): (no details)",
                Unsupported,
                false,
                "preset",
            ),
            (
                "InitializeEncoder failed: invalid param (8): Frame Dimension less than the \
                 minimum supported value.",
                Unsupported,
                false,
                "too small",
            ),
            ("Width 640 exceeds 512\nNo capable devices found", Unsupported, false, "too large"),
            // As FFmpeg 4 reports it.
            (
                "[h264_nvenc] [verbose] Height 9000 exceeds 4096\n\
                 [h264_nvenc] [fatal] No capable devices found",
                Unsupported,
                false,
                "too large",
            ),
            ("[error] Decode error rate 1 exceeds maximum 0.666667", Failed, false, "many errors"),
            ("No capable devices found", NoDevice, false, "no GPU can"),
            ("CreateInputBuffer failed: out of memory (10): (no details)", Busy, true, "memory"),
            ("EncodePicture failed!: generic error (20): (no details)", Failed, false, "encoder"),
            (
                "EncodePicture failed!: device does not exist (5): (no details)",
                Failed,
                false,
                "the GPU was lost",
            ),
            (
                "Failed locking bitstream buffer: device does not exist (5)",
                Failed,
                false,
                "the GPU was lost",
            ),
            ("EncodePicture failed!: encoder busy (18): (no details)", Busy, true, "is busy"),
            // Attempts that FFmpeg reports before it continues.
            (
                "[h264_nvenc] [verbose] Cannot load libcuda.so.1\n[error] something new",
                Failed,
                false,
                "something new",
            ),
        ];
        for (stderr, kind, transient, reason) in table {
            let refusal = classify(EncoderType::NVENC, &[RULES], stderr, Exit::Code(1));
            assert_eq!((refusal.kind, refusal.transient), (*kind, *transient), "{refusal}");
            assert!(refusal.reason.contains(reason), "{refusal}");
            assert!(!refusal.hint.is_empty());
        }
    }

    #[test]
    fn the_log_decides_before_the_exit() {
        let line = "[h264_nvenc] [error] Cannot load libcuda.so.1";
        let refusal = classify(EncoderType::NVENC, &[RULES], line, Exit::Signal(9));
        assert_eq!(refusal.kind, Missing);
        assert_eq!(refusal.reason, "FFmpeg finds no NVIDIA driver: Cannot load libcuda.so.1");
    }

    #[test]
    fn causes_with_hints_of_their_own() {
        let cu_init = |error: &str| format!("[h264_nvenc] [error] cuInit(0) failed -> {error}: x");
        let b_frames = "[h264_nvenc] [warning] Max B-frames 2 exceed 0\n\
                        [h264_nvenc] [fatal] No capable devices found";
        // stderr | kind | a part of the reason | a part of the hint
        let table: &[(String, RefusalKind, &str, &str)] = &[
            (cu_init("CUDA_ERROR_STUB_LIBRARY"), Failed, "a stub of libcuda", "lib64/stubs"),
            ("[error] dl_fn->cuda_dl->cuInit(0) failed".into(), Failed, "a stub of", "lib64/stubs"),
            (
                cu_init("CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"),
                Failed,
                "CUDA compatibility",
                "/usr/local/cuda/compat",
            ),
            (cu_init("CUDA_ERROR_SYSTEM_NOT_READY"), Failed, "not ready", "fabricmanager"),
            (
                "[h264_nvenc] [error] cuCtxCreate failed -> CUDA_ERROR_ECC_UNCORRECTABLE: \
                 uncorrectable ECC error encountered\n\
                 [h264_nvenc] [fatal] No capable devices found"
                    .into(),
                Failed,
                "cannot be corrected",
                "--gpu-reset",
            ),
            (cu_init("CUDA_ERROR_UNKNOWN"), Failed, "CUDA does not start", "nvidia_uvm"),
            (cu_init("CUDA_ERROR_LAUNCH_FAILED"), Failed, "driver failed", "Xid"),
            (cu_init("CUDA_ERROR_SOMETHING"), Failed, "CUDA does not start", "nvidia-smi"),
            (b_frames.into(), Unsupported, "that many B-frames", "b_frames = 0"),
            // As FFmpeg 4 reports it.
            (
                b_frames.replace("warning", "verbose"),
                Unsupported,
                "Max B-frames 2 exceed 0",
                "b_frames = 0",
            ),
            (
                "[verbose] Lossless encoding not supported\n[error] No capable devices found"
                    .into(),
                Unsupported,
                "no lossless",
                "nvenc_tune = \"hq\"",
            ),
            (
                "[verbose] RC lookahead not supported\n[error] No capable devices found".into(),
                Unsupported,
                "no look-ahead",
                "rc_lookahead = 0",
            ),
            (
                "[verbose] Temporal AQ not supported\n[error] No capable devices found".into(),
                Unsupported,
                "temporal",
                "temporal_aq = false",
            ),
        ];
        for (stderr, kind, reason, hint) in table {
            let refusal = classify(EncoderType::NVENC, &[RULES], stderr, Exit::Code(1));
            assert_eq!((refusal.kind, refusal.transient), (*kind, false), "{refusal}");
            assert!(refusal.reason.contains(reason), "{refusal}");
            assert!(refusal.hint.contains(hint), "{refusal}");
        }
    }
}
