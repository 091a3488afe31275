//! Probes an encoder: a real encode in a child, decoded by a second child and compared.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use encoder_core::{
    Caps, EncoderConfig, EncoderType, FrameBuffer, FrameLayout, FrameRate, NalKind, OpenError,
    OpenRequest, ProbeResult, Refusal, RefusalKind, Waited, file_identity,
    mean_absolute_difference, nal_units,
};
use tracing::debug;

use crate::{
    args::{FfmpegSpec, arguments},
    classify::{IGNORED_OPTION, classify},
    find::{Ffmpeg, Search, not_listed},
    flv::{AccessUnit, FlvParser},
    options::refusal,
    process::{Input, Output, run_until_stop},
};

const PICTURES: u64 = 5;
/// Each step may take at least this long, even if the steps before have used up the deadline.
const LEAST: Duration = Duration::from_secs(1);
/// The mean error in levels from which pictures count as wrong: encoders at a usable quality stay
/// below it.
const TOLERANCE: f64 = 6.0;

/// An optional ability of a backend, and the spec that probes it.
#[derive(Clone, Debug)]
pub struct Feature {
    /// Its name in [`Caps::features`].
    pub name: &'static str,
    /// The spec that must work.
    pub spec: FfmpegSpec,
    /// Whether decoding must restore every sample exactly.
    pub exact: bool,
}

/// The inputs that decide the result of a probe of `spec`, for
/// [`Device::identity`](encoder_core::Device::identity): each FFmpeg that may be used, and the
/// options. `ffmpeg` is [`OpenRequest::ffmpeg`](encoder_core::OpenRequest::ffmpeg). Starts no
/// process.
///
/// # Errors
/// A [`Refusal`] when there is no FFmpeg.
pub fn identity(spec: &FfmpegSpec, ffmpeg: Option<&Path>) -> Result<Vec<String>, Refusal> {
    let identity = |path: &PathBuf| {
        file_identity(path).map_err(|error| {
            let (reason, hint) = (
                format!("{} cannot be read: {error}", path.display()),
                "check the path and its permissions",
            );
            Refusal::new(spec.id, RefusalKind::Missing, reason, hint)
        })
    };
    let files = Search::new(spec.id).named(ffmpeg).files()?;
    let files = files.iter().map(identity).collect::<Result<Vec<_>, _>>()?;
    let filter = spec.filter.unwrap_or_default();
    let options = spec.global.iter().chain(&spec.options).cloned().collect::<Vec<_>>().join(" ");
    let options = format!("{} {options} {filter} {}", spec.encoder, spec.format.as_str());
    Ok(files.into_iter().chain([options]).collect())
}

/// Probes `spec` within about `deadline`, in the FFmpeg that a [`Search`] finds. `ffmpeg` is
/// [`OpenRequest::ffmpeg`](encoder_core::OpenRequest::ffmpeg).
///
/// Five pictures are encoded with the spec's own options, decoded by a second child, counted and
/// compared: an encoder that FFmpeg lists may still not work. May be called from anywhere, async
/// code included; blocks, until the deadline or a stop of the [waiter](FfmpegSpec::waiter).
pub fn test_encode(spec: &FfmpegSpec, ffmpeg: Option<&Path>, deadline: Duration) -> ProbeResult {
    test_encode_features(spec, &[], ffmpeg, deadline)
}

/// As [`test_encode`]; if the spec works, each of `features` is probed too, until the deadline.
pub fn test_encode_features(
    spec: &FfmpegSpec,
    features: &[Feature],
    ffmpeg: Option<&Path>,
    deadline: Duration,
) -> ProbeResult {
    let begun = Instant::now();
    let search = Search::new(spec.id).named(ffmpeg).with_encoder(spec.encoder);
    match search.within(deadline).with_waiter(Some(&spec.waiter)).run() {
        Ok(ffmpeg) => {
            let left = deadline.saturating_sub(begun.elapsed()).max(LEAST);
            test_encode_with(&ffmpeg, spec, features, left)
        }
        Err(refusal) => ProbeResult::Refused(refusal),
    }
}

