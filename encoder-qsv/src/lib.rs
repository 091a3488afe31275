//! Intel Quick Sync backend, hosted by FFmpeg.
