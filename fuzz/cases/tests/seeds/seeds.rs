//! Makes the seeds of the fuzz targets: small inputs that are right, one of each kind.

use encoder_core::EncodedChunk;
use encoder_fuzz_cases::{DEPTH, NV12, SCHEMAS};
use encoder_pipeline::{
    mux::{AccessUnit, Mp4Options, Mp4Sink, OutputMode, Sink},
    timeline::{Clock, FrameTimes, TimestampAnalysis, Timing},
};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use mcap::{Compression, WriteOptions};

use encoder_testbed::fixtures::{
    EPOCH, MS,
    bag::{Bag, CAMERA, image},
    picture::Picture,
    recording::{Content, Recording, Serialization},
};

pub struct Seed {
    pub target: &'static str,
    pub name: String,
    pub bytes: Vec<u8>,
    /// The target shall find nothing wrong with it.
    pub is_good: bool,
}

/// All seeds of all targets.
pub fn all() -> Vec<Seed> {
    let targets: [(&str, fn(&mut Seeds)); 7] = [
        ("message", messages),
        ("mcap", recordings),
        ("bag", bags),
        ("flv", flv),
        ("config", toml),
        ("part", parts),
        ("stream", streams),
    ];
    let mut all = Vec::new();
    for (target, make) in targets {
        let mut seeds = Seeds { target, seeds: Vec::new() };
        make(&mut seeds);
        all.extend(seeds.seeds);
    }
    all
}

struct Seeds {
    target: &'static str,
    seeds: Vec<Seed>,
}

impl Seeds {
    fn good(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        let (name, bytes) = (name.into(), bytes.into());
        self.seeds.push(Seed { target: self.target, name, bytes, is_good: true });
    }

    fn bad(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.good(name, bytes);
        self.seeds.last_mut().unwrap().is_good = false;
    }
}

fn small(width: usize, height: usize) -> Picture {
    Picture::of(width, height, |x, y| [(x * 16) as u8, (y * 24) as u8, (x * y) as u8])
}

/// A message with the byte in front that [`encoder_fuzz_cases::message`] wants.
fn message(content: &Content, serialization: Serialization, flags: u8) -> Vec<u8> {
    let (schema, ..) = content.names(serialization);
    let schema =
        SCHEMAS.iter().position(|name| name.replace("/msg", "") == schema.replace("/msg", ""));
    let bits = match serialization {
        Serialization::CdrLittle | Serialization::CdrBig => 0,
        Serialization::Ros1 => 1,
        Serialization::Protobuf => 2,
        Serialization::Json => 3,
    };
    let choice = bits | (schema.unwrap() as u8) << 2 | flags;
    [&[choice][..], &content.message(serialization, EPOCH)].concat()
}

