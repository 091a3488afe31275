//! The rules of a backend.

use crate::{
    ConfigError, EncodeError, EncodedChunk, FrameBuffer, FrameLayout, NalKind, OpenError,
    OpenRequest, PixelFormat, Preset, ProbeResult, RateControl, Resolution, nal_units,
    testing::{
        Outcome, Suite,
        encode::{Case, Encoding, Failure, Stream, is_unsupported},
    },
};

/// Checks a rule.
pub(super) type Check = fn(&Suite) -> Outcome;

/// A rule of the suite.
pub(super) struct Rule {
    pub name: &'static str,
    pub text: &'static str,
    pub check: Check,
}

/// The rules, in the order in which they are checked.
#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    rule("probe", "the probe of the backend passes", |suite| of(probe(suite))),
    rule("options", "an unknown key of the options is an error that names the key", |suite| of(options(suite))),
    rule("no-size", "without a size, opening is an error that names encoder.resolution", |suite| of(no_size(suite))),
    rule("name", "an encoder has the id of its backend, and a description", |suite| of(name(suite))),
    rule("sizes", "each size is encoded, or refused as unsupported; that of the probe is encoded", |suite| of(sizes(suite))),
    rule("formats", "an encoder takes the pixel format that it reports, whichever was asked for", |suite| of(formats(suite))),
    rule("presets", "each preset is encoded, or refused", |suite| of(presets(suite))),
    rule("rate-control", "each kind of rate control is encoded, or refused", |suite| of(rate_control(suite))),
    rule("threads", "one thread and four threads are enough", |suite| of(threads(suite))),
    rule("count", "each frame has one access unit", |suite| on_streams(suite, count)),
    rule("pts", "the access units have the indices of the frames as pts, each once", |suite| on_streams(suite, pts)),
    rule("dts", "dts counts the access units from 0, and no picture is shown before it is decoded", |suite| on_streams(suite, dts)),
    rule("key-flag", "an access unit is marked as a key frame if and only if it is an IDR picture", |suite| on_streams(suite, key_flag)),
    rule("parameter-sets", "each key frame has its parameter sets in front of the picture", |suite| on_streams(suite, parameter_sets)),
    rule("start-codes", "each NAL unit begins with a start code of four bytes, and nothing else is between them", |suite| on_streams(suite, start_codes)),
    rule("gop", "the first of each gop_size frames is an IDR picture, and no other frame", |suite| on_streams(suite, gop)),
    rule("forced-idr", "a frame with force_idr becomes an IDR picture; only an encoder without can_force_idr may refuse it with an error", |suite| of(forced_idr(suite))),
    rule("delay", "an encoder keeps no more frames than its backend declares", |suite| on_streams(suite, delay)),
    rule("flush", "the flush returns all that is missing, and nothing if there were no frames", |suite| of(flush(suite))),
    rule("start-index", "a stream may begin with any index", |suite| of(start_index(suite))),
    rule("long-stream", "a stream of 260 frames keeps the rules of short streams", |suite| of(long_stream(suite))),
    rule("drop", "after encoders were dropped in mid-stream, an encoder can be opened again", |suite| of(drop_early(suite))),
    rule("mismatch", "a frame of another size or format is EncodeError::Mismatch", |suite| of(mismatch(suite))),
    rule("refusals", "the longest sides are encoded, or refused as unsupported with a reason", |suite| of(refusals(suite))),
    rule("two-at-once", "two encoders do not disturb each other", |suite| of(two_at_once(suite))),
    rule("pictures", "the decoded pictures look like the frames", |suite| pictures(suite, true)),
    rule("frame-memory", "the memory of a frame that is not stable is not read after the call", |suite| pictures(suite, false)),
];

const fn rule(name: &'static str, text: &'static str, check: Check) -> Rule {
    Rule { name, text, check }
}

/// What was refused, or the first difference.
type Found = Result<String, String>;

fn of(found: Found) -> Outcome {
    match found {
        Ok(refused) => Outcome::Passed(refused),
        Err(text) => Outcome::Failed(text),
    }
}

