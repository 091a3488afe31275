//! The meaning of lines of FFmpeg's log for `h264_qsv`, after the rules of the render node.

use encoder_core::RefusalKind::{Failed, NoDevice, Unsupported};
use encoder_ffmpeg::{
    Rule,
    hints::{LOG, SIZE},
};

const ONEVPL: &str = "install the Intel media driver (intel-media-va-driver) and the oneVPL \
                      runtime (libmfx-gen1.2), which this FFmpeg is built for; check with vainfo";
const MEDIA_SDK: &str = "install the Intel media driver (intel-media-va-driver) and the Media SDK \
                         runtime (libmfx1), which this FFmpeg is built for, or use an FFmpeg that \
                         is built for oneVPL, as newer devices need; check with vainfo";
const PARAMETERS: &str = "use another size, preset or number of B-frames, or another encoder";

/// The device precedes its parameters, because FFmpeg checks it first.
pub(crate) const RULES: &[Rule] = &[
    Rule::new(
        "Error initializing an internal MFX session",
        NoDevice,
        "the Media SDK runtime finds no device",
        MEDIA_SDK,
    ),
    Rule::new(
        "Error initializing an MFX session",
        NoDevice,
        "the Media SDK runtime finds no device",
        MEDIA_SDK,
    ),
    Rule::new(
        "Error creating a MFX session",
        NoDevice,
        "the oneVPL runtime finds no device",
        ONEVPL,
    ),
    // The dispatcher fell back to a runtime that does not know the device.
    Rule::new(
        "Error setting child device handle",
        NoDevice,
        "the oneVPL runtime finds no device",
        ONEVPL,
    ),
    Rule::new(
        "Error during set display handle",
        NoDevice,
        "the oneVPL runtime finds no device",
        ONEVPL,
    ),
    Rule::new("device failed (-17)", Failed, "the device failed", LOG),
    Rule::new(
        "Selected ratecontrol mode is unsupported",
        Unsupported,
        "the device has no constant quality (ICQ)",
        "set low_power = false in [backend.qsv], or use the encoder vaapi",
    ),
    Rule::new(
        "Low power mode is unsupported",
        Unsupported,
        "the device has no low-power encoder",
        "leave low_power out of [backend.qsv]",
    ),
    Rule::new(
        "Current resolution is unsupported",
        Unsupported,
        "the device does not take this size",
        SIZE,
    ),
    Rule::new(
        "not supported by the QSV runtime",
        Unsupported,
        "the device does not take these parameters",
        PARAMETERS,
    ),
    Rule::new(
        "invalid video parameters (-15)",
        Unsupported,
        "the device does not take these parameters",
        PARAMETERS,
    ),
    Rule::new(
        "unsupported (-3)",
        Unsupported,
        "the device does not take these parameters",
        PARAMETERS,
    ),
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
        // stderr | kind | a part of the reason | a part of the hint
        let table: &[(&str, RefusalKind, &str, &str)] = &[
            (
                "[h264_qsv] [error] Error initializing an internal MFX session: unsupported (-3)",
                NoDevice,
                "Media SDK runtime finds no device",
                "libmfx1",
            ),
            (
                "[AVHWDeviceContext] [error] Error initializing an MFX session: -3.",
                NoDevice,
                "Media SDK runtime finds no device",
                "libmfx1",
            ),
            (
                "[h264_qsv] [error] Error creating a MFX session: -9.",
                NoDevice,
                "oneVPL runtime finds no device",
                "libmfx-gen1.2",
            ),
            (
                "[QSV] [error] Error setting child device handle: -17",
                NoDevice,
                "oneVPL runtime finds no device",
                "libmfx-gen1.2",
            ),
            (
                "[h264_qsv] [error] Error during set display handle",
                NoDevice,
                "oneVPL runtime finds no device",
                "libmfx-gen1.2",
            ),
            (
                "[h264_qsv] [error] Selected ratecontrol mode is unsupported\n\
                 [h264_qsv] [error] some encoding parameters are not supported by the QSV runtime. \
                 Please double check the input parameters.",
                Unsupported,
                "no constant quality",
                "low_power = false",
            ),
            (
                "[h264_qsv] [error] Low power mode is unsupported",
                Unsupported,
                "no low-power encoder",
                "leave low_power out",
            ),
            (
                "[h264_qsv] [error] Current resolution is unsupported",
                Unsupported,
                "does not take this size",
                "another size",
            ),
            (
                "some encoding parameters are not supported by the QSV runtime.",
                Unsupported,
                "does not take these parameters",
                "another size",
            ),
            (
                "Error initializing the encoder: invalid video parameters (-15)",
                Unsupported,
                "does not take these parameters",
                "another size",
            ),
            (
                "Error initializing the encoder: unsupported (-3)",
                Unsupported,
                "does not take these parameters",
                "another size",
            ),
            ("Error during encoding: device failed (-17)", Failed, "the device failed", "dmesg"),
            // The node and the VA-API driver come before the runtime.
            (
                "Cannot open DRM render node for device 0\n\
                 Failed to open /dev/dri/renderD128: Permission denied\n\
                 [h264_qsv] [error] Error creating a MFX session: -9.",
                Permission,
                "may not be opened",
                "--device /dev/dri",
            ),
            (
                "No VA display found for device /dev/dri/renderD128.\n\
                 [error] Device creation failed: -22.",
                NoDevice,
                "no VA-API driver",
                "intel-media-va-driver",
            ),
            (
                "implib-gen: libva.so.2: failed to resolve symbol 'vaMapBuffer2' via dlsym",
                DriverTooOld,
                "libva is too old",
                "libva 2.21",
            ),
            (
                "[AVHWDeviceContext] [verbose] Cannot open a VA display from DRM device /dev/x.\n\
                 [h264_qsv] [error] Error creating a MFX session: -9.",
                NoDevice,
                "oneVPL runtime finds no device",
                "libmfx-gen1.2",
            ),
        ];
        for (stderr, kind, reason, hint) in table {
            let rules = [render::RULES, RULES];
            let refusal = classify(EncoderType::QSV, &rules, stderr, Exit::Code(1));
            assert_eq!((refusal.kind, refusal.transient), (*kind, false), "{refusal}");
            assert!(refusal.reason.contains(reason), "{refusal}");
            assert!(refusal.hint.contains(hint), "{refusal}");
        }
    }
}