fn messages(seeds: &mut Seeds) {
    // With enough bytes for the largest.
    let encodings = "rgb8 bgr8 rgba8 bgra8 mono8 mono16 8UC1 8UC3 8UC4 16UC1 32FC1 bayer_rggb8 \
        bayer_bggr8 bayer_gbrg8 bayer_grbg8 bayer_rggb16 bayer_bggr16 bayer_gbrg16 bayer_grbg16 \
        yuv422 yuv422_yuy2 nv12 nv21 nv16 nv24 i420 yv12 i422 i444 i420_full i422_full i444_full";
    for (n, encoding) in encodings.split_whitespace().enumerate() {
        let (width, height) = (5 + n as u32 % 2, 3 + n as u32 / 2 % 2);
        let data = (0..width * height * 4).map(|n| (n * 37) as u8).collect();
        let content = Content::Image {
            encoding: encoding.into(),
            width,
            height,
            step: 0,
            big: n % 3 == 0,
            data,
        };
        let flags = DEPTH | if n % 2 == 0 { NV12 } else { 0 };
        seeds.good(format!("raw-{encoding}"), message(&content, Serialization::CdrLittle, flags));
    }
    let padded = Content::raw(&small(6, 4), "bgr8", 5);
    let jpeg = Content::compressed("rgb8; jpeg compressed bgr8", small(8, 8).jpeg420());
    for serialization in [
        Serialization::CdrLittle,
        Serialization::CdrBig,
        Serialization::Ros1,
        Serialization::Json,
        Serialization::Protobuf,
    ] {
        seeds.good(format!("{serialization:?}-raw"), message(&padded, serialization, 0));
        seeds.good(format!("{serialization:?}-jpeg"), message(&jpeg, serialization, 0));
        if serialization != Serialization::Ros1 {
            let video = Content::Video { format: "h264".into(), data: vec![0, 0, 0, 1, 0x65, 1] };
            seeds.bad(format!("{serialization:?}-video"), message(&video, serialization, 0));
        }
    }
    let mut compressed = |name: &str, format: &str, data: Vec<u8>| {
        let content = Content::compressed(format, data);
        seeds.good(name, message(&content, Serialization::CdrLittle, DEPTH | NV12));
    };
    for (name, data) in jpegs() {
        compressed(&format!("jpeg-{name}"), "jpeg", data);
    }
    for (name, data) in pngs() {
        compressed(&format!("png-{name}"), "png", data);
    }
    let depth_png = png(png::ColorType::Grayscale, png::BitDepth::Sixteen, 2);
    compressed("depth-png", "16UC1; png compressed", depth_png.clone());
    let header = |inner: &[u8]| {
        let floats = [1000f32, 0.5].map(f32::to_le_bytes).concat();
        [&[0; 4], floats.as_slice(), inner].concat()
    };
    compressed("depth-compressed-png", "16UC1; compressedDepth png", header(&depth_png));
    compressed("depth-inverse-png", "32FC1; compressedDepth png", header(&depth_png));
    // 4x2 pixels: 2 zeros, 6 differences of one digit.
    let rvl = [4u32, 2].map(u32::to_le_bytes).concat();
    let digits = [&[0x26_12_12_12u32][..], &[0x00_00_00_00]].concat();
    let digits: Vec<u8> = digits.iter().flat_map(|word| word.to_le_bytes()).collect();
    compressed("depth-rvl", "16UC1; compressedDepth rvl", header(&[rvl, digits].concat()));
}

fn jpegs() -> Vec<(&'static str, Vec<u8>)> {
    let jpeg = |width: u16, height: u16, colour, set: &dyn Fn(&mut Encoder<&mut Vec<u8>>)| {
        let bytes = match colour {
            ColorType::Luma => 1,
            ColorType::Rgb => 3,
            _ => 4,
        };
        let samples: Vec<u8> =
            (0..usize::from(width) * usize::from(height) * bytes).map(|n| (n * 7) as u8).collect();
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, 60);
        // Only the codes that are used: small.
        encoder.set_optimized_huffman_tables(true);
        set(&mut encoder);
        encoder.encode(&samples, width, height, colour).unwrap();
        out
    };
    let plain = &|_: &mut Encoder<&mut Vec<u8>>| {};
    let sampled = |factor: SamplingFactor| {
        jpeg(17, 9, ColorType::Rgb, &move |e| e.set_sampling_factor(factor))
    };
    // The encoder's own tables fail with restarts.
    let restarts = jpeg(33, 9, ColorType::Rgb, &|e| {
        e.set_optimized_huffman_tables(false);
        e.set_restart_interval(1);
    });
    // As cameras give it: with the standard tables, which are then left out.
    let mut no_tables = small(8, 8).jpeg420();
    while let Some(at) = no_tables.windows(2).position(|w| w == [0xff, 0xc4]) {
        let length = usize::from(u16::from_be_bytes([no_tables[at + 2], no_tables[at + 3]]));
        no_tables.drain(at..at + 2 + length);
    }
    vec![
        ("444", sampled(SamplingFactor::R_4_4_4)),
        ("422", sampled(SamplingFactor::R_4_2_2)),
        ("420", sampled(SamplingFactor::R_4_2_0)),
        ("440", sampled(SamplingFactor::R_4_4_0)),
        ("411", sampled(SamplingFactor::R_4_1_1)),
        ("grey", jpeg(17, 9, ColorType::Luma, plain)),
        ("cmyk", jpeg(9, 9, ColorType::Cmyk, plain)),
        ("ycck", jpeg(9, 9, ColorType::CmykAsYcck, plain)),
        ("progressive", jpeg(17, 9, ColorType::Rgb, &|e| e.set_progressive(true))),
        ("restarts", restarts),
        ("no-tables", no_tables),
    ]
}

