//! Test pictures: a bar code with the frame's number, patches of known colours, a gradient.

/// The patches, left to right.
pub const PATCHES: [(&str, [u8; 3]); 7] = [
    ("black", [0, 0, 0]),
    ("white", [255, 255, 255]),
    ("red", [255, 0, 0]),
    ("green", [0, 255, 0]),
    ("blue", [0, 0, 255]),
    ("yellow", [255, 255, 0]),
    ("grey", [128, 128, 128]),
];

/// Cells of the bar code: 12 bits of number, 4 bits of parity.
const CELLS: usize = 16;

/// An RGB picture of 8 bits, rows without padding.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

/// 12 bits of number and their parity, so chosen that no flat picture reads as a number.
fn code(number: u16) -> u16 {
    let n = number & 0xfff;
    n << 4 | ((n ^ n >> 4 ^ n >> 8) & 0xf) ^ 0b0110
}

impl Picture {
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Self {
        assert_eq!(rgb.len(), width * height * 3);
        Self { width, height, rgb }
    }

    /// A picture made pixel by pixel.
    pub fn of(width: usize, height: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Self {
        let rgb = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        Self::new(width, height, rgb.flat_map(|(x, y)| pixel(x, y)).collect())
    }

    /// The picture of frame `number` (below 4096). At least 128x64.
    ///
    /// Top quarter: bar code. Second: patches. The rest: a gradient that moves with the number.
    pub fn stamped(width: usize, height: usize, number: usize) -> Self {
        assert!(width >= 128 && height >= 64, "too small for the bar code");
        let code = code(number as u16);
        let band = height / 4;
        Self::of(width, height, |x, y| match y / band {
            0 => {
                let cell = (x * CELLS / width).min(CELLS - 1);
                if code >> (CELLS - 1 - cell) & 1 == 1 { [255; 3] } else { [0; 3] }
            }
            1 => PATCHES[(x * PATCHES.len() / width).min(PATCHES.len() - 1)].1,
            _ => {
                let level = 40 + ((x * 160 / width) + number) % 176;
                [level as u8, (level / 2 + 60) as u8, (200 - y * 100 / height) as u8]
            }
        })
    }

    /// Something like a photograph, of frame `number`: soft light, edges, texture, motion.
    pub fn scene(width: usize, height: usize, number: usize) -> Self {
        Self::of(width, height, |x, y| {
            let (fx, fy, t) = (x as f64, y as f64, number as f64);
            let light = 90.0 + 50.0 * (fx / 60.0 + t / 9.0).sin() * (fy / 45.0).cos();
            let texture = 8.0 * ((fx * 0.9).sin() + (fy * 0.7 + fx * 0.2).sin());
            let (dx, dy) = (fx - 40.0 - 2.0 * t, fy - 60.0);
            let ball = if dx * dx + dy * dy < 900.0 { 70.0 } else { 0.0 };
            let level = |gain: f64| (light * gain + texture + ball).clamp(0.0, 255.0) as u8;
            [level(1.0), level(0.9), level(0.75)]
        })
    }

    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// Mean colour of a rectangle.
    pub fn mean(&self, x: std::ops::Range<usize>, y: std::ops::Range<usize>) -> [f64; 3] {
        let count = (x.len() * y.len()) as f64;
        let mut sum = [0.0; 3];
        for y in y {
            for x in x.clone() {
                for (sum, value) in sum.iter_mut().zip(self.pixel(x, y)) {
                    *sum += f64::from(value);
                }
            }
        }
        sum.map(|s| s / count)
    }

    /// The number in the bar code; `None` where there is none. Reads a picture that is up to one
    /// row or column larger than the one that was made (odd sizes).
    pub fn number(&self) -> Option<usize> {
        let band = self.height / 4;
        let mut read = 0u16;
        for cell in 0..CELLS {
            let (left, right) = (cell * self.width / CELLS, (cell + 1) * self.width / CELLS);
            let inner = (right - left) / 4;
            let [r, g, b] = self.mean(left + inner..right - inner, band / 4..band * 3 / 4);
            let level = (r + g + b) / 3.0;
            if (64.0..192.0).contains(&level) {
                return None;
            }
            read = read << 1 | u16::from(level > 128.0);
        }
        (code(read >> 4) == read).then_some(usize::from(read >> 4))
    }

    /// Mean colours of the middles of the patches.
    pub fn patches(&self) -> Vec<[f64; 3]> {
        let (n, band) = (PATCHES.len(), self.height / 4);
        (0..n)
            .map(|patch| {
                let (left, right) = (patch * self.width / n, (patch + 1) * self.width / n);
                let inner = (right - left) / 3;
                self.mean(left + inner..right - inner, band + band / 3..2 * band - band / 3)
            })
            .collect()
    }

    /// Fails where a patch is more than `levels` off in any channel; `names` restricts it.
    pub fn check_patches(&self, levels: f64, what: &str) {
        for ((name, wanted), got) in PATCHES.iter().zip(self.patches()) {
            for (wanted, got) in wanted.iter().zip(got) {
                let off = (f64::from(*wanted) - got).abs();
                assert!(off <= levels, "{what}: {name} came back as {got:.1}, {off:.1} off");
            }
        }
    }

    /// Luma in limited range, BT.601.
    pub fn luma(&self) -> Vec<u8> {
        self.yuv().0
    }

    /// Y, U and V at full size, limited range, BT.601.
    fn yuv(&self) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let mut planes = (Vec::new(), Vec::new(), Vec::new());
        for pixel in self.rgb.chunks_exact(3) {
            let [r, g, b] = [0, 1, 2].map(|n| f64::from(pixel[n]) / 255.0);
            let y = 0.299 * r + 0.587 * g + 0.114 * b;
            planes.0.push((16.0 + 219.0 * y).round() as u8);
            planes.1.push((128.0 + 224.0 * (b - y) / 1.772).round() as u8);
            planes.2.push((128.0 + 224.0 * (r - y) / 1.402).round() as u8);
        }
        planes
    }

