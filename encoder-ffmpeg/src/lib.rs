//! The FFmpeg child process that hosts several encoder backends.
