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

/// An event. Sessions are counted from 1 in each process that has loaded the runtime.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum What {
    /// The VA-API driver was opened or closed.
    Display {
        /// Opened.
        open: bool,
    },
    /// A session was opened.
    Opened {
        /// Its number.
        session: u32,
        /// The function that opened it: `MFXInitEx` for the Media SDK, `MFXInitialize` for oneVPL.
        interface: String,
    },
    /// An encoder is about to be initialised.
    Initialized(Box<Config>),
    /// The client asked for a type of picture.
    Forced {
        /// The session's number.
        session: u32,
        /// The number of the frame, from 0 in display order.
        frame: u64,
        /// The sum of `MFX_FRAMETYPE_I` 1, `MFX_FRAMETYPE_REF` 64 and `MFX_FRAMETYPE_IDR` 128.
        frame_type: u32,
    },
    /// An encoder was closed.
    Finished {
        /// The session's number.
        session: u32,
        /// Frames that came in.
        frames: u64,
        /// Frames that were not fetched as pictures.
        left: u64,
        /// The most frames in flight at once.
        most_tasks: u32,
        /// The types of the first 1023 pictures in decoding order: `I` for IDR, `i` for another
        /// intra picture, `P` and `B`.
        types: String,
    },
    /// A session was closed.
    Closed {
        /// Its number.
        session: u32,
    },
    /// An encoder of VA-API got its first picture.
    VaInitialized(Box<VaConfig>),
    /// An encoder of VA-API was closed.
    VaFinished {
        /// Its number.
        context: u32,
        /// Pictures that were coded.
        frames: u64,
        /// As for Quick Sync.
        types: String,
    },
    /// An injected fault struck.
    Fault {
        /// The place of the fault.
        place: String,
        /// The action of the fault.
        action: String,
        /// The code of an error.
        code: i32,
        /// The number of the frame, if the place has one.
        frame: i64,
    },
    /// A call that a real runtime might reject.
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

/// The configuration of an encoder, as the device received it. The numbers are those of the API.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Config {
    /// The session's number.
    pub session: u32,
    /// Of a surface, in samples: a multiple of 16.
    pub width: u32,
    /// Of a surface, in samples: a multiple of 16.
    pub height: u32,
    /// The picture in the surface: left, top, width, height, in samples.
    pub crop: [u32; 4],
    /// `NV12`.
    pub fourcc: String,
    /// Numerator and denominator, in frames per second.
    pub frame_rate: [u32; 2],
    /// 66, 77 or 100 in the lower 8 bits; 0: the device chooses.
    pub profile: u32,
    /// Ten times the level; 0: the device chooses.
    pub level: u32,
    /// 1, best quality, to 7, best speed.
    pub target_usage: u32,
    /// Frames from one intra picture to the next; 0: no end.
    pub gop_pic_size: u32,
    /// 1: no B pictures; n: n - 1 of them in a row; 0: the device chooses.
    pub gop_ref_dist: u32,
    /// Intra pictures between two IDR pictures.
    pub idr_interval: u32,
    /// 3: constant quantiser; 9: intelligent constant quality (ICQ); 1: constant, 2: variable
    /// bit rate.
    pub rate_control: u32,
    /// The quantisers of I, P and B pictures; for ICQ, the second is the quality; for bit rates,
    /// the second is the rate and the third its maximum, in 1000 bits per second.
    pub quality: [u32; 3],
    /// 16: on; 32: off; 0: the device chooses.
    pub low_power: u32,
    /// Frames that are encoded at once.
    pub async_depth: u32,
    /// Frames; 0: none.
    pub look_ahead_depth: u32,
    /// Primaries, transfer and matrix, as in the H.264 standard, 2 for unspecified; 1 for full
    /// range.
    pub colour: [u32; 4],
}

/// The configuration of a VA-API encoder, as the driver received it. The numbers are those of the
/// API.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct VaConfig {
    /// The encoder's number.
    pub context: u32,
    /// Of the picture, in samples.
    pub width: u32,
    /// Of the picture, in samples.
    pub height: u32,
    /// Numerator and denominator, in frames per second.
    pub frame_rate: [u32; 2],
    /// 66, 77 or 100.
    pub profile: u32,
    /// Ten times the level.
    pub level: u32,
    /// Frames from one intra picture to the next.
    pub intra_period: u32,
    /// Frames from one IDR picture to the next.
    pub intra_idr_period: u32,
    /// 1: no B pictures; n: n - 1 of them in a row.
    pub ip_period: u32,
    /// 2: constant, 4: variable bit rate; 16: constant quantiser; 64: constant quality (ICQ).
    pub rate_control: u32,
    /// The first quantiser; for a constant quantiser, that of P pictures.
    pub qp: u32,
    /// The maximum; 0: not set.
    pub bits_per_second: u32,
    /// 1 to 51 for ICQ.
    pub icq_quality: u32,
    /// 1, best quality, to 7, best speed; 0: the driver chooses.
    pub quality_level: u32,
}