/// Streams of several lengths, distances of key frames, and numbers of B-frames. They are encoded
/// once, for all rules. A stream that the backend refuses as unsupported is `None`.
pub(super) fn streams(suite: &Suite) -> Result<Vec<Option<Stream>>, String> {
    let usual = suite.usual();
    let encode = |(gop_size, b_frames, count)| {
        let case = Case { gop_size, b_frames, frames: 0..count, ..usual.clone() };
        match suite.encode(case) {
            Ok(stream) => Ok(Some(stream)),
            // An encoder without B-frames makes none, or refuses them.
            Err(Failure::Refused(refusal)) if is_unsupported(&refusal) && b_frames > 0 => Ok(None),
            Err(failure) => {
                let text = failure.text();
                Err(format!("{text} (gop_size {gop_size}, b_frames {b_frames})"))
            }
        }
    };
    // gop_size | b_frames | frames
    [(4, 0, 9), (1, 0, 5), (30, 0, 64), (600, 0, 1), (6, 2, 20)].into_iter().map(encode).collect()
}

/// Checks each of the [`streams`].
fn on_streams(suite: &Suite, check: fn(&Suite, &Stream) -> Result<(), String>) -> Outcome {
    let streams = match suite.streams.get_or_init(|| streams(suite)) {
        Ok(streams) => streams,
        Err(text) => return Outcome::Failed(text.clone()),
    };
    for stream in streams.iter().flatten() {
        if let Err(text) = check(suite, stream) {
            let Case { gop_size, b_frames, .. } = stream.case;
            return Outcome::Failed(format!("{text} (gop_size {gop_size}, b_frames {b_frames})"));
        }
    }
    Outcome::Passed(match streams.iter().all(Option::is_some) {
        true => String::new(),
        false => "refused: B-frames".into(),
    })
}

fn probe(suite: &Suite) -> Found {
    let case = suite.usual();
    let mut settings = suite.settings(&case);
    settings.check().map_err(|error| error.to_string())?;
    // As detection does it.
    settings.encoder.resolution = None;
    let request = OpenRequest::new(&settings, suite.backend.id, 2);
    suite.backend.find_device(&request).map_err(|error| error.to_string())?;
    match suite.backend.run_probe(&request, suite.deadline) {
        ProbeResult::Usable(_) => Ok(String::new()),
        ProbeResult::Refused(refusal) => Err(refusal.to_string()),
    }
}

fn options(suite: &Suite) -> Found {
    const KEY: &str = "no-such-option";
    let mut options = suite.settings.backend.get(suite.backend.id.as_str()).cloned();
    let options = options.get_or_insert_default();
    options.insert(KEY.into(), 1.into());
    match suite.backend.check(options) {
        Err(ConfigError::UnknownKey { key, .. }) if key == KEY => Ok(String::new()),
        Err(error) => Err(format!("the key `{KEY}` gave another error: {error}")),
        Ok(()) => Err(format!("the key `{KEY}` was accepted")),
    }
}

fn no_size(suite: &Suite) -> Found {
    let mut settings = suite.settings(&suite.usual());
    settings.encoder.resolution = None;
    let request = OpenRequest::new(&settings, suite.backend.id, 2);
    match suite.backend.open_encoder(&request) {
        Err(OpenError::Config(ConfigError::Value { field, .. }))
            if field == "encoder.resolution" =>
        {
            Ok(String::new())
        }
        Err(error) => Err(format!("another error: {error}")),
        Ok(_) => Err("it opened".into()),
    }
}

fn name(suite: &Suite) -> Found {
    let encoder = suite.open(&suite.usual()).map_err(Failure::text)?;
    let (id, expected) = (encoder.encoder_type(), suite.backend.id);
    match encoder.description().is_empty() {
        _ if id != expected => Err(format!("its encoder is named `{id}`")),
        true => Err("the description is empty".into()),
        false => Ok(String::new()),
    }
}

