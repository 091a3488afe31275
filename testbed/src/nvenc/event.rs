//! The events in the log of a device.

use serde::Deserialize;

/// A line of the log.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Event {
    /// The process of the event.
    pub pid: u32,
    /// The event.
    #[serde(flatten)]
    pub what: What,
}

/// An event.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum What {
    /// A session was opened.
    Opened {
        /// The index of its GPU.
        gpu: u32,
        /// The version of the encode API that the client uses.
        api: String,
    },
    /// A session was refused because the limit was reached.
    Refused {
        /// The index of the GPU.
        gpu: u32,
        /// The limit.
        sessions: u32,
    },
    /// A session was initialised.
    Initialized(Box<Config>),
    /// A session got new rates.
    Reconfigured {
        /// Bits per second; 0: unchanged.
        bitrate: u32,
    },
    /// The client asked for an intra picture.
    Forced {
        /// The number of the frame in the session, from 0.
        frame: u64,
        /// Its time, in the client's ticks.
        pts: i64,
        /// Whether it asked for an IDR picture.
        idr: bool,
    },
    /// A session was closed.
    Closed {
        /// Frames that came in.
        submitted: u64,
        /// Pictures that were coded.
        coded: u64,
        /// Pictures that the client fetched.
        read: u64,
        /// Bytes of all coded pictures.
        bytes: u64,
    },
    /// An injected fault struck.
    Fault {
        /// The place of the fault.
        place: String,
        /// The action of the fault.
        action: String,
        /// The number of the frame, if the place has one.
        frame: i64,
    },
    /// A call that a real driver might reject.
    Violation {
        /// The call and the reason.
        what: String,
    },
    /// A resource was not released.
    Leak {
        /// The resource.
        what: String,
    },
}

/// The configuration of a session, as the device received it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Config {
    /// The index of its GPU.
    pub gpu: u32,
    /// `p1` to `p7`.
    pub preset: String,
    /// `hq`, `ll`, `ull`, `lossless` or `uhq`.
    pub tuning: String,
    /// `baseline`, `main`, `high`, `high444p` or `auto`.
    pub profile: String,
    /// Ten times the level; 0: the device chooses.
    pub level: u32,
    /// In samples.
    pub width: u32,
    /// In samples.
    pub height: u32,
    /// Numerator and denominator, in frames per second.
    pub fps: [u32; 2],
    /// Whether chroma is not subsampled.
    pub chroma_444: bool,
    /// `constqp`, `vbr` or `cbr`.
    pub rate_control: String,
    /// Bits per second.
    pub bitrate: u32,
    /// Bits per second; 0: no limit.
    pub max_bitrate: u32,
    /// Bits; 0: the device chooses.
    pub vbv_size: u32,
    /// The target of constant quality, 0 to 51; 0: none.
    pub target_quality: f64,
    /// The quantisers of I, P and B pictures, for `constqp`.
    pub qp: [u32; 3],
    /// Frames from one intra picture to the next; `u32::MAX`: no end.
    pub gop_length: u32,
    /// Frames from one IDR picture to the next; `u32::MAX`: no end.
    pub idr_period: u32,
    /// 0: intra pictures only; 1: no B pictures; n: n - 1 of them in a row.
    pub frame_interval_p: u32,
    /// Whether parameter sets are in the stream.
    pub in_band_headers: bool,
    /// Whether they are in front of every IDR picture.
    pub repeat_headers: bool,
    /// Frames of lookahead; 0: none.
    pub lookahead: u32,
    /// Whether adaptive quantisation in space is on.
    pub spatial_aq: bool,
    /// Whether adaptive quantisation over time is on.
    pub temporal_aq: bool,
    /// 1 to 15; 0: the device chooses.
    pub aq_strength: u32,
    /// Whether the output is not to be delayed for reordering.
    pub zero_reorder_delay: bool,
    /// 0: one pass; 1: the first of two at a quarter of the size; 2: at full size.
    pub multipass: u32,
    /// Whether weighted prediction is on.
    pub weighted_prediction: bool,
    /// Whether the samples use the full range, if it was set.
    pub full_range: Option<bool>,
    /// Primaries, transfer and matrix, as in the H.264 standard, if they were set.
    pub colour: Option<[u32; 3]>,
}
