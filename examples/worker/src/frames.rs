//! The frames of a camera, in place of a download and a decoder.

use encoder_core::Resolution;
use encoder_pipeline::{
    source::{Payload, RawImage},
    timeline::FrameTimes,
};
use tokio::sync::mpsc;

/// Frames per second.
const RATE: u64 = 30;
/// How many frames wait in the channel. It is the back pressure: a camera that is encoded slowly
/// slows its download down.
const QUEUE: usize = 4;

/// A picture and its times.
pub struct Frame {
    /// Size of the picture in pixels.
    pub size: Resolution,
    /// The picture.
    pub picture: Payload,
    /// When it was taken.
    pub times: FrameTimes,
}

/// Sends the frames of `seconds` of a camera, as fast as they are taken. The channel is closed
/// after the last one.
pub fn frames(camera: &str, seconds: u64) -> mpsc::Receiver<Frame> {
    let (send, receive) = mpsc::channel(QUEUE);
    let shade = camera.bytes().map(usize::from).sum::<usize>();
    tokio::spawn(async move {
        for number in 0..seconds * RATE {
            let times = FrameTimes::at((number * 1_000_000_000 / RATE) as i64);
            let picture = picture(number as usize + shade);
            if send.send(Frame { size: SIZE, picture, times }).await.is_err() {
                return;
            }
        }
    });
    receive
}

const SIZE: Resolution = Resolution::new(640, 480);

/// Stripes that move to the left.
fn picture(shift: usize) -> Payload {
    let (width, height) = (SIZE.width, SIZE.height);
    let row: Vec<u8> = (0..width as usize)
        .flat_map(|x| {
            let level = ((x + shift * 4) / 40 % 6 * 40) as u8;
            [level, 255 - level, 128]
        })
        .collect();
    let encoding = "rgb8".into();
    let (step, is_bigendian) = (width * 3, false);
    let data = row.repeat(height as usize).into();
    Payload::Raw(RawImage { encoding, width, height, step, is_bigendian, data })
}