/// Encodes each case. Lists the cases that are refused as `may_refuse` allows.
fn each(
    suite: &Suite,
    may_refuse: impl Fn(&Case, &Failure) -> bool,
    cases: impl IntoIterator<Item = (String, Case)>,
) -> Found {
    let mut refused = Vec::new();
    for (name, case) in cases {
        let whole = |stream: &Stream| -> Result<(), String> {
            count(suite, stream)?;
            parameter_sets(suite, stream)?;
            suite.compare(stream).map(|_| ())
        };
        match suite.encode(case.clone()) {
            Ok(stream) => whole(&stream).map_err(|text| format!("{name}: {text}"))?,
            Err(Failure::Refused(refusal)) if refusal.reason.is_empty() => {
                return Err(format!("{name} is refused without a reason"));
            }
            Err(failure) if may_refuse(&case, &failure) => refused.push(name),
            Err(failure) => return Err(format!("{name}: {}", failure.text())),
        }
    }
    Ok(list(&refused))
}

/// What was refused, as text.
fn list(refused: &[String]) -> String {
    match refused.is_empty() {
        true => String::new(),
        false => format!("refused: {}", refused.join(", ")),
    }
}

/// Whether the encoder refused a size or pixel format other than that of the probe.
fn is_size_refused(suite: &Suite, case: &Case, failure: &Failure) -> bool {
    let usual = suite.usual();
    let is_usual = (case.size, case.format) == (usual.size, usual.format);
    !is_usual && matches!(failure, Failure::Refused(refusal) if is_unsupported(refusal))
}

/// Whether the encoder refused a preset or rate control other than that of the settings.
fn is_setting_refused(suite: &Suite, case: &Case, failure: &Failure) -> bool {
    let usual = suite.usual();
    let is_usual = (case.preset, case.rate_control) == (usual.preset, usual.rate_control);
    let is_refused = match failure {
        Failure::Refused(refusal) => is_unsupported(refusal),
        Failure::Config(_) => true,
        Failure::Encode(..) | Failure::Wrong(_) => false,
    };
    is_refused && !is_usual
}

fn presets(suite: &Suite) -> Found {
    let case =
        |preset: Preset| (preset.to_string(), Case { preset, frames: 0..3, ..suite.usual() });
    let may_refuse = |case: &_, failure: &_| is_setting_refused(suite, case, failure);
    each(suite, may_refuse, Preset::ALL.map(case))
}

fn rate_control(suite: &Suite) -> Found {
    // At this rate in kilobits per second, the pictures are similar in each encoder.
    const ENOUGH: u32 = 20_000;
    let table = [
        RateControl::Crf(23),
        RateControl::ConstantQp(23),
        RateControl::bitrate(ENOUGH),
        RateControl::bitrate_with_max(ENOUGH, 2 * ENOUGH),
    ];
    let case = |rate_control: RateControl| {
        (rate_control.to_string(), Case { rate_control, frames: 0..3, ..suite.usual() })
    };
    let may_refuse = |case: &_, failure: &_| is_setting_refused(suite, case, failure);
    each(suite, may_refuse, table.map(case))
}

fn threads(suite: &Suite) -> Found {
    let case = |threads: usize| {
        (format!("{threads} threads"), Case { threads, frames: 0..3, ..suite.usual() })
    };
    each(suite, |_, _| false, [1, 4].map(case))
}

fn sizes(suite: &Suite) -> Found {
    let probe = suite.backend.probe_size;
    let table = [
        (probe.width, probe.height),
        (640, 480),
        (1920, 1080),
        (64, 48),
        (176, 144),
        (322, 178),
        // Odd sides are coded in the next even size.
        (641, 479),
        (17, 33),
        (16, 16),
        (2, 2),
    ];
    let case = |(width, height)| {
        let size = Resolution::new(width, height);
        (size.to_string(), Case { size, frames: 0..3, ..suite.usual() })
    };
    each(suite, |case, failure| is_size_refused(suite, case, failure), table.map(case))
}

fn formats(suite: &Suite) -> Found {
    let case =
        |format: PixelFormat| (format.to_string(), Case { format, frames: 0..3, ..suite.usual() });
    let may_refuse = |case: &_, failure: &_| is_size_refused(suite, case, failure);
    each(suite, may_refuse, [PixelFormat::Yuv420p, PixelFormat::Nv12].map(case))
}

