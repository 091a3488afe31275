use proptest::prelude::*;

use super::*;
use encoder_media::RawImage;

pub(super) fn image(encoding: &str, w: usize, h: usize, step: usize, data: Vec<u8>) -> Payload {
    Payload::Raw(RawImage {
        encoding: encoding.into(),
        width: w as u32,
        height: h as u32,
        step: step as u32,
        is_bigendian: false,
        data: data.into(),
    })
}

/// Puts `padding` bytes of A5 behind every row; the last row goes without if `cut`.
fn padded(data: &[u8], row_bytes: usize, padding: usize, cut: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for row in data.chunks(row_bytes) {
        out.extend_from_slice(row);
        out.extend(std::iter::repeat_n(0xa5, padding));
    }
    out.truncate(out.len() - if cut { padding } else { 0 });
    out
}

fn rgb_like(scene: &Scene, encoding: &str) -> Vec<u8> {
    scene.bytes(|[r, g, b]| match encoding {
        "rgb8" => vec![r, g, b],
        "bgr8" | "8UC3" => vec![b, g, r],
        "rgba8" => vec![r, g, b, 77],
        _ => vec![b, g, r, 0],
    })
}

#[test]
fn colours_of_every_size_step_and_order() {
    let options = PictureOptions::default();
    for (w, h) in SIZES {
        let scene = Scene::patches(w, h);
        let mut first = None;
        for encoding in ["rgb8", "BGR8", "rgba8", "bgra8", "8UC3", "8uc4"] {
            let data = rgb_like(&scene, &encoding.replace("BGR", "bgr"));
            let row = data.len() / h;
            for (padding, cut) in [(0, false), (58, false), (58, true), (1, true)] {
                let data = padded(&data, row, padding, cut);
                let step = if padding == 0 { 0 } else { row + padding };
                let found = decode_both(&image(encoding, w, h, step, data), &options).unwrap();
                let worst = found.distance(&scene, |_, _, _| false);
                // The converter rounds the mean colour before it makes chroma of it.
                assert!(worst[0] <= 1.5 && worst[1].max(worst[2]) <= 1.5, "{worst:?} {w}x{h}");
                let first = &*first.get_or_insert(found.planes.clone());
                assert!(*first == found.planes, "{encoding} {w}x{h} +{padding} differs");
            }
        }
    }
}

/// The 8 bits of Y, U and V of a scene, as a camera would give them: `across` and `down` pixels
/// for a sample of chroma.
fn yuv_planes(scene: &Scene, across: usize, down: usize, full_range: bool) -> [Vec<u8>; 3] {
    let sample = |plane: usize, rgb| {
        let v = bt601(rgb)[plane];
        let v = match (full_range, plane) {
            (false, _) => v,
            (true, 0) => (v - 16.0) * 255.0 / 219.0,
            (true, _) => (v - 128.0) * 255.0 / 224.0 + 128.0,
        };
        v.round() as u8
    };
    let plane = |i, across: usize, down: usize| {
        let (w, h) = (scene.width.div_ceil(across), scene.height.div_ceil(down));
        let at = |n| scene.mean(n % w * across, n / w * down, across, down);
        (0..w * h).map(|n| sample(i, at(n))).collect()
    };
    [plane(0, 1, 1), plane(1, across, down), plane(2, across, down)]
}

fn interleaved(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).flat_map(|(&a, &b)| [a, b]).collect()
}

#[test]
fn planes_of_every_kind() {
    let options = PictureOptions::default();
    let table = [
        ("nv12", 2, 2),
        ("NV21", 2, 2),
        ("nv16", 2, 1),
        ("nv24", 1, 1),
        ("i420", 2, 2),
        ("yuv420p", 2, 2),
        ("YV12", 2, 2),
        ("i422", 2, 1),
        ("i444", 1, 1),
        ("i420_full", 2, 2),
        ("i422_full", 2, 1),
        ("i444_full", 1, 1),
    ];
    for ((w, h), (encoding, across, down)) in
        SIZES.iter().flat_map(|&size| table.map(|row| (size, row)))
    {
        let scene = Scene::patches(w, h);
        let [y, u, v] = yuv_planes(&scene, across, down, encoding.ends_with("full"));
        let lower = encoding.to_ascii_lowercase();
        let chroma = match &lower[..] {
            "nv21" => interleaved(&v, &u),
            nv if nv.starts_with("nv") => interleaved(&u, &v),
            "yv12" => [v.clone(), u.clone()].concat(),
            _ => [u.clone(), v.clone()].concat(),
        };
        let tight = decode_both(&image(encoding, w, h, 0, [&y[..], &chroma].concat()), &options);
        let tight = tight.unwrap();
        let worst = tight.distance(&scene, |_, _, _| false);
        assert!(worst.iter().all(|&d| d <= 1.6), "{encoding} {w}x{h}: {worst:?}");
        if across == 2 && down == 2 && !encoding.ends_with("full") {
            assert!(tight.planes[1] == u && tight.planes[2] == v, "{encoding} is copied");
        }
        // The same with padding, which chroma has in proportion.
        let step = (w + 13).next_multiple_of(2);
        let samples = w.div_ceil(across);
        let (row, chroma_step) = match lower.starts_with("nv") {
            true => (2 * samples, 2 * step / across),
            false => (samples, step / across),
        };
        let chroma = padded(&chroma, row, chroma_step - row, true);
        let data = [padded(&y, w, step - w, false), chroma].concat();
        let found = decode_both(&image(encoding, w, h, step, data), &options).unwrap();
        assert!(found.planes == tight.planes, "{encoding} {w}x{h} with padding differs");
    }
}

