//! NVIDIA NVENC backend, hosted by FFmpeg.
