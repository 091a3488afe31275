use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};
use proptest::prelude::*;

use super::*;

/// How to encode; the default is baseline 4:2:0 with the standard tables.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub colour: ColorType,
    pub sampling: SamplingFactor,
    pub progressive: bool,
    pub restart: u16,
    pub optimized: bool,
    pub quality: u8,
    /// Transform of an Adobe segment to put in.
    pub adobe: Option<u8>,
}

pub(super) const BASELINE: How = How {
    colour: ColorType::Rgb,
    sampling: SamplingFactor::R_4_2_0,
    progressive: false,
    restart: 0,
    optimized: false,
    quality: 100,
    adobe: None,
};

pub(super) fn encode(scene: &Scene, how: How) -> Vec<u8> {
    let data = scene.bytes(|[r, g, b]| match how.colour {
        ColorType::Luma => vec![r],
        ColorType::Cmyk | ColorType::CmykAsYcck => vec![255 - r, 255 - g, 255 - b, 0],
        _ => vec![r, g, b],
    });
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, how.quality);
    encoder.set_sampling_factor(how.sampling);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    encoder.set_progressive(how.progressive);
    encoder.set_optimized_huffman_tables(how.optimized);
    if how.restart > 0 {
        encoder.set_restart_interval(how.restart);
    }
    encoder.encode(&data, scene.width as u16, scene.height as u16, how.colour).unwrap();
    if let Some(transform) = how.adobe {
        let segment = [&b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"[..], &[transform]].concat();
        out.splice(2..2, segment);
    }
    out
}

fn jpeg(data: Vec<u8>) -> Payload {
    compressed("rgb8; jpeg compressed bgr8", data)
}

#[test]
fn every_sampling() {
    use SamplingFactor::{R_4_1_0, R_4_1_1, R_4_2_0, R_4_2_1, R_4_2_2, R_4_4_0, R_4_4_1, R_4_4_4};
    for (w, h) in [(160, 120), (97, 75), (96, 75), (641, 479)] {
        let scene = Scene::smooth(w, h);
        for (sampling, limit) in [
            (R_4_2_0, 3.0),
            (R_4_2_2, 3.0),
            (R_4_4_4, 3.0),
            (R_4_4_0, 3.0),
            // Chroma coarser than the output's: the mean of four pixels for two of them.
            (R_4_1_1, 4.5),
            (R_4_4_1, 4.5),
            (R_4_2_1, 4.5),
            (R_4_1_0, 4.5),
        ] {
            for (progressive, restart, optimized) in
                [(false, 0, false), (false, 3, false), (false, 0, true), (true, 0, true)]
            {
                let how = How { sampling, progressive, restart, optimized, ..BASELINE };
                let payload = jpeg(encode(&scene, how));
                // 4:1:1 and what is coarser is written with one scan per component.
                let found = decode_both(&payload, &PictureOptions::default());
                let found =
                    found.unwrap_or_else(|e| panic!("{sampling:?} {progressive} {restart}: {e}"));
                let worst = found.distance(&scene, |_, _, _| false);
                let name = format!("{sampling:?} {w}x{h} {progressive} {restart}: {worst:?}");
                assert!(worst[0] <= 3.0 && worst[1].max(worst[2]) <= limit, "{name}");
            }
        }
    }
}

#[test]
fn tiny_and_grey_pictures() {
    let options = PictureOptions::default();
    for (w, h) in SIZES {
        let grey = Scene::new(w, h, |x, y| [((x + y) % 256) as u8; 3]);
        for sampling in [SamplingFactor::R_4_2_0, SamplingFactor::R_4_4_4] {
            for restart in [0, 1] {
                let how = How { colour: ColorType::Luma, sampling, restart, ..BASELINE };
                let found = decode_both(&jpeg(encode(&grey, how)), &options).unwrap();
                let worst = found.distance(&grey, |_, _, _| false);
                assert!(worst[0] <= 5.0 && worst[1].max(worst[2]) < 0.01, "{worst:?}");
                let how = How { colour: ColorType::Rgb, ..how };
                let found = decode_both(&jpeg(encode(&grey, how)), &options).unwrap();
                let worst = found.distance(&grey, |_, _, _| false);
                assert!(worst[0] <= 5.0 && worst[1].max(worst[2]) <= 2.0, "{w}x{h} {worst:?}");
            }
        }
    }
}

