use ::png::{BitDepth, ColorType, Encoder};
use proptest::prelude::*;

use super::*;

fn encode(scene: &Scene, colour: ColorType, depth: BitDepth) -> Vec<u8> {
    let wide = |v: u8| match depth {
        BitDepth::Sixteen => vec![v, 0xa5],
        _ => vec![v],
    };
    let data = scene.bytes(|[r, g, b]| match colour {
        ColorType::Grayscale => wide(g),
        ColorType::GrayscaleAlpha => [wide(g), wide(77)].concat(),
        ColorType::Rgb => [wide(r), wide(g), wide(b)].concat(),
        ColorType::Rgba => [wide(r), wide(g), wide(b), wide(77)].concat(),
        ColorType::Indexed => vec![g / 64],
    });
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, scene.width as u32, scene.height as u32);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == ColorType::Indexed {
        encoder
            .set_palette((0..4u8).flat_map(|i| [i * 64, i * 30, 255 - i * 64]).collect::<Vec<_>>());
        encoder.set_trns(vec![0, 255]);
    }
    encoder.write_header().unwrap().write_image_data(&data).unwrap();
    out
}

#[test]
fn every_colour_type() {
    let options = PictureOptions::default();
    for (w, h) in SIZES {
        let colours = Scene::patches(w, h);
        let grey = Scene::new(w, h, |x, y| [colours.at(x, y)[1] as u8; 3]);
        let indexed = Scene::new(w, h, |x, y| {
            let i = colours.at(x, y)[1] as u8 / 64;
            [i * 64, i * 30, 255 - i * 64]
        });
        for (scene, colour, depths) in [
            (&grey, ColorType::Grayscale, &[BitDepth::Eight, BitDepth::Sixteen][..]),
            (&grey, ColorType::GrayscaleAlpha, &[BitDepth::Eight, BitDepth::Sixteen]),
            (&colours, ColorType::Rgb, &[BitDepth::Eight, BitDepth::Sixteen]),
            (&colours, ColorType::Rgba, &[BitDepth::Eight, BitDepth::Sixteen]),
            (&indexed, ColorType::Indexed, &[BitDepth::Eight]),
        ] {
            for &depth in depths {
                let payload = compressed("png", encode(&colours, colour, depth));
                let found = decode_both(&payload, &options).unwrap();
                let worst = found.distance(scene, |_, _, _| false);
                assert!(worst.iter().all(|&d| d <= 1.5), "{colour:?} {depth:?} {w}x{h} {worst:?}");
            }
        }
    }
}

#[test]
fn a_cut_file_is_broken() {
    let scene = Scene::patches(64, 48);
    let png = encode(&scene, ColorType::Rgb, BitDepth::Eight);
    let options = PictureOptions::default();
    for tenth in 1..10 {
        let payload = compressed("png", png[..png.len() * tenth / 10].to_vec());
        assert!(matches!(decode_both(&payload, &options), Err(PictureError::Broken(_))));
    }
}

proptest! {
    #[test]
    fn no_flipped_bits_make_it_panic(flips in prop::collection::vec((8usize.., 0u8..8), 1..6)) {
        let mut png = encode(&Scene::patches(30, 20), ColorType::Rgba, BitDepth::Eight);
        let length = png.len();
        for (at, bit) in flips {
            png[8 + at % (length - 8)] ^= 1 << bit;
        }
        let options = PictureOptions {
            limits: Limits { pixels: 100_000, ..Limits::default() },
            ..PictureOptions::default()
        };
        let _ = decode_both(&compressed("png", png), &options);
    }
}
