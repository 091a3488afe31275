use std::time::Duration;

use crate::{
    BackendOptions, Codec, ConfigError, EncoderConfig, EncoderType, GpuEncoderConfig, OpenError,
    Verdict, VideoEncoder,
};

/// What a backend is given to open an encoder. Everything in it has been checked.
#[derive(Clone, Debug)]
pub struct OpenRequest<'a> {
    /// The stream: `resolution` is set.
    pub config: &'a EncoderConfig,
    /// The knobs of hardware encoders.
    pub gpu: &'a GpuEncoderConfig,
    /// The backend's own table of options, as it stands in the configuration.
    pub options: &'a BackendOptions,
    /// How many threads a software encoder may use.
    pub threads: usize,
}

/// A backend, as it registers itself.
///
/// ```text
/// encoder_core::inventory::submit! {
///     Backend { id: EncoderType::new("mine"), rank: 55, … }
/// }
/// ```
///
/// A crate that is only listed as a dependency is not linked: the program must name it once,
/// `use encoder_mine as _;`.
pub struct Backend {
    /// Its name.
    pub id: EncoderType,
    /// Its place in the default order, lower first: nvenc 10, qsv 20, videotoolbox 30, x264 60,
    /// openh264 90.
    pub rank: u16,
    /// Whether it needs a device.
    pub hardware: bool,
    /// The codecs that it makes.
    pub codecs: &'static [Codec],
    /// Proves by a real encode that it works here, within about the deadline. May block; is
    /// called from a thread of its own.
    pub probe: fn(deadline: Duration) -> Verdict,
    /// Checks the table `[backend.<id>]` of the configuration.
    pub check_options: fn(&BackendOptions) -> Result<(), ConfigError>,
    /// Opens an encoder.
    pub open: fn(&OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError>,
}

inventory::collect!(Backend);

/// The backends that are compiled in, by rank, then by name. (Link order means nothing.)
pub fn backends() -> Vec<&'static Backend> {
    let mut all: Vec<_> = inventory::iter::<Backend>.into_iter().collect();
    all.sort_by_key(|backend| (backend.rank, backend.id));
    all
}