fn count(_: &Suite, stream: &Stream) -> Result<(), String> {
    let frames = stream.case.frames.end - stream.case.frames.start;
    let units = stream.chunks.len() as u64;
    if units != frames {
        return Err(format!("{frames} frames went in, {units} access units came out"));
    }
    for (n, chunk) in stream.chunks.iter().enumerate() {
        let kinds = kinds(chunk);
        let has = |kind| kinds.contains(&kind);
        if has(NalKind::Idr) == has(NalKind::Slice) {
            return Err(format!("access unit {n} has the NAL units {kinds:?}"));
        }
    }
    Ok(())
}

fn pts(_: &Suite, stream: &Stream) -> Result<(), String> {
    let mut shown: Vec<_> = stream.chunks.iter().map(|chunk| chunk.pts).collect();
    shown.sort_unstable();
    let expected: Vec<_> = stream.case.frames.clone().collect();
    match shown == expected {
        true => Ok(()),
        false => Err(format!("the frames {:?} have the pts {shown:?}", stream.case.frames)),
    }
}

fn dts(_: &Suite, stream: &Stream) -> Result<(), String> {
    let first = stream.case.frames.start;
    // Without B-frames, decoding order is display order.
    let most = u64::from(stream.case.b_frames);
    for (n, chunk) in (0..).zip(&stream.chunks) {
        if chunk.dts != n {
            return Err(format!("access unit {n} has the dts {}", chunk.dts));
        }
        // A picture is decoded at most `b_frames` later than it is shown.
        let shown = chunk.pts.saturating_sub(first);
        if shown + most < n || (most == 0 && shown != n) {
            return Err(format!("access unit {n} has the pts {}: it is late", chunk.pts));
        }
    }
    Ok(())
}

fn kinds(chunk: &EncodedChunk) -> Vec<NalKind> {
    nal_units(&chunk.data).filter_map(|unit| unit.first()).map(|&head| NalKind::of(head)).collect()
}

fn key_flag(_: &Suite, stream: &Stream) -> Result<(), String> {
    for (n, chunk) in stream.chunks.iter().enumerate() {
        let is_idr = kinds(chunk).contains(&NalKind::Idr);
        if chunk.keyframe != is_idr {
            return Err(format!("access unit {n}: keyframe is {}, IDR {is_idr}", chunk.keyframe));
        }
    }
    Ok(())
}

fn parameter_sets(_: &Suite, stream: &Stream) -> Result<(), String> {
    for (n, chunk) in stream.chunks.iter().enumerate() {
        let kinds = kinds(chunk);
        let Some(picture) = kinds.iter().position(|kind| *kind == NalKind::Idr) else { continue };
        let has = |kind| kinds[..picture].contains(&kind);
        if !has(NalKind::Sps) || !has(NalKind::Pps) {
            return Err(format!("access unit {n} has the NAL units {kinds:?}"));
        }
    }
    Ok(())
}

fn start_codes(_: &Suite, stream: &Stream) -> Result<(), String> {
    for (n, chunk) in stream.chunks.iter().enumerate() {
        let mut rest = chunk.data.as_slice();
        for unit in nal_units(&chunk.data) {
            let is_whole = rest.strip_prefix(&[0, 0, 0, 1]).filter(|rest| rest.starts_with(unit));
            let Some(after) = is_whole else {
                let at = chunk.data.len() - rest.len();
                return Err(format!("access unit {n}: no `00 00 00 01` at byte {at}"));
            };
            rest = &after[unit.len()..];
        }
        if !rest.is_empty() {
            return Err(format!("access unit {n} ends with {} bytes of no NAL unit", rest.len()));
        }
    }
    Ok(())
}

/// The indices of the IDR pictures.
fn idr_pictures(stream: &Stream) -> Vec<u64> {
    let is_idr = |chunk: &&EncodedChunk| kinds(chunk).contains(&NalKind::Idr);
    let mut all: Vec<_> = stream.chunks.iter().filter(is_idr).map(|chunk| chunk.pts).collect();
    all.sort_unstable();
    all
}