fn pngs() -> Vec<(&'static str, Vec<u8>)> {
    use png::{BitDepth::*, ColorType::*};
    vec![
        ("grey1", png(Grayscale, One, 0)),
        ("grey8", png(Grayscale, Eight, 1)),
        ("grey16", png(Grayscale, Sixteen, 2)),
        ("grey-alpha", png(GrayscaleAlpha, Eight, 2)),
        ("rgb8", png(Rgb, Eight, 3)),
        ("rgb16", png(Rgb, Sixteen, 6)),
        ("rgba8", png(Rgba, Eight, 4)),
        ("palette", png(Indexed, Eight, 1)),
    ]
}

/// 8x3 pixels of so many bytes (0: a bit).
fn png(colour: png::ColorType, depth: png::BitDepth, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, 8, 3);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == png::ColorType::Indexed {
        encoder.set_palette((0..=255).flat_map(|n| [n, 255 - n, n / 2]).collect::<Vec<u8>>());
    }
    let samples: Vec<u8> = (0..3 * (8 * bytes).max(1)).map(|n| (n * 11) as u8).collect();
    encoder.write_header().unwrap().write_image_data(&samples).unwrap();
    out
}

fn recordings(seeds: &mut Seeds) {
    let chunks = |compression| WriteOptions::new().compression(compression).chunk_size(Some(300));
    // No threads: they are slow to start, and there is little to do.
    let zstd = || chunks(Some(Compression::Zstd)).compression_threads(0);
    for (name, options) in [
        ("stored", chunks(None)),
        ("lz4", chunks(Some(Compression::Lz4))),
        ("zstd", zstd()),
        ("no-chunks", WriteOptions::new().use_chunks(false)),
        ("no-summary", zstd().emit_summary_records(false)),
        ("no-chunk-indexes", chunks(None).emit_chunk_indexes(false)),
        ("no-message-indexes", chunks(None).emit_message_indexes(false)),
        ("no-statistics", zstd().emit_statistics(false)),
        ("no-checksums", chunks(None).calculate_chunk_crcs(false)),
    ] {
        let bytes = recording(options, &[Serialization::CdrLittle]);
        match name {
            // There is no more to read; that it had to be searched for is told.
            "no-summary" | "no-chunk-indexes" | "no-statistics" => {}
            _ => seeds.bad(format!("{name}-cut"), &bytes[..bytes.len() / 2]),
        }
        // Without a summary nothing states how many messages there should be.
        match name {
            "no-summary" => seeds.bad(name, bytes),
            _ => seeds.good(name, bytes),
        }
    }
    seeds.good(
        "ros1-and-cdr",
        recording(chunks(None), &[Serialization::Ros1, Serialization::CdrBig]),
    );
    seeds.good(
        "json-and-protobuf",
        recording(chunks(None), &[Serialization::Json, Serialization::Protobuf]),
    );
}

/// Three messages of a camera of each serialization, out of order, and one of something else.
fn recording(options: WriteOptions, serializations: &[Serialization]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let mut recording = Recording::with(directory.path().join("seed.mcap"), options);
    let other = recording.other("/joints", "sensor_msgs/msg/JointState", "cdr", "ros2msg");
    for n in [1, 0, 2] {
        for serialization in serializations {
            let content = Content::raw(&small(4, 2), "rgb8", 0);
            let ns = EPOCH + n * MS;
            recording.write(&format!("/{serialization:?}"), *serialization, ns, ns, &content);
        }
        recording.bytes(other, EPOCH, b"joints");
    }
    std::fs::read(recording.finish()).unwrap()
}

fn bags(seeds: &mut Seeds) {
    let bag = |compressions: &[&str]| {
        let mut bag = Bag::new(&[(0, "/cam", CAMERA), (1, "/imu", "sensor_msgs/Imu")]);
        for (n, compression) in (0..).zip(compressions) {
            // Chunks overlap in time.
            let messages = [(0, n * 2 + 2, image(1)), (1, 3, vec![1; 20]), (0, n, image(2))];
            bag.chunk(compression, &messages);
        }
        bag
    };
    for compression in ["none", "bz2", "lz4"] {
        seeds.good(compression, bag(&[compression]).finish());
    }
    seeds.good("several", bag(&["lz4", "none", "bz2"]).finish());
    // Without its index it warns.
    let mut unindexed = bag(&["none", "lz4"]);
    unindexed.header(0);
    seeds.bad("unindexed", unindexed.out.clone());
    let whole = bag(&["none", "none"]).finish();
    seeds.bad("cut", &whole[..whole.len() / 2]);
}

