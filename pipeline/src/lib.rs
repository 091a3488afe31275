//! From a robot recording to correct H.264 video.
//!
//! A frame goes one way: [`source`] reads the recording, [`picture`] converts into a slot of the
//! ring, a session encodes, a sink writes.

pub mod mux;
pub mod picture;
pub mod source;
pub mod timeline;
