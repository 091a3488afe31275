//! Apple VideoToolbox backend, hosted by FFmpeg.