#[test]
fn black_white_and_primaries() {
    // Patches of whole blocks: every sample must be right, not only the inner ones.
    let scene = Scene::patches(16 * 6, 64);
    let how = How { sampling: SamplingFactor::R_4_2_0, ..BASELINE };
    let found = decode_both(&jpeg(encode(&scene, how)), &PictureOptions::default()).unwrap();
    let below = |plane, _, y: usize| y >= if plane == 0 { 32 } else { 16 };
    let worst = found.distance(&scene, below);
    assert!(worst.iter().all(|&d| d <= 2.0), "{worst:?}");
    assert_eq!(found.at(0, 4, 4), 16, "black");
    assert_eq!(found.at(0, 20, 4), 235, "white");
}

#[test]
fn colours_without_luma_and_chroma() {
    let options = PictureOptions::default();
    for (w, h) in [(96, 64), (97, 75)] {
        let scene = Scene::smooth(w, h);
        let sampling = SamplingFactor::R_4_4_4;
        for (colour, adobe) in [
            // The encoder keeps what is given to it as YCbCr: here RGB, marked as such.
            (ColorType::Ycbcr, Some(0)),
            (ColorType::Rgb, Some(1)),
            (ColorType::Cmyk, None),
            (ColorType::CmykAsYcck, None),
        ] {
            for progressive in [false, true] {
                let how = How { colour, adobe, sampling, progressive, ..BASELINE };
                let data = encode(&scene, how);
                let found = decode_both(&jpeg(data.clone()), &options).unwrap();
                let worst = found.distance(&scene, |_, _, _| false);
                assert!(worst.iter().all(|&d| d <= 3.0), "{colour:?} {adobe:?} {worst:?}");
                check_cuts(&data, &found, !progressive);
            }
        }
    }
}

