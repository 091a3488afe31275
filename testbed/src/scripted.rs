//! A program in place of FFmpeg that does what it is told.
