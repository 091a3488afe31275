use std::fmt;

/// The name of a backend, as users write it: `nvenc`, `x264` …
///
/// An open set: a crate outside this workspace registers a name of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EncoderType(&'static str);

impl EncoderType {
    /// NVIDIA NVENC.
    pub const NVENC: Self = Self("nvenc");
    /// Intel Quick Sync Video.
    pub const QSV: Self = Self("qsv");
    /// VA-API: AMD and Intel on Linux.
    pub const VAAPI: Self = Self("vaapi");
    /// Apple VideoToolbox.
    pub const VIDEOTOOLBOX: Self = Self("videotoolbox");
    /// x264, hosted by FFmpeg or in process.
    pub const X264: Self = Self("x264");
    /// Embedded OpenH264.
    pub const OPENH264: Self = Self("openh264");

    /// The name of a backend: lower case letters, digits and hyphens.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// The name as text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for EncoderType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for EncoderType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