/// A cut JPEG is broken unless nothing but the end marker is missing, whatever follows the cut.
fn check_cuts(data: &[u8], whole: &Decoded, one_scan: bool) {
    let options = PictureOptions::default();
    let last = (1..=6).map(|n| data.len() - n);
    let tenths = (1..40).map(|n| data.len() * n / 40);
    for len in tenths.chain(last) {
        let mut ends = vec![&[][..], b"\xff\xd9"];
        // Fewer and more zeros than the missing blocks need, with and without an end marker.
        let [zeros, ended, filled] =
            [vec![0; 40], [&[0; 40], &b"\xff\xd9"[..]].concat(), vec![0; data.len()]];
        let filled_and_ended = [&filled[..], b"\xff\xd9"].concat();
        if one_scan && len + 400 < data.len() {
            ends.extend([&zeros[..], &ended, &filled, &filled_and_ended]);
        }
        for end in ends {
            let cut = [&data[..len], end].concat();
            let name = format!("{len} of {} bytes and {end:?}", data.len());
            match decode_as(PixelFormat::Nv12, &jpeg(cut), &options) {
                Ok(found) => {
                    assert!(found.planes == whole.planes, "wrong picture from {name}");
                    assert!(len + 6 >= data.len(), "{name}");
                }
                Err(PictureError::Broken(_)) => {
                    assert!(len + 2 < data.len() || !one_scan, "{name}");
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn cut_files_are_broken_and_those_without_end_are_not() {
    for (progressive, restart, h) in
        [(false, 0, 161), (false, 2, 161), (false, 2, 177), (true, 0, 161)]
    {
        let scene = Scene::patches(208, h);
        let data = encode(&scene, How { progressive, restart, ..BASELINE });
        let whole = decode_as(PixelFormat::Nv12, &jpeg(data.clone()), &Default::default()).unwrap();
        check_cuts(&data, &whole, !progressive);
        // What robots leave behind the end.
        for trail in [&[0; 2048][..], b"\xff\xd8\xff\xe0 and so on", &[0xff; 99], &data] {
            let payload = jpeg([&data[..], trail].concat());
            let found = decode_as(PixelFormat::Nv12, &payload, &Default::default()).unwrap();
            assert!(found.planes == whole.planes);
        }
    }
}

/// A picture whose blocks differ in the number of bits that they need.
fn noise(width: usize, height: usize) -> Scene {
    Scene::new(width, height, |x, y| {
        let n = (x * 73 + y * 151 + x * y * 7) as u32;
        [n.wrapping_mul(2_654_435_761) >> 24, n.wrapping_mul(40_503) >> 5, n].map(|n| n as u8)
    })
}

#[test]
fn bytes_that_replaced_lost_data_are_noticed() {
    use SamplingFactor::{R_4_2_0, R_4_2_2, R_4_4_4};
    let options = PictureOptions::default();
    let mut refused = 0;
    for scene in [noise(160, 120), noise(97, 75), Scene::smooth(320, 240), Scene::patches(208, 161)]
    {
        for (sampling, colour) in [
            (R_4_2_0, ColorType::Rgb),
            (R_4_2_2, ColorType::Rgb),
            (R_4_4_4, ColorType::Rgb),
            (R_4_4_4, ColorType::Luma),
        ] {
            for (quality, optimized, restart) in
                [(50, false, 0), (90, true, 0), (100, false, 0), (90, false, 7), (90, false, 20)]
            {
                let how = How { sampling, colour, quality, optimized, restart, ..BASELINE };
                let data = encode(&scene, how);
                let whole = decode_both(&jpeg(data.clone()), &options).unwrap();
                let start = positions(&data, |a, b| (a, b) == (0xff, 0xda))[0] + 14;
                let buffer = 2 * data.len();
                for tenths in [1, 3, 5, 7, 9] {
                    let at = start + (data.len() - start) * tenths / 10;
                    let cut = |fill: &[u8], end: &[u8]| [&data[..at], fill, end].concat();
                    let (zeros, lines) = (vec![0; buffer], vec![0x55; buffer]);
                    let rest = data.len() - at;
                    let mut all = vec![
                        ("zeros", cut(&zeros, b"")),
                        ("zeros and an end", cut(&zeros, b"\xff\xd9")),
                        ("zeros of the same length", cut(&zeros[..rest], b"")),
                        ("0x55", cut(&lines, b"")),
                        ("0x55 and an end", cut(&lines, b"\xff\xd9")),
                        (
                            "the scan of another picture",
                            cut(&data[start..data.len() - 2].repeat(2), b""),
                        ),
                    ];
                    // A page that was not written.
                    if rest > 700 {
                        let page = [&data[..at], &[0; 512], &data[at + 512..]].concat();
                        all.push(("a page of zeros", page));
                    }
                    for (name, data) in all {
                        let name = format!("{name} at {tenths} tenths, {sampling:?} {quality}");
                        match decode_both(&jpeg(data), &options) {
                            Ok(found) => assert!(found.planes == whole.planes, "{name}"),
                            Err(PictureError::Broken(_)) => refused += 1,
                            Err(other) => panic!("{name}: {other}"),
                        }
                    }
                }
            }
        }
    }
    assert!(refused > 2000, "{refused}");
}

#[test]
fn whole_pictures_with_runs_of_equal_bytes_are_accepted() {
    use SamplingFactor::{R_4_1_1, R_4_2_0, R_4_4_4};
    let options = PictureOptions::default();
    let mut with_runs = 0;
    for (w, h) in [(16, 16), (640, 480), (1281, 161)] {
        for scene in [
            Scene::new(w, h, |_, _| [128; 3]),
            Scene::new(w, h, |_, _| [0; 3]),
            Scene::new(w, h, |_, _| [255, 40, 90]),
            // Flat at the end, and flat in the middle.
            Scene::new(w, h, |x, y| if y < 16 { [(x * 37 % 256) as u8; 3] } else { [9; 3] }),
            Scene::new(w, h, |x, y| match y {
                32.. if y + 32 < h => [9; 3],
                _ => [(x * 37 % 256) as u8; 3],
            }),
        ] {
            for (colour, sampling) in [
                (ColorType::Rgb, R_4_2_0),
                (ColorType::Rgb, R_4_4_4),
                (ColorType::Rgb, R_4_1_1),
                (ColorType::Luma, R_4_4_4),
            ] {
                for (progressive, optimized, restart) in
                    [(false, false, 0), (false, true, 0), (false, false, 60), (true, true, 0)]
                {
                    let quality = if w == 640 { 100 } else { 75 };
                    let how = How {
                        colour,
                        sampling,
                        progressive,
                        optimized,
                        restart,
                        quality,
                        ..BASELINE
                    };
                    let data = encode(&scene, how);
                    let run = |bytes: &[u8]| bytes.iter().all(|&byte| byte == bytes[0]);
                    with_runs += usize::from(data.windows(64).any(run));
                    let name = format!("{w}x{h} {colour:?} {sampling:?} {progressive} {optimized}");
                    let decoded = decode_as(PixelFormat::Nv12, &jpeg(data.clone()), &options);
                    let whole = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
                    // Without the end marker, and with zeros behind it.
                    let filled = [&data[..], &[0; 5000]].concat();
                    let bare = data[..data.len() - 2].to_vec();
                    let scans = positions(&data, |a, b| (a, b) == (0xff, 0xda)).len();
                    for data in [Some(filled), (scans == 1).then_some(bare)].into_iter().flatten() {
                        let decoded = decode_as(PixelFormat::Nv12, &jpeg(data), &options);
                        let found = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
                        assert!(found.planes == whole.planes, "{name}");
                    }
                }
            }
        }
    }
    assert!(with_runs > 30, "{with_runs}");
}

#[test]
fn a_scan_that_is_repeated_is_refused() {
    let scene = Scene::smooth(64, 48);
    for (progressive, sampling) in
        [(true, SamplingFactor::R_4_2_0), (false, SamplingFactor::R_4_2_0)]
    {
        let data = encode(&scene, How { progressive, sampling, ..BASELINE });
        let last = *positions(&data, |a, b| (a, b) == (0xff, 0xda)).last().unwrap();
        let twice = [&data[..data.len() - 2], &data[last..]].concat();
        assert_eq!(broken_as(twice), "the JPEG repeats a scan");
    }
}

#[test]
fn a_second_start_is_refused() {
    let data = encode(&Scene::smooth(64, 48), BASELINE);
    let next = encode(&Scene::smooth(64, 48), How { quality: 10, ..BASELINE });
    let starts = positions(&data, |a, b| a == 0xff && matches!(b, 0xda | 0xdb | 0xc0 | 0xc4));
    assert!(starts.len() >= 4);
    for at in starts.into_iter().chain([data.len() / 2, data.len() - 2]) {
        let both = [&data[..at], &next].concat();
        assert_eq!(broken_as(both), "another JPEG starts in front of the end of the JPEG", "{at}");
    }
}

/// Where the bytes `pattern` are.
fn positions(data: &[u8], pattern: impl Fn(u8, u8) -> bool) -> Vec<usize> {
    (0..data.len() - 1).filter(|&at| pattern(data[at], data[at + 1])).collect()
}

fn broken_as(data: Vec<u8>) -> String {
    match decode_both(&jpeg(data), &PictureOptions::default()) {
        Err(PictureError::Broken(reason)) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => "none".into(),
    }
}

#[test]
fn an_early_end_marker_within_the_last_blocks_is_noticed() {
    let scene = Scene::patches(64, 48);
    for colour in [ColorType::Rgb, ColorType::Luma] {
        let data = encode(&scene, How { colour, ..BASELINE });
        let whole = decode_both(&jpeg(data.clone()), &PictureOptions::default()).unwrap();
        for len in data.len() - 60..data.len() - 2 {
            let cut = [&data[..len], b"\xff\xd9"].concat();
            if let Ok(found) = decode_both(&jpeg(cut), &PictureOptions::default()) {
                assert!(found.planes == whole.planes, "{len} of {} bytes", data.len());
                assert!(len + 4 >= data.len(), "{len} of {} bytes", data.len());
            }
        }
    }
}

#[test]
fn each_interval_between_restart_markers_is_complete() {
    let data = encode(&Scene::patches(208, 64), How { restart: 3, ..BASELINE });
    let markers = positions(&data, |a, b| a == 0xff && matches!(b, 0xd0..=0xd7));
    assert!(markers.len() > 10);
    for at in markers {
        // The bytes in front of a marker are the end of an interval's last block.
        let cut = [&data[..at - 8], &data[at..]].concat();
        assert!(broken_as(cut).contains("the JPEG is broken"), "{at}");
        let lost = [&data[..at], &data[at + 2..]].concat();
        assert!(broken_as(lost).contains("the JPEG is broken"), "{at}");
    }
    // Markers that no segment announces end the scan.
    assert!(broken_as(without(&data, 0xdd)).contains("the JPEG is broken"));
}

#[test]
fn a_jpeg_that_lacks_scans_is_broken() {
    let scene = Scene::smooth(160, 120);
    for (progressive, sampling) in
        [(true, SamplingFactor::R_4_2_0), (false, SamplingFactor::R_4_1_1)]
    {
        let data = encode(&scene, How { progressive, sampling, ..BASELINE });
        let scans = positions(&data, |a, b| (a, b) == (0xff, 0xda));
        assert!(scans.len() >= 3, "{}", scans.len());
        for &at in &scans {
            let fewer = [&data[..at], b"\xff\xd9"].concat();
            let reason = broken_as(fewer);
            let expected = if at == scans[0] { "no picture in it" } else { "lacks scans" };
            assert!(reason.contains(expected), "{reason}");
            assert!(broken_as(data[..at].to_vec()) != "none");
        }
    }
}

#[test]
fn segments_of_applications_are_not_looked_at() {
    let data = encode(&Scene::smooth(40, 30), BASELINE);
    let options = PictureOptions::default();
    let whole = decode_both(&jpeg(data.clone()), &options).unwrap();
    for segment in [
        &b"\xff\xe1\0\x07Exif\0"[..],
        b"\xff\xe0\0\x06JFIF",
        b"\xff\xe0\0\x07AVI1\0",
        b"\xff\xe2\0\x0fICC_PROFILE\0\xff",
        b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x09",
        b"\xff\xfe\0\x02",
    ] {
        let with = [&data[..2], segment, &data[2..]].concat();
        let found = decode_both(&jpeg(with), &options).unwrap();
        assert!(found.planes == whole.planes, "{segment:x?}");
    }
}

#[test]
fn a_second_frame_header_is_refused() {
    let data = encode(&Scene::smooth(40, 30), BASELINE);
    let frame = positions(&data, |a, b| (a, b) == (0xff, 0xc0))[0];
    let length = usize::from(u16::from_be_bytes([data[frame + 2], data[frame + 3]]));
    let twice = [&data[..frame], &data[frame..frame + 2 + length], &data[frame..]].concat();
    assert_eq!(broken_as(twice), "the JPEG has more than one frame header");
}

#[test]
fn headers_with_fill_bytes() {
    let data = encode(&Scene::smooth(40, 30), BASELINE);
    let filled = [&data[..2], &[0xff; 5], &data[2..]].concat();
    let sized = size(&jpeg(filled.clone()), &PictureOptions::default());
    assert_eq!(sized, Ok(Resolution::new(40, 30)));
    assert!(decode_both(&jpeg(filled), &PictureOptions::default()).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_flipped_bits_make_it_panic(
        progressive: bool,
        grey: bool,
        four_four_four: bool,
        flips in prop::collection::vec((any::<usize>(), 0u8..8), 1..6),
    ) {
        let sampling =
            if four_four_four { SamplingFactor::R_4_4_4 } else { SamplingFactor::R_4_2_0 };
        let colour = if grey { ColorType::Luma } else { ColorType::Rgb };
        let mut data =
            encode(&Scene::patches(50, 35), How { progressive, colour, sampling, ..BASELINE });
        let length = data.len();
        for (at, bit) in flips {
            // Half of them in the headers.
            let at = if at % 2 == 0 { at % length } else { at % length.min(700) };
            data[at.max(2)] ^= 1 << bit;
        }
        let limits = Limits { pixels: 100_000, ..Limits::default() };
        let options = PictureOptions { limits, ..PictureOptions::default() };
        let _ = decode_as(PixelFormat::Yuv420p, &jpeg(data), &options);
    }

    #[test]
    fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..600)) {
        let options = PictureOptions::default();
        let _ = size(&jpeg([&[0xff, 0xd8], &data[..]].concat()), &options);
        let _ = size(&jpeg(data), &options);
    }
}

/// Takes out the segments that begin with `marker`.
fn without(jpeg: &[u8], marker: u8) -> Vec<u8> {
    let mut out = jpeg[..2].to_vec();
    let mut at = 2;
    while jpeg[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        if jpeg[at + 1] != marker {
            out.extend_from_slice(&jpeg[at..end]);
        }
        at = end;
    }
    out.extend_from_slice(&jpeg[at..]);
    out
}

#[test]
fn pictures_of_motion_jpeg_without_their_tables() {
    let scene = Scene::smooth(97, 75);
    let whole = encode(&scene, BASELINE);
    let bare = without(&whole, 0xc4);
    assert!(bare.len() + 400 < whole.len());
    let options = PictureOptions::default();
    let worst = decode_both(&jpeg(bare), &options).unwrap().distance(&scene, |_, _, _| false);
    let same = decode_both(&jpeg(whole), &options).unwrap().distance(&scene, |_, _, _| false);
    assert_eq!(worst, same);
}