fn gop(_: &Suite, stream: &Stream) -> Result<(), String> {
    let Case { frames, gop_size, .. } = &stream.case;
    let expected: Vec<_> = frames.clone().step_by(*gop_size as usize).collect();
    let found = idr_pictures(stream);
    match found == expected {
        true => Ok(()),
        false => Err(format!("the IDR pictures are the frames {found:?}, not {expected:?}")),
    }
}

fn forced_idr(suite: &Suite) -> Found {
    let mut refused = Vec::new();
    let declares = suite.open(&suite.usual()).map_err(Failure::text)?.can_force_idr();
    // Inside a GOP, where a GOP begins, at the first frame, and with B-frames.
    for (at, gop_size, b_frames) in [(5, 30, 0), (2, 4, 0), (4, 4, 0), (0, 4, 0), (5, 30, 2)] {
        let case = Case { forced: Some(at), gop_size, b_frames, ..suite.usual() };
        let is_boundary = at.is_multiple_of(gop_size.into());
        let stream = match suite.encode(case) {
            Ok(stream) => stream,
            Err(Failure::Encode(frame, _)) if frame == at && !is_boundary && !declares => {
                refused.push(match b_frames {
                    0 => format!("frame {at} of a GOP of {gop_size}"),
                    _ => format!("frame {at} of a GOP with B-frames"),
                });
                continue;
            }
            Err(Failure::Refused(refusal)) if is_unsupported(&refusal) && b_frames > 0 => {
                refused.push("B-frames".into());
                continue;
            }
            Err(failure) => return Err(failure.text()),
        };
        let mut found = idr_pictures(&stream);
        if !found.contains(&at) {
            return Err(format!("frame {at} was to be an IDR picture; these are {found:?}"));
        }
        found.push(stream.case.frames.end);
        let longest = found.windows(2).map(|pair| pair[1] - pair[0]).max();
        if found.first() != Some(&0) || longest > Some(gop_size.into()) {
            return Err(format!("with frame {at}, a GOP of {gop_size} has {found:?}"));
        }
    }
    Ok(list(&refused))
}

fn delay(suite: &Suite, stream: &Stream) -> Result<(), String> {
    let (kept, declared) = (stream.kept, suite.max_delay(&stream.case));
    match kept <= declared {
        true => Ok(()),
        false => Err(format!("it kept {kept} frames, its backend declares {declared}")),
    }
}

fn flush(suite: &Suite) -> Found {
    let none = Case { frames: 0..0, ..suite.usual() };
    let stream = suite.encode(none).map_err(Failure::text)?;
    if !stream.chunks.is_empty() {
        return Err(format!("{} access units without a frame", stream.chunks.len()));
    }
    // More frames than it keeps, and fewer.
    let most = suite.max_delay(&suite.usual());
    for frames in [1, 2, most + 3] {
        let case = Case { frames: 0..frames, gop_size: 600, ..suite.usual() };
        let stream = suite.encode(case).map_err(Failure::text)?;
        count(suite, &stream)?;
    }
    Ok(String::new())
}

fn start_index(suite: &Suite) -> Found {
    let case = Case { frames: 1_000_003..1_000_012, ..suite.usual() };
    let stream = suite.encode(case).map_err(Failure::text)?;
    for check in [count, pts, dts, gop] {
        check(suite, &stream)?;
    }
    Ok(String::new())
}

fn long_stream(suite: &Suite) -> Found {
    // More frames than a counter of eight bits counts.
    let long =
        |size| Case { size, frames: 0..260, gop_size: 600, is_stable: false, ..suite.usual() };
    let stream = match suite.encode(long(Resolution::new(64, 48))) {
        Err(Failure::Refused(refusal)) if is_unsupported(&refusal) => {
            suite.encode(long(suite.backend.probe_size))
        }
        other => other,
    };
    let stream = stream.map_err(Failure::text)?;
    for check in [count, pts, dts, key_flag, gop, delay] {
        check(suite, &stream)?;
    }
    suite.compare(&stream)?;
    Ok(String::new())
}

fn drop_early(suite: &Suite) -> Found {
    const TIMES: usize = 4;
    for n in 0..TIMES {
        let opened = Encoding::new(suite, suite.usual());
        let mut encoding =
            opened.map_err(|failure| format!("after {n} drops: {}", failure.text()))?;
        // Also without a frame.
        for _ in 0..n {
            let stepped = encoding.step();
            stepped.map_err(|failure| format!("after {n} drops: {}", failure.text()))?;
        }
    }
    let stream = suite.encode(suite.usual()).map_err(Failure::text)?;
    count(suite, &stream)?;
    Ok(String::new())
}