fn flv(seeds: &mut Seeds) {
    let header = b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec();
    let tag = |kind: u8, ms: u32, body: &[u8]| {
        let (size, time) = ((body.len() as u32).to_be_bytes(), ms.to_be_bytes());
        let head = [kind, size[1], size[2], size[3], time[1], time[2], time[3], time[0], 0, 0, 0];
        [&head, body, &(11 + body.len() as u32).to_be_bytes()].concat()
    };
    // Parameter sets with lengths of four bytes; one SPS, one PPS.
    let avcc = b"\x17\0\0\0\0\x01\x64\0\x1e\xff\xe1\0\x04\x67\x64\0\x1e\x01\0\x02\x68\xee";
    let config = tag(9, 0, avcc);
    let picture = |ms: u32, composition: i32, units: &[&[u8]]| {
        let [_, c2, c1, c0] = composition.to_be_bytes();
        let mut body = vec![0x27, 1, c2, c1, c0];
        for unit in units {
            body.extend((unit.len() as u32).to_be_bytes());
            body.extend(*unit);
        }
        tag(9, ms, &body)
    };
    let idr = |ms| picture(ms, 0, &[&[6, 5, 1], &[0x65, 0x88, 0x84]]);
    let plain = [header.clone(), tag(18, 0, b"onMetaData"), config.clone(), idr(0)].concat();
    seeds.good("one-picture", [vec![0], plain.clone()].concat());
    seeds.good("one-picture-in-pieces", [vec![5, 1, 12, 0, 20, 3], plain.clone()].concat());
    let p = |ms, composition, nal: u8| picture(ms, composition, &[&[nal, 0x9a, 1]]);
    let reordered = [plain.clone(), p(33, 66, 0x41), p(66, -33, 0x01), idr(100)].concat();
    seeds.good("b-frames", [vec![2, 40, 40], reordered].concat());
    let delimited = picture(33, 0, &[&[9, 0xf0], &[0x67, 1], &[0x68, 2], &[0x65, 3], &[]]);
    seeds.good("in-band-parameter-sets", [vec![1, 9], plain.clone(), delimited].concat());
    let late = [header, config, idr(0x7fff_fff0), p(16, 0, 0x41)].concat();
    seeds.good("clock-wraps", [vec![0], late].concat());
    let end = tag(9, 33, &[0x17, 2, 0, 0, 0]);
    seeds.good("end-of-sequence", [vec![0], plain.clone(), end].concat());
    seeds.bad("cut", [vec![3, 7, 7, 7], plain[..plain.len() - 6].to_vec()].concat());
}

/// What `docs/configuration.md` shows, whole and in its tables.
fn toml(seeds: &mut Seeds) {
    let page = include_str!("../../../../docs/configuration.md");
    let document = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    // Without the comments, which make a seed slow.
    let line = |line: &str| line.split('#').next().unwrap().trim_end().to_owned() + "\n";
    let document: String = document.lines().map(line).collect();
    for table in document.split("\n\n") {
        let name = table.split([']', '\n']).next().unwrap().trim_start_matches('[');
        seeds.good(name.replace('.', "-"), table);
    }
    seeds.good("whole", document);
    seeds.good("empty", "");
    seeds.good(
        "other-values",
        "encoder = { resolution = \"640x480\", frame_rate = 29.97, preset = 'slow' }\n\
         gpu.nvenc_tune = \"\\u006cl\"\n[backend.\"elsewhere\"]\nlist = [1, 2.5, 1979-05-27]\n",
    );
    seeds.bad("unknown-key", "[encoder]\ncfr = 20\n");
    seeds.bad("wrong-value", "[gpu]\nmax_sessions = -1\n");
    seeds.bad("rate-too-high", "[encoder]\nframe_rate = \"4294967295/4294967295\"\ncrf = 99\n");
}

