//! Buffers for uncompressed frames that are used again.
//!
//! A new buffer for each frame would cost as much as a fast encoder takes: the system clears its
//! pages, and maps and unmaps them.

use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use encoder_core::FrameRate;

use super::Warning;

/// How many unused buffers are kept. More frames than these are rarely in flight at once.
const KEPT: usize = 8;
/// A new buffer grows by this much at a time, so that a stream that ends early costs little memory.
const STEP: usize = 1 << 20;
/// Smaller data is copied to memory of its own, which costs less than a buffer.
#[cfg(any(feature = "mcap", feature = "rosbag1"))]
const LARGE: usize = 64 << 10;

/// The unused buffers.
type Free = Arc<Mutex<Vec<Vec<u8>>>>;

/// The rate of frames that have none, and the warning that it is a guess.
pub(crate) fn assumed_rate(reason: &str) -> (FrameRate, Warning) {
    let rate = FrameRate::default();
    let text = format!("{reason}: the frames are put at {rate} frames per second");
    (rate, Warning { text, loss: false })
}

/// Buffers for frames.
#[derive(Default)]
pub(crate) struct FrameBuffers {
    free: Free,
}

/// The memory of a frame; its buffer returns when the last reference to the frame is dropped.
struct Frame {
    data: Vec<u8>,
    free: Free,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(std::mem::take(&mut self.data));
        }
    }
}

impl FrameBuffers {
    /// An unused buffer, with the data of its last frame, or a new one. The last buffer that was
    /// used is the most likely to be in the cache.
    fn take(&self) -> Vec<u8> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_default()
    }

    fn frame(&self, data: Vec<u8>) -> Bytes {
        Bytes::from_owner(Frame { data, free: Arc::clone(&self.free) })
    }

    /// Copies data, which may be a frame.
    #[cfg(any(feature = "mcap", feature = "rosbag1"))]
    pub(crate) fn copy(&self, data: &[u8]) -> Bytes {
        if data.len() < LARGE {
            return Bytes::copy_from_slice(data);
        }
        let mut buffer = self.take();
        buffer.clear();
        buffer.extend_from_slice(data);
        self.frame(buffer)
    }

    /// Reads a frame of `size` bytes, followed by `rest` bytes of this value. All frames must have
    /// the same size and rest. The inner error is the number of bytes before the end of the stream.
    ///
    /// # Errors
    /// Those of `reader`; [`ErrorKind::OutOfMemory`] when there is no memory for a frame.
    pub(crate) fn read(
        &self,
        reader: &mut dyn Read,
        size: u64,
        (rest, value): (u64, u8),
    ) -> io::Result<Result<Bytes, usize>> {
        let len = |bytes: u64| usize::try_from(bytes).map_err(|_| ErrorKind::OutOfMemory);
        let (size, whole) = (len(size)?, len(size.saturating_add(rest))?);
        let mut data = self.take();
        data.try_reserve_exact(whole.saturating_sub(data.len()))
            .map_err(|_| ErrorKind::OutOfMemory)?;
        let mut filled = 0;
        while filled < size {
            if filled == data.len() {
                data.resize((filled + STEP).min(size), 0);
            }
            let end = size.min(data.len());
            match reader.read(data.get_mut(filled..end).unwrap_or_default()) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled < size {
            return Ok(Err(filled));
        }
        // Only a new buffer has not the rest yet.
        data.resize(whole, value);
        Ok(Ok(self.frame(data)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Returns a few bytes at a time, and interruptions between them.
    struct Slow(Vec<u8>, bool);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(ErrorKind::Interrupted.into());
            }
            let len = buffer.len().min(self.0.len()).min(7);
            buffer[..len].copy_from_slice(&self.0[..len]);
            self.0.drain(..len);
            Ok(len)
        }
    }

    #[test]
    fn buffers_are_used_again() {
        let reader = FrameBuffers::default();
        let mut input = Slow((0..6).flat_map(|n| [n; 100]).collect(), false);
        let mut next = || reader.read(&mut input, 100, (20, 128)).unwrap().unwrap();
        let (first, second) = (next(), next());
        let places = [first.as_ptr(), second.as_ptr()];
        assert_ne!(places[0], places[1], "both are held");
        let part = first.slice(10..20);
        drop((first, second));
        // A part holds its frame; the other buffer is free.
        let third = next();
        assert_eq!(third.as_ptr(), places[1]);
        assert!(part.iter().all(|byte| *byte == 0));
        drop(part);
        let fourth = next();
        assert_eq!(fourth.as_ptr(), places[0]);
        for (n, frame) in [(2, third), (3, fourth)] {
            assert!(frame[..100].iter().all(|byte| *byte == n) && frame[100..] == [128; 20]);
        }
    }

    #[cfg(any(feature = "mcap", feature = "rosbag1"))]
    #[test]
    fn copies_use_them_as_well() {
        let buffers = FrameBuffers::default();
        let large = buffers.copy(&[1; 2 * LARGE]);
        let place = large.as_ptr();
        drop(large);
        // Small data has memory of its own.
        assert!(buffers.copy(&[2; 10]).is_unique());
        let other = buffers.copy(&[3; LARGE]);
        assert_eq!((other.as_ptr(), &other[..]), (place, &[3; LARGE][..]));
    }

    #[test]
    fn unused_buffers_are_bounded() {
        let reader = FrameBuffers::default();
        let mut input = io::repeat(1);
        let frames: Vec<_> =
            (0..30).map(|_| reader.read(&mut input, 10, (0, 0)).unwrap().unwrap()).collect();
        drop(frames);
        assert_eq!(reader.free.lock().unwrap().len(), KEPT);
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame() {
        let reader = FrameBuffers::default();
        // The claimed size is not allocated page by page before the bytes have come.
        let size = 16 * STEP as u64;
        let read = reader.read(&mut &[7; 30][..], size, (0, 0)).unwrap();
        assert_eq!(read, Err(30));
        assert_eq!(reader.read(&mut io::empty(), 10, (5, 0)).unwrap(), Err(0));
    }
}
