//! The recording in `sample/`: two cameras and a topic that is none, out of real footage.

mod cdr;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
};

use cdr::Cdr;
use mcap::{Compression, WriteOptions, records::MessageHeader};

use crate::{
    process::{EACH_FRAME_ONCE, Result, output, root, target},
    setup,
};

/// The footage in Debian's package opencv-doc: a tree at a window, and a hand.
const FOOTAGE: &str = "usr/share/doc/opencv-doc/examples/data/tree.avi";

/// First log time: 2025-01-15 10:00:00 UTC, in nanoseconds.
const BEGIN_NS: u64 = 1_736_935_200_000_000_000;

const FRONT_FRAMES: usize = 90;
const FRONT_HZ: u64 = 30;
const WRIST_HZ: u64 = 10;
const WRIST: (u32, u32) = (160, 120);

/// Fetches the footage and writes `sample/two_cameras.mcap`.
///
/// # Errors
/// When the package or FFmpeg cannot be had, or the file cannot be written.
pub fn sample() -> Result<()> {
    let tools = setup::setup()?;
    let work = target().join("sample");
    fs::create_dir_all(&work)?;
    let footage = footage(&work)?;
    let front = decode(&tools.ffmpeg, &footage, FRONT_FILTER, JPEG)?;
    let front = there_and_back(&jpegs(&front), FRONT_FRAMES)?;
    let (width, height) = WRIST;
    let wrist = decode(&tools.ffmpeg, &footage, WRIST_FILTER, BGR)?;
    let wrist: Vec<_> = wrist.chunks_exact((width * height * 3) as usize).collect();
    // One for every third of the front camera, of the same moment.
    let wrist = there_and_back(&wrist, FRONT_FRAMES)?;
    let wrist: Vec<_> = wrist.into_iter().step_by((FRONT_HZ / WRIST_HZ) as usize).collect();
    let path = root().join("sample").join("two_cameras.mcap");
    write(&path, &front, &wrist)?;
    println!("{}: {} bytes", path.display(), fs::metadata(&path)?.len());
    Ok(())
}

/// All of the picture.
const FRONT_FILTER: &str = "scale=in_range=full:out_range=full";
/// Another crop.
const WRIST_FILTER: &str = "crop=200:150:110:20,scale=160:120";
const JPEG: &str = "-f image2pipe -c:v mjpeg -pix_fmt yuvj420p -q:v 4";
const BGR: &str = "-f rawvideo -pix_fmt bgr24";

/// The footage, unpacked from Debian's package. Nothing is installed.
fn footage(work: &Path) -> Result<PathBuf> {
    let file = work.join(FOOTAGE);
    if file.is_file() {
        return Ok(file);
    }
    let packages = || -> Result<Vec<PathBuf>> {
        let paths = fs::read_dir(work)?.flatten().map(|entry| entry.path());
        Ok(paths.filter(|p| p.extension().is_some_and(|e| e == "deb")).collect())
    };
    if packages()?.is_empty() {
        output(Command::new("apt-get").args(["download", "opencv-doc"]).current_dir(work))?;
    }
    let package = packages()?.pop().ok_or("apt-get downloaded no opencv-doc")?;
    output(Command::new("dpkg-deb").arg("-x").arg(package).arg(work))?;
    if file.is_file() { Ok(file) } else { Err(format!("opencv-doc has no {FOOTAGE}").into()) }
}

/// Every picture of the footage, in one piece.
fn decode(ffmpeg: &Path, footage: &Path, filter: &str, format: &str) -> Result<Vec<u8>> {
    let [_, each_once, rate, fps] = EACH_FRAME_ONCE;
    let mut command = Command::new(ffmpeg);
    command.args(["-v", "error", "-nostdin", "-i"]).arg(footage);
    command.args(["-vf", &format!("{filter},{each_once}"), rate, fps]);
    Ok(output(command.args(format.split(' ')).args(["-threads", "1", "-"]))?.stdout)
}

/// `count` pictures: forward to the last one, then backward.
fn there_and_back<'a>(pictures: &[&'a [u8]], count: usize) -> Result<Vec<&'a [u8]>> {
    let both = pictures.iter().chain(pictures.iter().rev().skip(1)).copied().take(count);
    let both: Vec<_> = both.collect();
    if both.len() == count { Ok(both) } else { Err("the footage is too short".into()) }
}

/// Cuts a row of JPEG files, each from its SOI to its EOI marker. (Within the coded data, 0xff is
/// always followed by 0 or a restart marker.)
fn jpegs(stream: &[u8]) -> Vec<&[u8]> {
    let mut pictures = Vec::new();
    let mut begin = 0;
    for (at, marker) in stream.windows(2).enumerate() {
        if marker == [0xff, 0xd9] {
            pictures.push(&stream[begin..at + 2]);
            begin = at + 2;
        }
    }
    pictures
}

