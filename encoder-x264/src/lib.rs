//! x264 backend: hosted by FFmpeg, or in process on libx264 (feature native, GPL).