/// Access units of no real picture: which frame each shows, and whether it is an IDR picture with
/// parameter sets of the one or the other encoder.
fn file(options: &Mp4Options, order: &[(u64, Option<u8>)]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    let mut sink = Box::new(Mp4Sink::create(&path, options).unwrap());
    let mut analysis = TimestampAnalysis::new(options.timing, options.rate, options.reorder);
    let at = |n: u64| FrameTimes {
        header_ns: Some(n as i64 * 200_000_000 + 7),
        log_ns: EPOCH + n as i64 * 200_000_003,
    };
    for (dts, &(pts, key)) in (0..).zip(order) {
        let mut data = Vec::new();
        if let Some(level) = key {
            let sps = [0x67, 0x42, 0xc0, level, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0x88];
            data.extend(
                [0, 0, 0, 1].iter().chain(&sps).chain(&[0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80]),
            );
        }
        data.extend([0, 0, 0, 1, if key.is_some() { 0x65 } else { 0x41 }, pts as u8 + 1, 0x80]);
        let chunk = EncodedChunk { data, pts, dts, keyframe: key.is_some() };
        sink.write(AccessUnit::new(chunk, at(pts))).unwrap();
    }
    (0..order.len() as u64).for_each(|n| analysis.push(&at(n)));
    sink.finish(&analysis.timeline()).unwrap();
    std::fs::read(path).unwrap()
}

fn parts(seeds: &mut Seeds) {
    let fragmented = Mp4Options { mode: OutputMode::Fragmented, ..Mp4Options::default() };
    let in_order: Vec<_> = (0..9).map(|n| (n, (n % 5 == 0).then_some(0x1e))).collect();
    let plain = file(&fragmented, &in_order);
    for (name, length) in [("cut-in-data", 5), ("cut-in-head", plain.len() - 300)] {
        seeds.bad(name, &plain[..plain.len() - length]);
    }
    let zeros = [&plain[..], &[0; 40]].concat();
    seeds.bad("tail-of-zeros", zeros);
    seeds.good("in-order", plain);
    let log = Mp4Options { timing: Timing::Recorded(Clock::Log), ..fragmented };
    seeds.good("log-times", file(&log, &in_order));
    let rate = "30000/1001".parse().unwrap();
    let rate = Mp4Options { timing: Timing::Rate(rate), rate, ..fragmented };
    seeds.good("rate", file(&rate, &in_order));
    let reordered =
        [(0, Some(0x1e)), (3, None), (1, None), (2, None), (6, None), (4, None), (5, None)];
    seeds.good("b-frames", file(&Mp4Options { reorder: 3, ..fragmented }, &reordered));
    let changed: Vec<_> =
        (0..8).map(|n| (n, (n % 4 == 0).then_some(if n < 4 { 0x1e } else { 0x1f }))).collect();
    seeds.good("other-sets", file(&fragmented, &changed));
    seeds.bad("progressive", file(&Mp4Options::default(), &changed));
}

/// Streams of 160x120 by parameter sets and slice headers; the pictures behind these are made up.
fn streams(seeds: &mut Seeds) {
    const DELIMITER: &[u8] = &[9, 0xf0];
    const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0x88];
    const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
    const IDR: &[u8] = &[0x65, 0xb8, 0x40, 0x08, 0x22];
    const P: &[u8] = &[0x41, 0xe2, 0x10, 0x08, 0x22];
    let stream = |units: &[&[u8]]| -> Vec<u8> {
        units.iter().flat_map(|unit| [&[0, 0, 0, 1], *unit].concat()).collect()
    };
    seeds.good("key-frame", stream(&[DELIMITER, SPS, PPS, IDR]));
    seeds.good("group", stream(&[DELIMITER, SPS, PPS, IDR, DELIMITER, P]));
    seeds.good("sets-apart", stream(&[DELIMITER, SPS, PPS, DELIMITER, IDR, DELIMITER, P, PPS]));
    seeds
        .bad("no-first-slice", stream(&[DELIMITER, SPS, PPS, IDR, DELIMITER, &[0x41, 0x42, 0xe2]]));
    seeds.bad("no-key-frame", stream(&[DELIMITER, SPS, PPS, P]));
    seeds.bad("no-sets", stream(&[DELIMITER, IDR]));
    seeds.bad("no-picture", stream(&[DELIMITER]));
    seeds.good("two-pictures", stream(&[DELIMITER, SPS, PPS, IDR, P]));
}