/// As [`test_encode`] for the spec of a request; if it works, B-frames are probed too, as the feature
/// `b-frames`. Where `spec` returns an error, the backend `id` is refused with it.
pub fn test_encode_b_frames(
    id: EncoderType,
    request: &OpenRequest<'_>,
    spec: impl Fn(&EncoderConfig) -> Result<FfmpegSpec, OpenError>,
    deadline: Duration,
) -> ProbeResult {
    let two = EncoderConfig { b_frames: 2, ..request.config.clone() };
    let (one, two) = match spec(request.config).and_then(|one| Ok((one, spec(&two)?))) {
        Ok(both) => both,
        Err(error) => return ProbeResult::Refused(refusal(id, error)),
    };
    let b_frames = Feature { name: "b-frames", spec: two.reordering(), exact: false };
    test_encode_features(&one.with_waiter(request.waiter), &[b_frames], request.ffmpeg, deadline)
}

/// As [`test_encode_features`], in a certain FFmpeg.
pub fn test_encode_with(
    ffmpeg: &Ffmpeg,
    spec: &FfmpegSpec,
    features: &[Feature],
    deadline: Duration,
) -> ProbeResult {
    let begun = Instant::now();
    if let Err(refusal) = attempt(ffmpeg, spec, TOLERANCE, begun, deadline) {
        return ProbeResult::Refused(refusal);
    }
    let probed = features.iter().filter(|feature| {
        if spec.waiter.state() == Waited::Stopped {
            return false;
        }
        let spec = feature.spec.clone().with_waiter(Some(&spec.waiter));
        let left = deadline.saturating_sub(begun.elapsed());
        let tolerance = if feature.exact { 0.0 } else { TOLERANCE };
        !left.is_zero()
            && attempt(ffmpeg, &spec, tolerance, Instant::now(), left)
                .inspect_err(|refusal| debug!("no {}: {refusal}", feature.name))
                .is_ok()
    });
    let caps = Caps::new(format!("{} {}", ffmpeg.label(), spec.encoder))
        .with_host(ffmpeg.version_text.clone())
        .with_host_file(&ffmpeg.path)
        .with_pixel_formats([spec.format])
        .with_features(probed.map(|feature| feature.name.to_owned()).collect());
    ProbeResult::Usable(caps)
}

