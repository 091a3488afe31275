//! What the `format` of a compressed picture says, bits that are not used, and orientations.

use jpeg_encoder::ColorType;

use super::{
    jpeg::{BASELINE, How, encode as encode_jpeg},
    raw::image,
    *,
};

/// Grey of 8 or 16 bits, or RGB, as PNG.
fn png(width: usize, colour: ::png::ColorType, depth: ::png::BitDepth, data: &[u8]) -> Vec<u8> {
    let pixel = if colour == ::png::ColorType::Rgb { 3 } else { 1 };
    let sample = if depth == ::png::BitDepth::Sixteen { 2 } else { 1 };
    let height = data.len() / (width * pixel * sample);
    let mut out = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut out, width as u32, height as u32);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    out
}

fn grey_png(width: usize, data: &[u8]) -> Vec<u8> {
    png(width, ::png::ColorType::Grayscale, ::png::BitDepth::Eight, data)
}

fn grey_jpeg(scene: &Scene, how: How) -> Vec<u8> {
    encode_jpeg(scene, How { colour: ColorType::Luma, ..how })
}

/// The mosaic of a scene: each pixel has one colour.
fn mosaic(scene: &Scene, (red_x, red_y): (usize, usize)) -> Vec<u8> {
    let channel = |x, y| match (x % 2 == red_x, y % 2 == red_y) {
        (true, true) => 0,
        (false, false) => 2,
        _ => 1,
    };
    let (w, h) = (scene.width, scene.height);
    (0..w * h).map(|i| scene.pixels[i][channel(i % w, i / w) as usize]).collect()
}

fn grey(width: usize, samples: &[u8]) -> Scene {
    Scene::new(width, samples.len() / width, |x, y| [samples[y * width + x]; 3])
}

fn picture(payload: &Payload) -> Decoded {
    decode_both(payload, &PictureOptions::default()).unwrap()
}

#[test]
fn a_mosaic_in_a_file_of_one_channel() {
    // Slow changes, which JPEG keeps.
    let scene = Scene::smooth(96, 64);
    for (pattern, red) in [("rggb", (0, 0)), ("bggr", (1, 1)), ("gbrg", (0, 1)), ("grbg", (1, 0))] {
        let samples = mosaic(&scene, red);
        let raw = picture(&image(&format!("bayer_{pattern}8"), 96, 64, 0, samples.clone()));
        let lossless = grey_png(96, &samples);
        let wide: Vec<_> = samples.iter().flat_map(|&v| [v, 0x11]).collect();
        let wide = png(96, ::png::ColorType::Grayscale, ::png::BitDepth::Sixteen, &wide);
        for (format, data) in [
            (format!("bayer_{pattern}8; png compressed "), lossless.clone()),
            (format!("bayer_{pattern}8;png compressed bgr8"), lossless),
            (format!("bayer_{pattern}16; png compressed "), wide),
        ] {
            assert!(picture(&compressed(&format, data)).planes == raw.planes, "{format}");
        }
        for how in [
            BASELINE,
            How { progressive: true, ..BASELINE },
            How { restart: 2, ..BASELINE },
            How { adobe: Some(0), ..BASELINE },
        ] {
            let mut data = grey_jpeg(&grey(96, &samples), how);
            for _ in 0..2 {
                let format = format!("bayer_{pattern}8; jpeg compressed bgr8");
                let found = picture(&compressed(&format, data.clone()));
                let worst = found.distance(&scene, |_, _, _| false);
                assert!(worst.iter().all(|&d| d <= 8.0), "{pattern} {worst:?}");
                // Without the end marker.
                data.truncate(data.len() - 2);
                if how.progressive {
                    break;
                }
            }
        }
        // The source was Bayer, the file has colours already.
        let data = encode_jpeg(&scene, BASELINE);
        let found = picture(&compressed("bayer_rggb8; jpeg compressed bgr8", data));
        assert!(found.distance(&scene, |_, _, _| false)[1] <= 3.0);
    }
    // A cut mosaic is broken, as every cut JPEG is.
    let mut data = grey_jpeg(&grey(96, &mosaic(&scene, (0, 0))), BASELINE);
    data.truncate(data.len() / 2);
    let payload = compressed("bayer_rggb8; jpeg compressed ", data);
    assert!(matches!(
        decode_both(&payload, &PictureOptions::default()),
        Err(PictureError::Broken(_))
    ));
}