    /// The picture in a raw encoding of ROS, with `padding` bytes of rubbish behind each row (of
    /// the first plane): encoding's bytes and the step. Needs even sizes for 4:2:2 and 4:2:0.
    pub fn raw(&self, encoding: &str, padding: usize) -> (Vec<u8>, u32) {
        let (w, h) = (self.width, self.height);
        let pixels = |order: &[usize]| -> Vec<Vec<u8>> {
            let row = |row: &[u8]| {
                let bytes = |p: &[u8]| order.iter().map(|&n| *p.get(n).unwrap_or(&77)).collect();
                row.chunks_exact(3).flat_map::<Vec<u8>, _>(bytes).collect()
            };
            self.rgb.chunks(w * 3).map(row).collect()
        };
        let (y, u, v) = self.yuv();
        let luma = || -> Vec<Vec<u8>> { y.chunks(w).map(<[u8]>::to_vec).collect() };
        let half = |plane: &[u8]| -> Vec<Vec<u8>> {
            (0..h / 2)
                .map(|row| {
                    (0..w / 2)
                        .map(|x| {
                            let at = |dx, dy| u32::from(plane[(row * 2 + dy) * w + x * 2 + dx]);
                            ((at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1) + 2) / 4) as u8
                        })
                        .collect()
                })
                .collect()
        };
        let packed = |order: [usize; 4]| -> Vec<Vec<u8>> {
            (0..h)
                .map(|row| {
                    (0..w / 2)
                        .flat_map(|x| {
                            let at = row * w + x * 2;
                            let four = [y[at], y[at + 1], u[at], v[at]];
                            order.map(|n| four[n])
                        })
                        .collect()
                })
                .collect()
        };
        let (rows, chroma): (Vec<Vec<u8>>, Vec<Vec<u8>>) = match encoding {
            "rgb8" => (pixels(&[0, 1, 2]), vec![]),
            "bgr8" => (pixels(&[2, 1, 0]), vec![]),
            "rgba8" => (pixels(&[0, 1, 2, 3]), vec![]),
            "bgra8" => (pixels(&[2, 1, 0, 3]), vec![]),
            // Full range grey, as ROS has it.
            "mono8" => (
                self.rgb.chunks(w * 3).map(|row| row.chunks_exact(3).map(grey).collect()).collect(),
                vec![],
            ),
            "yuv422_yuy2" => (packed([0, 2, 1, 3]), vec![]),
            "yuv422" => (packed([2, 0, 3, 1]), vec![]),
            "nv12" => {
                let pairs = half(&u).into_iter().zip(half(&v));
                let row = |(u, v): (Vec<u8>, Vec<u8>)| {
                    u.into_iter().zip(v).flat_map(|(u, v)| [u, v]).collect()
                };
                (luma(), pairs.map(row).collect())
            }
            "i420" => (luma(), [half(&u), half(&v)].concat()),
            other => panic!("no raw {other}"),
        };
        let step = rows[0].len() + padding;
        let mut out = Vec::new();
        for mut row in rows {
            row.resize(step, 0xa5);
            out.extend(row);
        }
        for mut row in chroma {
            let padding = if encoding == "i420" { padding / 2 } else { padding };
            row.resize(row.len() + padding, 0xa5);
            out.extend(row);
        }
        (out, step as u32)
    }

    pub fn jpeg(&self, sampling: jpeg_encoder::SamplingFactor) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut out, 95);
        encoder.set_sampling_factor(sampling);
        let (w, h) = (self.width as u16, self.height as u16);
        encoder.encode(&self.rgb, w, h, jpeg_encoder::ColorType::Rgb).unwrap();
        out
    }

    /// The usual JPEG of cameras.
    pub fn jpeg420(&self) -> Vec<u8> {
        self.jpeg(jpeg_encoder::SamplingFactor::R_4_2_0)
    }

    pub fn png(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        encoder.write_header().unwrap().write_image_data(&self.rgb).unwrap();
        out
    }
}

fn grey(pixel: &[u8]) -> u8 {
    let [r, g, b] = [0, 1, 2].map(|n| f64::from(pixel[n]));
    (0.299 * r + 0.587 * g + 0.114 * b).round() as u8
}

/// Peak signal-to-noise ratio of samples of 8 bits, in dB.
pub fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: u64 = a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum();
    10.0 * (255.0f64.powi(2) * a.len() as f64 / sum.max(1) as f64).log10()
}
