//! Input for tests: memory that records each read.
#![allow(clippy::unwrap_used)]

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use encoder_media::ReadAt;

/// Memory that records each read. Clones share the memory and the list of reads.
#[derive(Clone)]
pub(crate) struct Counted {
    data: Bytes,
    reads: Arc<Mutex<Vec<Range<u64>>>>,
    batches: Arc<Mutex<Vec<usize>>>,
}

impl Counted {
    pub(crate) fn new(data: &[u8]) -> Self {
        let data = Bytes::copy_from_slice(data);
        Self { data, reads: Arc::default(), batches: Arc::default() }
    }

    /// Ranges that were read individually.
    pub(crate) fn reads(&self) -> Vec<Range<u64>> {
        self.reads.lock().unwrap().clone()
    }

    /// How many ranges were read at once, each time.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.batches.lock().unwrap().clone()
    }

    /// Bytes that were read.
    pub(crate) fn bytes(&self) -> u64 {
        self.reads().iter().map(|range| range.end - range.start).sum()
    }
}

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.data.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.lock().unwrap().push(offset..offset + buffer.len() as u64);
        self.data.read_at(offset, buffer)
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        self.batches.lock().unwrap().push(ranges.len());
        self.reads.lock().unwrap().extend_from_slice(ranges);
        self.data.read_ranges(ranges)
    }
}