#[test]
fn the_order_of_colours_in_the_file() {
    let scene = Scene::smooth(48, 32);
    let swapped = Scene::new(48, 32, |x, y| {
        let [r, g, b] = scene.pixels[y * 48 + x];
        [b, g, r]
    });
    let file = |scene: &Scene| {
        let data = scene.bytes(Vec::from);
        [
            encode_jpeg(scene, BASELINE),
            encode_jpeg(scene, How { progressive: true, ..BASELINE }),
            png(48, ::png::ColorType::Rgb, ::png::BitDepth::Eight, &data),
        ]
    };
    for (format, is_swapped) in [
        ("rgb8; jpeg compressed bgr8", false),
        ("bgr8; png compressed bgr8", false),
        ("bgra8; jpeg compressed bgr8", false),
        ("rgb16; png compressed bgr16", false),
        ("yuv422; jpeg compressed bgr8", false),
        ("8UC3; jpeg compressed ", false),
        ("jpeg", false),
        ("", false),
        ("rgb8; jpeg compressed", false),
        ("bgr8; jpeg compressed", false),
        ("rgb8; jpeg compressed rgb8", true),
        ("bgr8; png compressed rgb8", true),
    ] {
        for data in file(if is_swapped { &swapped } else { &scene }) {
            let payload = compressed(format, data);
            let worst = picture(&payload).distance(&scene, |_, _, _| false);
            assert!(worst.iter().all(|&d| d <= 3.0), "{format} {worst:?}");
            let remarks = remarks(&payload, &PictureOptions::default());
            let is_unknown = ["rgb8; jpeg compressed", "bgr8; jpeg compressed"].contains(&format);
            let expected = is_unknown.then_some(Remark::UnknownOrder);
            assert_eq!(remarks, Vec::from_iter(expected), "{format}");
        }
    }
    for format in ["mono8; jpeg compressed ", "rgb8; jpeg compressed "] {
        let payload = compressed(format, grey_jpeg(&scene, BASELINE));
        assert_eq!(remarks(&payload, &PictureOptions::default()), [], "{format}");
    }
}

#[test]
fn adobe_transforms_that_do_not_exist_for_the_components() {
    let scene = Scene::smooth(64, 48);
    for progressive in [false, true] {
        for adobe in 0..=9 {
            let how = How { adobe: Some(adobe), progressive, ..BASELINE };
            let data = grey_jpeg(&scene, how);
            let plain = grey_jpeg(&scene, How { adobe: None, ..how });
            let without_end = [data[..data.len() - 2].to_vec(), plain[..plain.len() - 2].to_vec()];
            let plain = picture(&compressed("jpeg", plain));
            assert!(picture(&compressed("jpeg", data)).planes == plain.planes, "grey {adobe}");
            if !progressive {
                let [data, plain] = without_end.map(|data| picture(&compressed("jpeg", data)));
                assert!(data.planes == plain.planes, "grey {adobe}");
            }
            if adobe > 1 {
                let found = picture(&compressed("jpeg", encode_jpeg(&scene, how)));
                let worst = found.distance(&scene, |_, _, _| false);
                assert!(worst.iter().all(|&d| d <= 3.0), "colours {adobe} {worst:?}");
            }
        }
    }
    // A segment that is too short counts as if it were not there.
    let mut data = grey_jpeg(&scene, BASELINE);
    data.splice(2..2, *b"\xff\xee\0\x0bAdobe\0\x64\0\0");
    assert!(
        picture(&compressed("jpeg", data)).distance(&grey_of(&scene), |_, _, _| false)[0] <= 3.0
    );
}

