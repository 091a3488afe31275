//! The meaning of lines of FFmpeg's log for `h264_videotoolbox`.

use encoder_core::RefusalKind::{Busy, Failed, NotBuilt, Unsupported};
use encoder_ffmpeg::{
    Rule,
    hints::{LATER, REPORT, SIZE},
    set_ffmpeg,
};

/// Causes come before their consequences.
pub(crate) const RULES: &[Rule] = &[
    Rule::new(
        "qscale not available for encoder",
        NotBuilt,
        "this FFmpeg is built for Intel Macs",
        concat!("install an FFmpeg for Apple silicon (arm64), or ", set_ffmpeg!("one")),
    ),
    Rule::new("-12903", Busy, "the hardware encoder is busy or does not take this size", LATER),
    Rule::new("-12908", Unsupported, "the hardware encoder does not take these parameters", SIZE),
    Rule::new(
        "hardware encoder may be busy",
        Busy,
        "the hardware encoder is busy or not supported",
        LATER,
    ),
    Rule::new("cannot create compression session", Failed, "VideoToolbox does not open", REPORT),
];

#[cfg(test)]
mod tests {
    use encoder_core::{EncoderType, RefusalKind};
    use encoder_ffmpeg::{Exit, classify};

    use super::*;

    #[test]
    fn causes_of_logs() {
        // stderr | kind | transient
        let table: &[(&str, RefusalKind, bool)] = &[
            (
                "Error: -q:v qscale not available for encoder. Use -b:v bitrate instead.",
                NotBuilt,
                false,
            ),
            (
                "Error: cannot create compression session: -12903\n\
                 Try -allow_sw 1. The hardware encoder may be busy, or not supported.",
                Busy,
                true,
            ),
            ("Error: cannot create compression session: -12908", Unsupported, false),
            ("Error: cannot create compression session: -1", Failed, false),
        ];
        for (stderr, kind, transient) in table {
            let stderr = format!("[h264_videotoolbox] [error] {stderr}");
            let refusal = classify(EncoderType::VIDEOTOOLBOX, &[RULES], &stderr, Exit::Code(1));
            assert_eq!((refusal.kind, refusal.transient), (*kind, *transient), "{refusal}");
            assert!(refusal.reason.contains("Error: "), "{refusal}");
        }
    }
}
