use bytes::Bytes;
use thiserror::Error;

/// A picture as it was recorded.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Payload {
    /// Uncompressed samples.
    Raw(RawImage),
    /// A compressed still: JPEG, PNG, a compressed depth image.
    Compressed {
        /// The `format` field as recorded: `jpeg`, `rgb8; jpeg compressed bgr8`,
        /// `16UC1; compressedDepth png` …
        format: String,
        /// The bytes.
        data: Bytes,
    },
    /// One access unit of a video stream.
    Video {
        /// The `format` field as recorded: `h264`, `h265` …
        format: String,
        /// The access unit; Annex B for H.264.
        data: Bytes,
    },
}

/// Uncompressed samples, as `sensor_msgs/Image` describes them.
#[derive(Clone, Debug, PartialEq)]
pub struct RawImage {
    /// `rgb8`, `bgr8`, `mono16`, `bayer_rggb8`, `yuv422_yuy2`, `nv12`, `i420`, `i444` …
    pub encoding: String,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from one row to the next, of the first plane; 0 means "no padding".
    pub step: u32,
    /// Samples of more than 8 bits are big-endian.
    pub is_bigendian: bool,
    /// The samples.
    pub data: Bytes,
}

/// A message that could not be read.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{reason}")]
pub struct BadMessage {
    /// What is wrong, and where in the message.
    pub reason: String,
}