#[test]
fn headers_of_very_many_segments() {
    let scene = Scene::smooth(64, 48);
    let plain = grey_jpeg(&scene, BASELINE);
    let mut data = plain.clone();
    data.splice(2..2, b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x02".repeat(20_000));
    let found = picture(&compressed("jpeg", data));
    assert!(found.planes == picture(&compressed("jpeg", plain.clone())).planes);
    // EXIF data that leads out of its segment, and chunks without a content.
    let nowhere = jpeg_with(b"MM\0*\xff\xff\xff\xff", plain);
    let mut chunks = grey_png(4, &[7; 8]);
    chunks.splice(33..33, b"\0\0\0\0teXt\0\0\0\0".repeat(20_000));
    for payload in [compressed("jpeg", nowhere), compressed("png", chunks)] {
        assert_eq!(remarks(&payload, &PictureOptions::default()), []);
    }
}

/// The red channel as grey, which [`encode_jpeg`] stores of a grey picture.
fn grey_of(scene: &Scene) -> Scene {
    Scene::new(scene.width, scene.height, |x, y| [scene.pixels[y * scene.width + x][0]; 3])
}

#[test]
fn samples_that_use_few_of_their_bits() {
    let options = |bits| PictureOptions { bits, ..PictureOptions::default() };
    let values: [u16; 6] = [0, 256, 512, 1023, 1024, 65_535];
    let luma = |full: f64| (16.0 + full * 219.0 / 255.0).round() as u8;
    let big: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
    let little: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let Payload::Raw(mut raw) = image("mono16", 6, 1, 0, little.clone()) else { unreachable!() };
    let little = Payload::Raw(raw.clone());
    (raw.is_bigendian, raw.data) = (true, big.clone().into());
    let file = png(6, ::png::ColorType::Grayscale, ::png::BitDepth::Sixteen, &big);
    for payload in [little, Payload::Raw(raw), compressed("mono16; png compressed ", file)] {
        for (bits, expected) in [
            (Some(10), [0.0, 64.0, 128.0, 255.0, 255.0, 255.0]),
            (Some(12), [0.0, 16.0, 32.0, 63.0, 64.0, 255.0]),
            (Some(16), [0.0, 1.0, 2.0, 3.0, 4.0, 255.0]),
            (None, [0.0, 1.0, 2.0, 3.0, 4.0, 255.0]),
        ] {
            let found = decode_both(&payload, &options(bits)).unwrap();
            assert_eq!(found.planes[0][..6], expected.map(luma), "{bits:?}");
        }
        let mut levels = Levels::default();
        assert!(levels.add(&payload, &PictureOptions::default()));
        assert_eq!((levels.bits(), levels.highest()), (Some(11), 1024));
    }
    // A mosaic of 12 bits is that of 8 bits.
    let samples = mosaic(&Scene::smooth(16, 16), (0, 0));
    let narrow = picture(&image("bayer_rggb8", 16, 16, 0, samples.clone()));
    let wide = samples.iter().flat_map(|&v| (u16::from(v) << 4 | 7).to_le_bytes()).collect();
    let wide = image("bayer_rggb16", 16, 16, 0, wide);
    assert!(decode_both(&wide, &options(Some(12))).unwrap().planes == narrow.planes);
}

#[test]
fn values_above_the_bits_that_are_shown() {
    // A hole, and values of which one in 2000 does not count.
    let mut values = vec![1023u16; 4000];
    values[0] = u16::MAX;
    values[1..3].fill(2000);
    let clipped = |values: &[u16], options: PictureOptions| {
        let big: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
        let little = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let file = png(80, ::png::ColorType::Grayscale, ::png::BitDepth::Sixteen, &big);
        let payloads = [
            image("mono16", 80, 50, 0, little),
            compressed("png", file.clone()),
            compressed("png", png_with(&exif(6, true), file)),
        ];
        let found = payloads.map(|payload| {
            let size = size(&payload, &options).unwrap();
            let layout = FrameLayout::new(PixelFormat::Yuv420p, size);
            decode(&payload, &options, &layout, &mut vec![0; layout.bytes()]).unwrap()
        });
        assert!(found[0] == found[1] && found[0] == found[2], "{found:?}");
        found[0]
    };
    let options = |bits| PictureOptions { bits, turn_upright: true, ..PictureOptions::default() };
    assert_eq!(clipped(&values, options(Some(10))), None);
    values[3] = 1024;
    let found = Some(Clipped { bits: 10, highest: 2000 });
    assert_eq!(clipped(&values, options(Some(10))), found);
    for bits in [Some(11), Some(16), None] {
        assert_eq!(clipped(&values, options(bits)), None);
    }
}

#[test]
fn only_pictures_of_16_bits_have_levels() {
    let scene = Scene::smooth(16, 16);
    let wide = [7, 0].repeat(256);
    let file =
        |format, colour, depth, data: &[u8]| compressed(format, png(16, colour, depth, data));
    use ::png::{BitDepth::*, ColorType::*};
    for (payload, expected) in [
        (image("mono16", 16, 16, 0, wide.clone()), true),
        (image("bayer_rggb16", 16, 16, 0, wide.clone()), true),
        (file("png", Grayscale, Sixteen, &wide), true),
        (file("16UC1; png compressed ", Grayscale, Sixteen, &wide), false),
        (image("16UC1", 16, 16, 0, wide.clone()), false),
        (image("mono16", 16, 17, 0, wide), false),
        (image("mono8", 16, 16, 0, vec![7; 256]), false),
        (file("png", Grayscale, Eight, &[7; 256]), false),
        (file("png", Rgb, Eight, &scene.bytes(Vec::from)), false),
        (compressed("jpeg", encode_jpeg(&scene, BASELINE)), false),
        (compressed("png", b"\x89PNG\r\n\x1a\nbroken".to_vec()), false),
    ] {
        assert_eq!(Levels::default().add(&payload, &PictureOptions::default()), expected);
    }
}

#[test]
fn what_a_user_names_is_depth() {
    let options = PictureOptions {
        depth_range: Some((0.0, 219.0)),
        is_depth: true,
        ..PictureOptions::default()
    };
    let values: Vec<u8> = [0u16, 100, 219, 300].iter().flat_map(|v| v.to_be_bytes()).collect();
    let Payload::Raw(mut raw) = image("mono16", 4, 1, 0, values.clone()) else { unreachable!() };
    raw.is_bigendian = true;
    let file = png(4, ::png::ColorType::Grayscale, ::png::BitDepth::Sixteen, &values);
    for (payload, expected) in [
        (Payload::Raw(raw), [16, 116, 235, 235]),
        (compressed("png", file.clone()), [16, 116, 235, 235]),
        (compressed("mono16; png compressed ", file), [16, 116, 235, 235]),
        (image("mono8", 4, 1, 0, vec![0, 1, 100, 255]), [16, 17, 116, 235]),
    ] {
        assert_eq!(decode_both(&payload, &options).unwrap().planes[0][..4], expected);
    }
    for payload in [
        image("rgb8", 1, 1, 0, vec![0; 3]),
        image("bayer_rggb16", 1, 1, 0, vec![0; 2]),
        compressed("jpeg", encode_jpeg(&Scene::smooth(8, 8), BASELINE)),
        compressed("png", grey_png(1, &[7])),
    ] {
        assert!(error(&payload, &options).contains("is said to be depth, and holds none"));
    }
}

/// EXIF data with the tag of the orientation behind another one.
fn exif(orientation: u16, big: bool) -> Vec<u8> {
    let two = |v: u16| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let four = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let mut out = if big { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
    out.extend(four(8));
    out.extend(two(2));
    for (tag, value) in [(0x100, 9), (0x112, orientation)] {
        out.extend([two(tag), two(3)].concat());
        out.extend(four(1));
        out.extend([two(value), two(0)].concat());
    }
    out.extend(four(0));
    out
}

fn jpeg_with(exif: &[u8], mut jpeg: Vec<u8>) -> Vec<u8> {
    let segment = [b"Exif\0\0", exif].concat();
    let length = (segment.len() as u16 + 2).to_be_bytes();
    jpeg.splice(2..2, [&[0xff, 0xe1], &length[..], &segment].concat());
    jpeg
}

/// The chunk goes behind the header; its checksum is not looked at where it is read.
fn png_with(exif: &[u8], mut png: Vec<u8>) -> Vec<u8> {
    let chunk = [b"eXIf", exif].concat();
    let length = (exif.len() as u32).to_be_bytes();
    let checksum = chunk.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    });
    png.splice(33..33, [&length[..], &chunk, &(!checksum).to_be_bytes()].concat());
    png
}

