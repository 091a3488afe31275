//! x264 in an FFmpeg child.

use encoder_core::{ConfigError, EncoderConfig, EncoderType, RefusalKind};
use encoder_ffmpeg::{EQUAL_QUANTISERS, FfmpegSpec, Rule, bit_rate, hints::SIZE};

use crate::{Plan, Rate, X264Options};

/// The meaning of lines of FFmpeg's log for `libx264`.
const RULES: &[Rule] =
    &[Rule::new("not divisible by 2", RefusalKind::Unsupported, "odd sizes are not taken", SIZE)];

/// The spec for FFmpeg's libx264.
///
/// # Errors
/// [`ConfigError`] where `config` and `options` do not fit together.
pub fn spec(
    config: &EncoderConfig,
    options: &X264Options,
    threads: usize,
) -> Result<FfmpegSpec, ConfigError> {
    Ok(spec_of(&Plan::new(config, options, threads)?, config))
}

pub(crate) fn spec_of(plan: &Plan, config: &EncoderConfig) -> FfmpegSpec {
    let Plan { preset, tune, rate, gop_size, b_frames, threads, lookahead } = *plan;
    let rate = match rate {
        Rate::Crf(crf) => format!("-crf {crf}"),
        Rate::Cqp(qp) => format!("-qp {qp} {EQUAL_QUANTISERS}"),
        Rate::Abr(kbps, max_kbps) => bit_rate(kbps, max_kbps),
    };
    let tune = tune.map_or(String::new(), |tune| format!("-tune {}", tune.as_str()));
    let mut spec = FfmpegSpec::new(EncoderType::X264, "libx264", config)
        .with_options(&format!(
            "-preset {preset} {tune} {rate} -g {gop_size} -keyint_min {gop_size} \
             -sc_threshold 0 -bf {b_frames} -rc-lookahead {lookahead} -forced-idr 1 \
             -threads {threads}"
        ))
        .with_rules(RULES);
    spec.max_delay = plan.max_delay();
    spec
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use encoder_core::{Preset, RateControl};
    use encoder_ffmpeg::{Exit, classify};

    use super::*;

    #[test]
    fn odd_sizes_are_refused_by_name() {
        let line = "[libx264] [error] width not divisible by 2 (641x480)";
        let refusal = classify(EncoderType::X264, &[RULES], line, Exit::Code(1));
        assert_eq!(refusal.kind, RefusalKind::Unsupported, "{refusal}");
        assert!(refusal.reason.contains("641x480"), "{refusal}");
    }

    #[test]
    fn rate_controls() {
        for (rate_control, expected) in [
            (RateControl::Crf(9), "-crf 9"),
            (
                RateControl::ConstantQp(30),
                "-qp 30 -i_qfactor 1 -i_qoffset 0 -b_qfactor 1 -b_qoffset 0",
            ),
            (RateControl::bitrate(900), "-b:v 900k"),
            (RateControl::bitrate_with_max(900, 1000), "-b:v 900k -maxrate 1000k -bufsize 1000k"),
        ] {
            let config = EncoderConfig { rate_control, ..Default::default() };
            let spec = spec(&config, &X264Options::default(), 1).unwrap();
            let expected = format!("-preset veryfast {expected} -g 30");
            assert!(spec.options.join(" ").starts_with(&expected), "{:?}", spec.options);
        }
    }

    #[test]
    fn argument_lists() {
        let table = [
            (
                "",
                Preset::Veryfast,
                0,
                2,
                16,
                "-preset veryfast -crf 23 -g 30 -keyint_min 30 -sc_threshold 0 -bf 0 \
              -rc-lookahead 10 -forced-idr 1 -threads 2",
            ),
            (
                "tune = \"grain\"",
                Preset::Medium,
                2,
                4,
                50,
                "-preset medium -tune grain -crf 23 -g 30 -keyint_min 30 -sc_threshold 0 -bf 2 \
              -rc-lookahead 40 -forced-idr 1 -threads 4",
            ),
            (
                "tune = \"zerolatency\"",
                Preset::Veryslow,
                0,
                1,
                5,
                "-preset veryslow -tune zerolatency -crf 23 -g 30 -keyint_min 30 -sc_threshold 0 \
              -bf 0 -rc-lookahead 0 -forced-idr 1 -threads 1",
            ),
        ];
        for (options, preset, b_frames, threads, delay, expected) in table {
            let options = X264Options::read(&options.parse().unwrap()).unwrap();
            let config = EncoderConfig { preset, b_frames, ..Default::default() };
            let spec = spec(&config, &options, threads).unwrap();
            assert_eq!(spec.options.join(" "), expected);
            assert_eq!((spec.encoder, spec.max_delay, spec.gop_size), ("libx264", delay, 30));
        }
    }
}
