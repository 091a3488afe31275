//! The proof that an encoder works: a real encode in a child, decoded back and compared.

use std::time::{Duration, Instant};

use encoder_core::{
    Caps, EncoderConfig, FrameBuffer, FrameLayout, NalKind, Refusal, RefusalKind, Resolution,
    Verdict, mean_absolute_difference, nal_units,
};

use crate::{
    args::{Job, arguments},
    child::Exit,
    classify::{classify, not_listed},
    find::Ffmpeg,
    flv::{AccessUnit, FlvParser},
    run::{Ran, run},
};

/// Smaller pictures are refused by devices that work.
const SIZE: Resolution = Resolution::new(640, 360);
const PICTURES: u64 = 5;
/// Mean error in levels that no encoder at a usable quality reaches.
const TOLERANCE: f64 = 6.0;

/// Proves `job` within about `deadline`, in the FFmpeg that [`Ffmpeg::find`] finds.
///
/// Listed is not enough: five pictures are encoded with the job's own options, decoded by a second
/// child, counted and compared. May be called from anywhere, async code included; blocks.
pub fn test_encode(job: &Job, deadline: Duration) -> Verdict {
    match Ffmpeg::find(job.id) {
        Ok(ffmpeg) => test_encode_with(&ffmpeg, job, deadline),
        Err(refusal) => Verdict::Refused(refusal),
    }
}

/// As [`test_encode`], in a certain FFmpeg.
pub fn test_encode_with(ffmpeg: &Ffmpeg, job: &Job, deadline: Duration) -> Verdict {
    let begun = Instant::now();
    match attempt(ffmpeg, job, begun, deadline) {
        Ok(()) => Verdict::Usable(Caps {
            device: format!("{} {}", ffmpeg.label(), job.encoder),
            pixel_formats: vec![job.format],
            notes: Vec::new(),
            elapsed: begun.elapsed(),
        }),
        Err(refusal) => Verdict::Refused(refusal),
    }
}

fn attempt(ffmpeg: &Ffmpeg, job: &Job, begun: Instant, deadline: Duration) -> Result<(), Refusal> {
    if !ffmpeg.lists(job.encoder) {
        return Err(not_listed(job.id, ffmpeg, job.encoder));
    }
    let layout = FrameLayout::new(job.format, SIZE);
    let pictures: Vec<_> = (0..PICTURES).map(|n| FrameBuffer::test_picture(layout, n)).collect();
    let mut input = Vec::with_capacity(layout.packed_bytes() * pictures.len());
    for picture in &pictures {
        picture.frame(0).append_packed(&mut input);
    }
    let rate = EncoderConfig::default().frame_rate;
    let arguments = arguments(job, ffmpeg.version, SIZE, rate);
    let encoded = child(ffmpeg, job, &arguments, input, deadline)?;
    let units = cut(&encoded).map_err(|what| wrong(job, what))?;
    if units.len() as u64 != PICTURES {
        return Err(wrong(job, format!("{PICTURES} pictures went in, {} came out", units.len())));
    }
    let first = units.first().map(|unit| unit.data.as_slice()).unwrap_or_default();
    let kinds: Vec<_> =
        nal_units(first).filter_map(|unit| unit.first()).map(|&h| NalKind::of(h)).collect();
    if ![NalKind::Sps, NalKind::Pps, NalKind::Idr].iter().all(|kind| kinds.contains(kind)) {
        return Err(wrong(job, format!("the first access unit has only {kinds:?}")));
    }

    let stream: Vec<u8> = units.into_iter().flat_map(|unit| unit.data).collect();
    let arguments: Vec<String> = "-hide_banner -nostats -loglevel level+warning -f h264 -i pipe:0 \
                                  -f rawvideo -pix_fmt yuv420p pipe:1"
        .split(' ')
        .map(str::to_owned)
        .collect();
    // Decoding is software: it gets what is left of the deadline, and a second at least.
    let left = deadline.saturating_sub(begun.elapsed()).max(Duration::from_secs(1));
    let decoded = child(ffmpeg, job, &arguments, stream, left)?.stdout;
    let (luma, whole) = ((SIZE.width * SIZE.height) as usize, layout.packed_bytes());
    if decoded.len() != whole * pictures.len() {
        let count = decoded.len() as f64 / whole as f64;
        return Err(wrong(job, format!("{PICTURES} pictures went in, {count} decode")));
    }
    for (n, (got, picture)) in decoded.chunks_exact(whole).zip(&pictures).enumerate() {
        let sent: Vec<u8> = picture
            .frame(0)
            .planes()
            .iter()
            .take(1)
            .flat_map(|p| p.rows())
            .flatten()
            .copied()
            .collect();
        let error = mean_absolute_difference(got.get(..luma).unwrap_or_default(), &sent);
        if error >= TOLERANCE {
            return Err(wrong(job, format!("picture {n} came back {error:.1} levels off")));
        }
    }
    Ok(())
}

fn child(
    ffmpeg: &Ffmpeg,
    job: &Job,
    arguments: &[String],
    input: Vec<u8>,
    deadline: Duration,
) -> Result<Ran, Refusal> {
    let ran = run(&ffmpeg.path, arguments, input, deadline).map_err(|error| {
        Refusal::new(
            job.id,
            RefusalKind::Failed,
            format!("{} does not start: {error}", ffmpeg.path.display()),
            "check that the program can be run, and the limits on processes and memory",
        )
    })?;
    let ignored = ran.stderr.contains("has not been used for any stream");
    if ran.exit != Exit::Code(0) || ignored {
        return Err(classify(job.id, &ran.stderr, ran.exit));
    }
    Ok(ran)
}

fn cut(ran: &Ran) -> Result<Vec<AccessUnit>, String> {
    let mut parser = FlvParser::new();
    let mut units = Vec::new();
    parser
        .push(&ran.stdout, &mut units)
        .and_then(|()| parser.finish())
        .map_err(|error| error.to_string())?;
    Ok(units)
}

fn wrong(job: &Job, what: String) -> Refusal {
    Refusal::new(
        job.id,
        RefusalKind::WrongOutput,
        format!("{} gives wrong output: {what}", job.encoder),
        "update FFmpeg and the driver, or use another encoder",
    )
}