#[test]
fn pictures_are_upright_by_choice() {
    let upright = PictureOptions { turn_upright: true, ..PictureOptions::default() };
    for (w, h) in [(48, 32), (40, 64), (33, 16)] {
        let scene = Scene::smooth(w, h);
        let at = |x: usize, y: usize| scene.pixels[y * w + x];
        // How the picture is stored with each orientation, by the definition: 6 is turned to the
        // right when it is shown.
        for orientation in 1..=8u16 {
            let (stored_w, stored_h) = if orientation < 5 { (w, h) } else { (h, w) };
            let stored = Scene::new(stored_w, stored_h, |x, y| match orientation {
                1 => at(x, y),
                2 => at(w - 1 - x, y),
                3 => at(w - 1 - x, h - 1 - y),
                4 => at(x, h - 1 - y),
                5 => at(y, x),
                6 => at(w - 1 - y, x),
                7 => at(w - 1 - y, h - 1 - x),
                _ => at(y, h - 1 - x),
            });
            for big in [false, true] {
                let exif = exif(orientation, big);
                let pixels = stored.bytes(Vec::from);
                let file = png(stored_w, ::png::ColorType::Rgb, ::png::BitDepth::Eight, &pixels);
                for payload in [
                    compressed("jpeg", jpeg_with(&exif, encode_jpeg(&stored, BASELINE))),
                    compressed("png", png_with(&exif, file)),
                ] {
                    let as_stored = picture(&payload);
                    let worst = as_stored.distance(&stored, |_, _, _| false);
                    assert!(worst.iter().all(|&d| d <= 3.0), "{orientation} {worst:?}");
                    let turned = Remark::Orientation(orientation as u8);
                    let expected = Vec::from_iter((orientation > 1).then_some(turned));
                    assert_eq!(remarks(&payload, &PictureOptions::default()), expected);
                    assert_eq!(remarks(&payload, &upright), []);

                    let size = size(&payload, &upright).unwrap();
                    assert_eq!((size.width as usize, size.height as usize), (w, h));
                    let found = decode_both(&payload, &upright).unwrap();
                    let worst = found.distance(&scene, |_, _, _| false);
                    // Chroma of an odd side may lie half a pixel beside.
                    let limit = if w % 2 == 1 { 8.0 } else { 3.0 };
                    assert!(worst[0] <= 3.0, "{orientation} {w}x{h} {worst:?}");
                    assert!(worst[1].max(worst[2]) <= limit, "{orientation} {w}x{h} {worst:?}");
                }
            }
        }
    }
}

#[test]
fn a_picture_may_have_several_remarks() {
    let data = jpeg_with(&exif(6, false), encode_jpeg(&Scene::smooth(16, 8), BASELINE));
    let found = remarks(&compressed("bgr8; jpeg compressed", data), &PictureOptions::default());
    assert_eq!(found, [Remark::UnknownOrder, Remark::Orientation(6)]);
}

#[test]
fn broken_exif_is_no_orientation() {
    let options = PictureOptions { turn_upright: true, ..PictureOptions::default() };
    let file = encode_jpeg(&Scene::smooth(16, 8), BASELINE);
    let whole = exif(6, false);
    for bytes in
        (0..whole.len()).map(|n| whole[..n].to_vec()).chain([exif(0, true), exif(9, false)])
    {
        let payload = compressed("jpeg", jpeg_with(&bytes, file.clone()));
        let size = size(&payload, &options).unwrap();
        let is_turned = bytes.len() >= 32 && bytes[..32] == whole[..32];
        assert_eq!(size, if is_turned { Resolution::new(8, 16) } else { Resolution::new(16, 8) });
    }
}
