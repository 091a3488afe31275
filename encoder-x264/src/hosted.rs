//! x264 in an FFmpeg child.

#[cfg(not(feature = "native"))]
use std::time::Duration;

use encoder_core::{ConfigError, EncoderConfig, EncoderType, Preset};
#[cfg(not(feature = "native"))]
use encoder_core::{Refusal, RefusalKind, Verdict};
use encoder_ffmpeg::Job;

use crate::{Plan, Tune, X264Options};

/// The job for FFmpeg's libx264.
///
/// # Errors
/// [`ConfigError`] where `config` and `options` do not fit together.
pub fn job(
    config: &EncoderConfig,
    options: &X264Options,
    threads: usize,
) -> Result<Job, ConfigError> {
    Ok(job_of(&Plan::new(config, options, threads)?, config))
}

pub(crate) fn job_of(plan: &Plan, config: &EncoderConfig) -> Job {
    let Plan { preset, tune, crf, gop_size, b_frames, threads, lookahead } = *plan;
    let tune_words = tune.map_or(String::new(), |tune| format!("-tune {}", tune.as_str()));
    let mut job = Job::new(EncoderType::X264, "libx264", config).with_options(&format!(
        "-preset {preset} {tune_words} -crf {crf} -g {gop_size} -keyint_min {gop_size} \
         -sc_threshold 0 -bf {b_frames} -rc-lookahead {lookahead} -forced-idr 1 \
         -threads {threads}"
    ));
    job.max_delay = max_delay(plan);
    job
}

/// The most frames that x264 in FFmpeg keeps: what x264 decides on together, one per other
/// thread, those between its threads, and a few in FFmpeg's own queues.
fn max_delay(plan: &Plan) -> usize {
    const QUEUES: usize = 4;
    let b_frames = usize::from(plan.b_frames);
    let decided = match (plan.tune, plan.preset >= Preset::Slow) {
        (Some(Tune::Zerolatency), _) => 0,
        // The slow presets try arrangements of B-frames over a longer stretch.
        (_, true) => (b_frames.max(3) * 4).max(plan.lookahead as usize),
        (_, false) => b_frames.max(plan.lookahead as usize),
    };
    decided + (plan.threads - 1) + (b_frames + 1) + QUEUES
}

#[cfg(not(feature = "native"))]
pub(crate) fn probe(deadline: Duration) -> Verdict {
    let verdict = job(&EncoderConfig::default(), &X264Options::default(), 2)
        .map(|job| encoder_ffmpeg::test_encode(&job, deadline));
    match verdict {
        Ok(verdict) => verdict,
        Err(error) => Verdict::Refused(Refusal::new(
            EncoderType::X264,
            RefusalKind::Failed,
            error.to_string(),
            "report it",
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
            let job = job(&config, &options, threads).unwrap();
            assert_eq!(job.options.join(" "), expected);
            assert_eq!((job.encoder, job.max_delay, job.gop_size), ("libx264", delay, 30));
        }
    }
}