fn mismatch(suite: &Suite) -> Found {
    let case = suite.usual();
    let size = case.size.even();
    let format = suite.open(&case).map_err(Failure::text)?.pixel_format();
    let other = match format {
        PixelFormat::Yuv420p => PixelFormat::Nv12,
        PixelFormat::Nv12 => PixelFormat::Yuv420p,
    };
    let table = [
        (other, size),
        (format, Resolution::new(size.width + 2, size.height)),
        (format, Resolution::new(size.width, size.height - 2)),
        // A square stays the same.
        (format, Resolution::new(size.height, size.width)),
    ];
    let wrong = table.into_iter().filter(|row| *row != (format, size));
    for (index, (got, wrong)) in (0..).zip(wrong) {
        let mut encoding = Encoding::new(suite, case.clone()).map_err(Failure::text)?;
        // At the first frame, and later.
        for _ in 0..index {
            encoding.step().map_err(Failure::text)?;
        }
        let buffer = FrameBuffer::new(FrameLayout::new(got, wrong));
        let what = format!("a frame of {got} {wrong}");
        match encoding.encode(&buffer.frame(index)) {
            Err(EncodeError::Mismatch { index: at, got_format, got_width, got_height, .. })
                if (at, got_format) == (index, got)
                    && (got_width, got_height) == (wrong.width, wrong.height) => {}
            Err(error) => return Err(format!("{what} gave another error: {error}")),
            Ok(_) => return Err(format!("{what} was taken by an encoder of {format} {size}")),
        }
    }
    Ok(String::new())
}

fn refusals(suite: &Suite) -> Found {
    let most = crate::EncoderConfig::MAX_SIDE;
    let case = |(width, height)| {
        let size = Resolution::new(width, height);
        (size.to_string(), Case { size, frames: 0..1, ..suite.usual() })
    };
    let may_refuse = |case: &_, failure: &_| is_size_refused(suite, case, failure);
    each(suite, may_refuse, [(most, 2), (2, most)].map(case))
}

fn two_at_once(suite: &Suite) -> Found {
    let cases = [suite.usual(), Case { frames: 50..59, gop_size: 3, ..suite.usual() }];
    let [first, second] = cases.map(|case| Encoding::new(suite, case));
    let mut first = first.map_err(Failure::text)?;
    let mut second = match second {
        Ok(second) => second,
        Err(Failure::Refused(refusal)) if refusal.is_busy() => {
            return Ok("refused: a second encoder (busy)".into());
        }
        Err(failure) => return Err(format!("the second: {}", failure.text())),
    };
    loop {
        let stepped = [first.step(), second.step()];
        let [first, second] = stepped.map(|stepped| stepped.map_err(Failure::text));
        if !first? & !second? {
            break;
        }
    }
    for (name, encoding) in [("first", first), ("second", second)] {
        let check = || -> Result<(), String> {
            let stream = encoding.finish().map_err(Failure::text)?;
            for check in [count, pts, dts, gop] {
                check(suite, &stream)?;
            }
            suite.compare(&stream).map(|_| ())
        };
        check().map_err(|text| format!("the {name} of two encoders: {text}"))?;
    }
    Ok(String::new())
}

fn pictures(suite: &Suite, is_stable: bool) -> Outcome {
    let usual = suite.usual();
    for (gop_size, frames) in [(4, 0..9), (600, 0..24)] {
        let case = Case { gop_size, frames, is_stable, ..usual.clone() };
        let stream = match suite.encode(case) {
            Ok(stream) => stream,
            Err(failure) => return Outcome::Failed(failure.text()),
        };
        match suite.compare(&stream) {
            Ok(true) => {}
            Ok(false) => return Outcome::NotChecked("there is no decoder for the stream".into()),
            Err(text) => return Outcome::Failed(text),
        }
    }
    Outcome::Passed(String::new())
}
