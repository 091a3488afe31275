use super::{raw::image, *};

const VALUES: [u16; 6] = [0, 500, 1000, 1500, 2000, 60_000];
/// Hole, below, nearest, middle, farthest, beyond.
const GREYS: [u8; 6] = [16, 16, 16, 126, 235, 235];

fn options(near: f32, far: f32) -> PictureOptions {
    PictureOptions { depth_range: Some((near, far)), ..PictureOptions::default() }
}

fn check(payload: &Payload, options: &PictureOptions, greys: &[u8]) {
    let found = decode_both(payload, options).unwrap();
    assert_eq!(found.planes[0][..greys.len()], *greys);
    assert!(found.planes[1].iter().chain(&found.planes[2]).all(|&v| v == 128));
}

#[test]
fn raw_depth_in_both_byte_orders() {
    for big in [false, true] {
        let two = |v: u16| if big { v.to_be_bytes() } else { v.to_le_bytes() };
        let four = |v: f32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
        let wide: Vec<u8> = VALUES.iter().flat_map(|&v| two(v)).collect();
        let metres: Vec<u8> = VALUES
            .iter()
            .flat_map(|&v| four(f32::from(v) / 1000.0))
            .chain(four(f32::NAN))
            .collect();
        for (encoding, width, data, range, greys) in [
            ("16UC1", 6, &wide, options(1000.0, 2000.0), &GREYS[..]),
            ("32FC1", 7, &metres, options(1.0, 2.0), &[&GREYS[..], &[16]].concat()),
        ] {
            let Payload::Raw(mut raw) = image(encoding, width, 1, 0, data.clone()) else {
                unreachable!()
            };
            raw.is_bigendian = big;
            check(&Payload::Raw(raw), &range, greys);
        }
    }
    // The other way round, and a range of nothing.
    let data: Vec<u8> = VALUES.iter().flat_map(|&v| v.to_le_bytes()).collect();
    let payload = image("16UC1", 6, 1, 0, data);
    check(&payload, &options(2000.0, 1000.0), &[16, 235, 235, 126, 16, 16]);
    for (near, far) in [(5.0, 5.0), (f32::NAN, 1.0), (0.0, f32::INFINITY)] {
        assert!(error(&payload, &options(near, far)).contains("is empty"));
    }
}

fn png16(values: &[u16], width: u32) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
    let mut out = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut out, width, values.len() as u32 / width);
    encoder.set_color(::png::ColorType::Grayscale);
    encoder.set_depth(::png::BitDepth::Sixteen);
    encoder.write_header().unwrap().write_image_data(&data).unwrap();
    out
}

fn with_header(a: f32, b: f32, data: &[u8]) -> Vec<u8> {
    [&[1, 0, 0, 0], &a.to_le_bytes()[..], &b.to_le_bytes(), data].concat()
}

#[test]
fn depth_in_png() {
    let png = png16(&VALUES, 6);
    let millimetres = options(1000.0, 2000.0);
    for (format, data) in [
        ("16UC1; compressedDepth png", with_header(0.0, 0.0, &png)),
        ("16UC1; compressedDepth", with_header(0.0, 0.0, &png)),
        ("16UC1; png compressed", png.clone()),
    ] {
        let payload = compressed(format, data);
        check(&payload, &millimetres, &GREYS);
        assert!(
            error(&payload, &PictureOptions::default()).contains("`PictureOptions::depth_range`")
        );
    }
    // A plain grey PNG is a picture: its high byte is shown.
    check(&compressed("png", png), &PictureOptions::default(), &[16, 17, 19, 20, 22, 217]);
    // 32FC1 stores a / metres + b.
    let stored = [0.5, 1.0, 1.5, 2.0f32].map(|metres| (1000.0 / metres + 40.0).round() as u16);
    let data = with_header(1000.0, 40.0, &png16(&[&[0][..], &stored].concat(), 5));
    let payload = compressed("32FC1; compressedDepth png", data);
    check(&payload, &options(1.0, 2.0), &[16, 16, 16, 125, 235]);
}

/// RVL as its paper describes it: numbers in groups of three bits, each with a bit that says
/// whether more follow, eight groups in a word.
fn rvl(values: &[u16], width: u32) -> Vec<u8> {
    let mut nibbles = Vec::new();
    let mut number = |mut v: u32| {
        loop {
            let more = v > 7;
            nibbles.push((v & 7) as u8 | if more { 8 } else { 0 });
            v >>= 3;
            if !more {
                break;
            }
        }
    };
    let mut previous = 0i32;
    let mut rest = values;
    while !rest.is_empty() {
        let zeros = rest.iter().take_while(|&&v| v == 0).count();
        let (_, tail) = rest.split_at(zeros);
        let run = tail.iter().take_while(|&&v| v != 0).count();
        number(zeros as u32);
        number(run as u32);
        for &v in &tail[..run] {
            let difference = i32::from(v as i16) - previous;
            number(((difference << 1) ^ (difference >> 31)) as u32);
            previous = i32::from(v as i16);
        }
        rest = &tail[run..];
    }
    let mut out = [width, values.len() as u32 / width].map(u32::to_le_bytes).concat();
    for word in nibbles.chunks(8) {
        let word =
            word.iter().enumerate().fold(0u32, |w, (i, &n)| w | u32::from(n) << (28 - 4 * i));
        out.extend(word.to_le_bytes());
    }
    out
}

#[test]
fn depth_in_rvl() {
    let values = [&VALUES[..], &[0, 0, 0, 700, 1500, 0]].concat();
    let greys = [&GREYS[..], &[16, 16, 16, 16, 126, 16]].concat();
    let data = with_header(0.0, 0.0, &rvl(&values, 6));
    let format = "16UC1; compressedDepth rvl";
    let options = options(1000.0, 2000.0);
    check(&compressed(format, data.clone()), &options, &greys);
    for len in 0..data.len() {
        let payload = compressed(format, data[..len].to_vec());
        assert!(matches!(decode_both(&payload, &options), Err(PictureError::Broken(_))), "{len}");
    }
    let mut noise = with_header(0.0, 0.0, &[6, 0, 0, 0, 2, 0, 0, 0]);
    noise.extend([0xff; 40]);
    assert!(decode_both(&compressed(format, noise), &options).is_err());
}