/// Delays as a computer under load has them, the same at every call.
struct Jitter(u32);

impl Jitter {
    /// Nanoseconds from 0 up to `most`.
    fn up_to(&mut self, most: u64) -> u64 {
        // Numerical Recipes' generator; its high bits are good enough for this.
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u64::from(self.0 >> 8) * most / (1 << 24)
    }
}

fn write(path: &Path, front: &[&[u8]], wrist: &[&[u8]]) -> Result<()> {
    let mut writer = WriteOptions::new()
        .profile("ros2")
        .library("cargo xtask sample")
        .compression(Some(Compression::Zstd))
        .compression_level(19)
        // With threads of its own zstd would cut differently on each machine.
        .compression_threads(0)
        .create(BufWriter::new(File::create(path)?))?;
    let topics = [
        ("/cam_front/image_raw/compressed", "sensor_msgs/msg/CompressedImage", COMPRESSED_IMAGE),
        ("/cam_wrist/image_raw", "sensor_msgs/msg/Image", IMAGE),
        ("/task", "std_msgs/msg/String", "string data\n"),
    ];
    let mut channels = Vec::new();
    for (topic, schema, definition) in topics {
        let schema = writer.add_schema(schema, "ros2msg", definition.as_bytes())?;
        channels.push(writer.add_channel(schema, topic, "cdr", &BTreeMap::new())?);
    }

    let mut jitter = Jitter(1);
    let mut messages = Vec::new();
    let mut camera =
        |topic: usize, hz: u64, count: usize, message: &dyn Fn(usize, u64) -> Vec<u8>| {
            for n in 0..count {
                // Exposure is nearly regular; the recorder hears of it a few milliseconds later.
                let due = BEGIN_NS + n as u64 * 1_000_000_000 / hz;
                let stamp = due + jitter.up_to(800_000);
                let log = stamp + 3_000_000 + jitter.up_to(6_000_000);
                messages.push((log, topic, n as u32, message(n, stamp)));
            }
        };
    camera(0, FRONT_HZ, front.len(), &|n, stamp| {
        Cdr::with_header(stamp, "cam_front").string("jpeg").bytes(front[n]).finish()
    });
    camera(1, WRIST_HZ, wrist.len(), &|n, stamp| {
        Cdr::with_header(stamp, "cam_wrist")
            .u32(WRIST.1)
            .u32(WRIST.0)
            .string("bgr8")
            .u8(0)
            .u32(WRIST.0 * 3)
            .bytes(wrist[n])
            .finish()
    });
    for (n, text) in (0..).zip(["wave", "done"]) {
        let log = BEGIN_NS + u64::from(n) * 2_500_000_000;
        messages.push((log, 2, n, Cdr::new().string(text).finish()));
    }
    messages.sort_by_key(|(log, topic, ..)| (*log, *topic));

    for (log_time, topic, sequence, data) in messages {
        let channel_id = channels[topic];
        let header = MessageHeader { channel_id, sequence, log_time, publish_time: log_time };
        writer.write_to_known_channel(&header, &data)?;
    }
    writer.finish()?;
    Ok(())
}

const COMPRESSED_IMAGE: &str = "\
std_msgs/Header header
string format
uint8[] data
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
";

const IMAGE: &str = "\
std_msgs/Header header
uint32 height
uint32 width
string encoding
uint8 is_bigendian
uint32 step
uint8[] data
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_row_of_jpegs_is_cut_at_its_markers() {
        let stream = [0xff, 0xd8, 1, 0xff, 0xd9, 0xff, 0xd8, 2, 3, 0xff, 0xd9];
        let pictures = jpegs(&stream);
        assert_eq!(pictures, [&stream[..5], &stream[5..]]);
        assert!(jpegs(&[0xff, 0xd8, 1]).is_empty());
    }

    #[test]
    fn footage_runs_forward_then_backward() {
        let pictures: [&[u8]; 3] = [&[1], &[2], &[3]];
        assert_eq!(there_and_back(&pictures, 5).unwrap().concat(), [1, 2, 3, 2, 1]);
        assert!(there_and_back(&pictures, 6).is_err());
    }

    #[test]
    fn jitter_is_the_same_each_time_and_within_its_bound() {
        let run = || {
            let mut jitter = Jitter(1);
            (0..100).map(|_| jitter.up_to(1000)).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
        assert!(run().iter().all(|&ns| ns < 1000));
        assert!(run().iter().any(|&ns| ns > 900));
    }
}