fn attempt(
    ffmpeg: &Ffmpeg,
    spec: &FfmpegSpec,
    tolerance: f64,
    begun: Instant,
    deadline: Duration,
) -> Result<(), Refusal> {
    if !ffmpeg.lists(spec.encoder) {
        return Err(not_listed(spec.id, std::slice::from_ref(ffmpeg), spec.encoder));
    }
    let size = spec.probe_size;
    let layout = FrameLayout::new(spec.format, size);
    let pictures: Vec<_> = (0..PICTURES).map(|n| FrameBuffer::test_picture(layout, n)).collect();
    let mut input = Vec::with_capacity(layout.packed_bytes() * pictures.len());
    for picture in &pictures {
        picture.frame(0).append_packed(&mut input);
    }
    let rate = EncoderConfig::default().frame_rate;
    let arguments = arguments(spec, ffmpeg.version, size, rate);
    let encoded = run_child(ffmpeg, spec, &arguments, input.clone(), deadline)?;
    let units = access_units(&encoded).map_err(|what| wrong(spec, what))?;
    if units.len() as u64 != PICTURES {
        return Err(wrong(spec, format!("{PICTURES} pictures went in, {} came out", units.len())));
    }
    if let Some(ms) = misplaced(&units, rate) {
        return Err(wrong(spec, format!("a picture has the time {ms} ms, which no frame had")));
    }
    if spec.reorders && units.is_sorted_by_key(|unit| unit.pts_ms) {
        return Err(wrong(spec, "no B-frames came out".into()));
    }
    let first = units.first().map(|unit| unit.data.as_slice()).unwrap_or_default();
    let kinds: Vec<_> =
        nal_units(first).filter_map(|unit| unit.first()).map(|&h| NalKind::of(h)).collect();
    if ![NalKind::Sps, NalKind::Pps, NalKind::Idr].iter().all(|kind| kinds.contains(kind)) {
        return Err(wrong(spec, format!("the first access unit has only {kinds:?}")));
    }

    let stream: Vec<u8> = units.into_iter().flat_map(|unit| unit.data).collect();
    let format = spec.format.as_str();
    let arguments: Vec<String> = format!(
        "-hide_banner -nostats -loglevel level+warning -f h264 -i pipe:0 -f rawvideo \
         -pix_fmt {format} pipe:1"
    )
    .split(' ')
    .map(str::to_owned)
    .collect();
    // Decoding in software gets the rest of the deadline, and at least a second.
    let left = deadline.saturating_sub(begun.elapsed()).max(LEAST);
    let decoded =
        run_child(ffmpeg, spec, &arguments, stream, left).map_err(|refusal| {
            match refusal.kind {
                RefusalKind::Failed => {
                    wrong(spec, format!("it does not decode: {}", refusal.reason))
                }
                _ => refusal,
            }
        })?;
    let decoded = decoded.stdout;
    let (luma, whole) = ((size.width * size.height) as usize, layout.packed_bytes());
    if decoded.len() != whole * pictures.len() {
        let count = decoded.len() as f64 / whole as f64;
        return Err(wrong(spec, format!("{PICTURES} pictures went in, {count} decode")));
    }
    let sent = input.chunks_exact(whole);
    for (n, (got, sent)) in decoded.chunks_exact(whole).zip(sent).enumerate() {
        let ((luma, chroma), (sent_luma, sent_chroma)) = (got.split_at(luma), sent.split_at(luma));
        for (what, got, sent) in [("luma", luma, sent_luma), ("chroma", chroma, sent_chroma)] {
            let error = mean_absolute_difference(got, sent);
            if error > tolerance {
                let what = format!("picture {n} is {error:.1} levels off in {what}");
                return Err(wrong(spec, what));
            }
        }
    }
    Ok(())
}

/// Runs FFmpeg on `input`.
fn run_child(
    ffmpeg: &Ffmpeg,
    spec: &FfmpegSpec,
    arguments: &[String],
    input: Vec<u8>,
    deadline: Duration,
) -> Result<Output, Refusal> {
    let mut command = ffmpeg.command();
    command.args(arguments);
    let output = run_until_stop(command, Input::Bytes(input), deadline, &spec.waiter);
    let output = output.map_err(|error| {
        Refusal::new(
            spec.id,
            RefusalKind::Failed,
            format!("{} does not start: {error}", ffmpeg.path.display()),
            "check that the program can be run, and the limits on processes and memory",
        )
    })?;
    if !output.exit.is_success() || output.stderr.contains(IGNORED_OPTION) {
        return Err(classify(spec.id, &spec.rules, &output.stderr, output.exit));
    }
    Ok(output)
}

/// The time in milliseconds of an access unit that matches no frame.
fn misplaced(units: &[AccessUnit], rate: FrameRate) -> Option<i64> {
    let mut shown: Vec<i64> = units.iter().map(|unit| unit.pts_ms).collect();
    shown.sort_unstable();
    let first = shown.first().copied()?;
    (0..).zip(shown).find_map(|(n, ms)| {
        let expected = first + (rate.nanoseconds(n) / 1_000_000) as i64;
        (ms - expected).abs().gt(&1).then_some(ms)
    })
}

/// Cuts FFmpeg's output into access units.
fn access_units(encoded: &Output) -> Result<Vec<AccessUnit>, String> {
    let mut parser = FlvParser::new();
    let mut units = Vec::new();
    parser
        .push(&encoded.stdout, &mut units)
        .and_then(|()| parser.finish())
        .map_err(|error| error.to_string())?;
    Ok(units)
}

fn wrong(spec: &FfmpegSpec, what: String) -> Refusal {
    Refusal::new(
        spec.id,
        RefusalKind::WrongOutput,
        format!("{}: wrong output: {what}", spec.encoder),
        "update FFmpeg and the driver, or use another encoder",
    )
}
