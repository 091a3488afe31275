//! The meaning of lines of FFmpeg's log for `h264_vaapi`, after the rules of the render node.

use encoder_core::RefusalKind::{Failed, NoDevice, Unsupported};
use encoder_ffmpeg::{
    Rule,
    hints::{LOG, SIZE},
};

/// FFmpeg's messages for a device whose normal, or whose low-power encoder is missing or does not
/// work.
pub(crate) const MODE: [&str; 2] =
    ["No usable encoding entrypoint found", "Failed to create encode pipeline configuration"];

/// Causes come before their consequences.
pub(crate) const RULES: &[Rule] = &[
    Rule::new(
        "No usable encoding profile found",
        NoDevice,
        "the device, or its driver, has no H.264 encoder",
        "use a driver with H.264 (Fedora and openSUSE: mesa-va-drivers of RPM Fusion or Packman); \
         check with vainfo: VAProfileH264High with VAEntrypointEncSlice",
    ),
    Rule::new(
        MODE[0],
        NoDevice,
        "the device has no H.264 encoder of this kind",
        "set or unset low_power in [backend.vaapi]; check with vainfo: VAEntrypointEncSlice, and \
         VAEntrypointEncSliceLP for low power",
    ),
    Rule::new(
        MODE[1],
        Failed,
        "the device's encoder of this kind does not work",
        "set or unset low_power in [backend.vaapi]; check with vainfo, and the firmware of the GPU in \
         the system log (dmesg)",
    ),
    Rule::new(
        "(supported modes:",
        Unsupported,
        "the driver does not have this rate control",
        "set rc_mode = \"cqp\" in [backend.vaapi], and crf or qp in place of a bit rate in [encoder]",
    ),
    Rule::new(
        "does not support encoding at size",
        Unsupported,
        "the device does not take this size",
        SIZE,
    ),
    Rule::new("picture encode issue", Failed, "the device failed", LOG),
    Rule::new("Failed to sync to picture completion", Failed, "the device failed", LOG),
];

#[cfg(test)]
mod tests {
    use encoder_core::{
        EncoderType,
        RefusalKind::{self, DriverTooOld, Permission},
    };
    use encoder_ffmpeg::{Exit, classify, render};

    use super::*;

    #[test]
    fn causes_of_logs() {
        // stderr | kind | a part of the reason
        let table: &[(&str, RefusalKind, &str)] = &[
            // As FFmpeg 5.1 and 9.0 report a node that does not exist, and a file that is no node.
            (
                "[VAAPI] [verbose] Failed to open /dev/dri/renderD128 as DRM device node.\n\
                 [VAAPI] [verbose] Cannot open X11 display /dev/dri/renderD128.\n\
                 [VAAPI] [error] No VA display found for device /dev/dri/renderD128.\n\
                 [error] Device creation failed: -22.\n\
                 [error] Failed to set value 'vaapi=va:/dev/dri/renderD128' for option \
                 'init_hw_device': Invalid argument",
                NoDevice,
                "there is no VA-API driver for the device: No VA display found",
            ),
            (
                "[AVHWDeviceContext] [verbose] Cannot open a VA display from DRM device /dev/null.\n\
                 [error] Device creation failed: -542398533.",
                NoDevice,
                "the device is no GPU for VA-API: Cannot open a VA display from DRM device",
            ),
            (
                "[VAAPI] [error] Failed to initialise VAAPI connection: -1 (unknown libva error).\n\
                 [error] Device creation failed: -5.",
                NoDevice,
                "there is no VA-API driver",
            ),
            (
                "[h264_vaapi] [error] No usable encoding profile found.",
                NoDevice,
                "no H.264 encoder",
            ),
            (
                "implib-gen: libva.so.2: failed to resolve symbol 'vaMapBuffer2' via dlsym: \
                 /lib/x86_64-linux-gnu/libva.so.2: undefined symbol: vaMapBuffer2",
                DriverTooOld,
                "libva is too old",
            ),
            (
                "[h264_vaapi] [error] No usable encoding entrypoint found for profile \
                 VAProfileH264High (7).",
                NoDevice,
                "of this kind",
            ),
            (
                "[h264_vaapi] [error] Driver does not support ICQ RC mode (supported modes: CQP, \
                 CBR, VBR).",
                Unsupported,
                "rate control",
            ),
            (
                "[h264_vaapi] [error] Hardware does not support encoding at size 640x360 \
                 (constraints: width 1280-4096 height 720-4096).",
                Unsupported,
                "this size",
            ),
            (
                "[h264_vaapi] [error] Failed to end picture encode issue: 24 (internal encoding \
                 error).",
                Failed,
                "the device failed",
            ),
            ("[error] Device creation failed: -22.", NoDevice, "cannot be opened"),
            (
                "Cannot open DRM render node for device 0\n\
                 Failed to open /dev/dri/renderD128: Permission denied",
                Permission,
                "may not be opened by this user",
            ),
            // Attempts that FFmpeg reports before it continues.
            (
                "[VAAPI] [verbose] Failed to open /dev/dri/renderD128: Permission denied\n\
                 [error] Device creation failed: -22.",
                NoDevice,
                "cannot be opened",
            ),
        ];
        for (stderr, kind, reason) in table {
            let rules = [render::RULES, RULES];
            let refusal = classify(EncoderType::VAAPI, &rules, stderr, Exit::Code(1));
            assert_eq!((refusal.kind, refusal.transient), (*kind, false), "{refusal}");
            assert!(refusal.reason.contains(reason), "{refusal}");
            assert!(!refusal.hint.is_empty());
        }
        let no_display = "No VA display found for device /dev/dri/renderD128.";
        let refusal = classify(EncoderType::VAAPI, &[render::RULES], no_display, Exit::Code(1));
        assert!(refusal.hint.contains("mesa-va-drivers"), "{refusal}");
    }
}