#[test]
fn packed_422_in_both_orders() {
    let options = PictureOptions::default();
    for (w, h) in SIZES {
        let scene = Scene::patches(w, h);
        let [y, u, v] = yuv_planes(&scene, 2, 1, false);
        let mut yuyv = Vec::new();
        for (n, &luma) in y.iter().enumerate() {
            let (x, pair) = (n % w, n / w * w.div_ceil(2) + n % w / 2);
            yuyv.extend([luma, if x % 2 == 0 { u[pair] } else { v[pair] }]);
        }
        let uyvy: Vec<u8> = yuyv.chunks(2).flat_map(|p| [p[1], p[0]]).collect();
        let mut first = None;
        for (encoding, data) in [
            ("yuv422_yuy2", &yuyv),
            ("yuyv", &yuyv),
            ("YUY2", &yuyv),
            ("yuv422", &uyvy),
            ("UYVY", &uyvy),
        ] {
            for padding in [0, 10] {
                let data = padded(data, 2 * w, padding, true);
                let payload = image(encoding, w, h, 2 * w + padding, data);
                let found = decode_both(&payload, &options).unwrap();
                // The last pixel of an odd row has no V of its own, a single pixel no colour.
                let skip =
                    |plane, x, _| w % 2 == 1 && (plane == 2 && x == w / 2 || plane == 1 && w == 1);
                let worst = found.distance(&scene, skip);
                assert!(worst.iter().all(|&d| d <= 1.6), "{encoding} {w}x{h}: {worst:?}");
                assert!(w > 1 || found.planes[1].iter().all(|&v| v == 128));
                let first = &*first.get_or_insert(found.planes.clone());
                assert!(*first == found.planes, "{encoding} {w}x{h} +{padding} differs");
            }
        }
    }
}

#[test]
fn grey_of_8_and_16_bits() {
    let options = PictureOptions::default();
    for (w, h) in SIZES {
        let scene = Scene::new(w, h, |x, y| [(x * 7 + y * 13) as u8; 3]);
        let grey = scene.bytes(|p| vec![p[0]]);
        for encoding in ["mono8", "8UC1", "Mono8"] {
            let payload = image(encoding, w, h, w + 3, padded(&grey, w, 3, true));
            let found = decode_both(&payload, &options).unwrap();
            assert!(found.distance(&scene, |_, _, _| false).iter().all(|&d| d <= 0.5));
        }
        for big in [false, true] {
            let two = |v: u8| if big { [v, 0xa5] } else { [0xa5, v] };
            let data: Vec<u8> = grey.iter().flat_map(|&v| two(v)).collect();
            let Payload::Raw(mut raw) = image("mono16", w, h, 0, data) else { unreachable!() };
            raw.is_bigendian = big;
            let found = decode_both(&Payload::Raw(raw), &options).unwrap();
            assert!(found.distance(&scene, |_, _, _| false).iter().all(|&d| d <= 0.5));
        }
    }
}

/// What a camera with a mosaic before its sensor sees; `pattern` names the first four pixels.
fn mosaic(scene: &Scene, pattern: &str) -> Vec<u8> {
    let at = |i: usize| {
        let (x, y) = (i % scene.width, i / scene.width);
        let colour = pattern.as_bytes()[y % 2 * 2 + x % 2];
        scene.pixels[i]["rgb".bytes().position(|c| c == colour).unwrap()]
    };
    (0..scene.pixels.len()).map(at).collect()
}

#[test]
fn mosaics_of_every_pattern() {
    let options = PictureOptions::default();
    for pattern in ["rggb", "bggr", "gbrg", "grbg"] {
        for (w, h) in [(641, 479), (2, 2), (3, 5), (64, 48)] {
            // A flat colour comes back at the edges too, a ramp except for the mirrored edge.
            let flat = Scene::new(w, h, |_, _| [200, 60, 30]);
            let step = 255 / w.min(h) + 1;
            let ramp = Scene::smooth(w, h);
            for (scene, limit) in [(&flat, 1.5), (&ramp, 1.5 + 1.5 * step as f64)] {
                let data = mosaic(scene, pattern);
                let payload =
                    image(&format!("bayer_{pattern}8"), w, h, w + 7, padded(&data, w, 7, true));
                let found = decode_both(&payload, &options).unwrap();
                if w > 3 || limit < 2.0 {
                    let worst = found.distance(scene, |_, _, _| false);
                    assert!(worst.iter().all(|&d| d <= limit), "{pattern} {w}x{h}: {worst:?}");
                }
                let wide = data.iter().flat_map(|&v| [0xa5, v]).collect();
                let payload = image(&format!("BAYER_{pattern}16"), w, h, 0, wide);
                let wide = decode_both(&payload, &options).unwrap();
                assert!(wide.planes == found.planes);
            }
        }
        let tiny = image(&format!("bayer_{pattern}8"), 1, 1, 0, vec![9]);
        assert!(decode_both(&tiny, &options).is_ok());
    }
}

