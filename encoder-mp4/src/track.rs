//! The boxes that describe the only track, in progressive and fragmented files.

use encoder_core::Resolution;

use super::boxes::Writer;

/// A movie with one video track.
pub(super) struct Movie {
    /// Ticks in a second.
    pub timescale: u32,
    /// Duration in ticks; 0 if fragments follow.
    pub duration: u64,
    pub size: Resolution,
    /// The display time of the first picture on the track's own time line, in ticks. The edit list
    /// subtracts it; with 0 no edit list is written.
    pub start: u64,
}

impl Movie {
    /// Writes `moov`. `sample_table` writes the content of `stbl`, `extension` the boxes after the
    /// track.
    pub fn write(
        &self,
        w: &mut Writer,
        sample_table: impl FnOnce(&mut Writer),
        extension: impl FnOnce(&mut Writer),
    ) {
        w.nest(b"moov", |w| {
            w.full(b"mvhd", 1, 0, |w| {
                w.zeros(16);
                w.u32(self.timescale);
                w.u64(self.duration);
                w.u32(0x10000); // rate
                w.u16(0x100); // volume
                w.zeros(10);
                w.matrix();
                w.zeros(24);
                w.u32(2); // next track
            });
            w.nest(b"trak", |w| {
                w.full(b"tkhd", 1, 3, |w| {
                    w.zeros(16);
                    w.u32(1);
                    w.zeros(4);
                    w.u64(self.duration);
                    w.zeros(16);
                    w.matrix();
                    // 16 bits in front of the point, 16 behind it.
                    for side in [self.size.width, self.size.height] {
                        w.narrow16(side);
                        w.u16(0);
                    }
                });
                if self.start > 0 {
                    w.nest(b"edts", |w| {
                        w.full(b"elst", 1, 0, |w| {
                            w.u32(1);
                            w.u64(self.duration); // 0: to the end
                            w.u64(self.start);
                            w.u32(0x10000); // rate
                        });
                    });
                }
                w.nest(b"mdia", |w| self.media(w, sample_table));
            });
            extension(w);
        });
    }

    fn media(&self, w: &mut Writer, sample_table: impl FnOnce(&mut Writer)) {
        w.full(b"mdhd", 1, 0, |w| {
            w.zeros(16);
            w.u32(self.timescale);
            w.u64(if self.duration == 0 { 0 } else { self.start.saturating_add(self.duration) });
            w.u16(0x55c4); // language "und"
            w.u16(0);
        });
        w.full(b"hdlr", 0, 0, |w| {
            w.zeros(4);
            w.bytes(b"vide");
            w.zeros(12);
            w.bytes(b"VideoHandler\0");
        });
        w.nest(b"minf", |w| {
            w.full(b"vmhd", 0, 1, |w| w.zeros(8));
            w.nest(b"dinf", |w| {
                w.full(b"dref", 0, 0, |w| {
                    w.u32(1);
                    w.full(b"url ", 0, 1, |_| {});
                });
            });
            w.nest(b"stbl", sample_table);
        });
    }
}

/// Writes `ftyp`.
pub(super) fn file_type(w: &mut Writer, brands: &[u8]) {
    w.nest(b"ftyp", |w| {
        w.bytes(b"isom");
        w.u32(0x200);
        w.bytes(brands);
    });
}