#[test]
fn refusals() {
    let options = PictureOptions::default();
    let table = [
        (
            "rgb8",
            640,
            480,
            1920,
            30,
            "malformed: 640x480 rgb8 needs 921600 bytes, the message has 30",
        ),
        ("rgb8", 0, 480, 0, 30, "malformed: a picture of 0x480 has no pixels"),
        ("hologram12", 0, 0, 0, 0, "malformed: a picture of 0x0 has no pixels"),
        ("rgb8", 2, 2, 0, 0, "malformed: the message holds no picture data"),
        (
            "hologram12",
            2,
            2,
            0,
            9,
            "unsupported: the encoding `hologram12` is not known; known are",
        ),
        (
            "rgb8",
            4,
            2,
            11,
            99,
            "malformed: a row of 4 pixels rgb8 has 12 bytes, the step is only 11",
        ),
        ("nv12", 3, 3, 0, 16, "malformed: 3x3 nv12 needs 17 bytes, the message has 16"),
        ("i420", 3, 3, 0, 16, "malformed: 3x3 i420 needs 17 bytes, the message has 16"),
        ("i444", 4, 2, 0, 23, "malformed: 4x2 i444 needs 24 bytes"),
        ("YUYV", 4, 2, 0, 15, "malformed: 4x2 yuyv needs 16 bytes"),
        ("16UC1", 4, 2, 0, 16, "unsupported: 16UC1 is depth, not a picture; `--depth-range"),
        ("32FC1", 4, 2, 0, 32, "unsupported: 32FC1 is depth"),
        ("mono8", 65536, 65536, 0, 9, "malformed: 65536x65536 is more than the limit"),
    ];
    for (encoding, w, h, step, bytes, expected) in table {
        let found = error(&image(encoding, w, h, step, vec![1; bytes]), &options);
        assert!(found.starts_with(expected), "{encoding} {w}x{h}: {found}");
    }
    let huge = PictureOptions {
        limits: Limits { pixels: u64::MAX, ..Limits::default() },
        ..PictureOptions::default()
    };
    for encoding in ["rgba8", "i444", "nv24", "yuyv", "bayer_rggb16"] {
        let payload = image(encoding, 0xffff_fffe, 0xffff_fffe, 0xffff_ffff, vec![1; 9]);
        assert!(error(&payload, &huge).starts_with("malformed"));
        let payload = image(encoding, 0xffff_ffff, 1, 0, vec![1; 9]);
        assert!(error(&payload, &huge).starts_with("malformed"));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        encoding in prop::sample::select(vec![
            "rgb8", "bgra8", "mono16", "16UC1", "32FC1", "bayer_gbrg8", "bayer_grbg16", "yuv422",
            "yuyv", "nv12", "nv24", "i420", "i422_full", "i444",
        ]),
        (w, h) in (0usize..20, 0usize..20),
        step in 0usize..90,
        data in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let options = PictureOptions { depth_range: Some((0.0, 9e3)), ..Default::default() };
        let payload = image(encoding, w, h, step, data);
        // What the size accepts is decoded.
        let sized = size(&payload, &options);
        prop_assert_eq!(decode_both(&payload, &options).err(), sized.err());
    }
}

#[test]
fn names_of_ffmpeg_are_understood() {
    let options = PictureOptions::default();
    let data: Vec<u8> = (0..=255).cycle().take(16 * 16 * 4).collect();
    for (name, ros) in [
        ("rgb24", "rgb8"),
        ("bgr24", "bgr8"),
        ("rgba", "rgba8"),
        ("bgra", "bgra8"),
        ("gray", "mono8"),
        ("gray8", "mono8"),
        ("GRAY8", "mono8"),
        ("yuyv422", "yuv422_yuy2"),
        ("uyvy422", "uyvy"),
        ("yuv420p", "i420"),
        ("yuv422p", "i422"),
        ("yuv444p", "i444"),
        ("yuvj420p", "i420_full"),
        ("yuvj422p", "i422_full"),
        ("yuvj444p", "i444_full"),
    ] {
        let [named, expected] = [name, ros]
            .map(|name| decode_both(&image(name, 16, 16, 0, data.clone()), &options).unwrap());
        assert!(named.planes == expected.planes, "{name}");
    }
    // A name that is a part of another is not guessed.
    for name in ["rgb", "bgr", "rgb2", "gray16", "yuv"] {
        assert!(size(&image(name, 16, 16, 0, data.clone()), &options).is_err(), "{name}");
    }
}
