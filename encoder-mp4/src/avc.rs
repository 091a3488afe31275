//! H.264 in MP4: lengths instead of start codes, and parameter sets (ISO/IEC 14496-15).

use encoder_core::{NalKind, nal_units};

use super::{
    Sps,
    boxes::{Fields, Writer},
    sps::HIGH_PROFILES,
};

/// An access unit, taken apart.
pub(super) struct Parts {
    /// Its NAL units behind lengths of four bytes, without parameter sets and delimiters.
    pub units: Vec<u8>,
    sps: Vec<Vec<u8>>,
    pps: Vec<Vec<u8>>,
}

impl Parts {
    /// Takes an Annex B access unit apart.
    pub fn of(access_unit: &[u8]) -> Self {
        let mut parts =
            Self { units: Vec::with_capacity(access_unit.len()), sps: vec![], pps: vec![] };
        for unit in nal_units(access_unit) {
            match NalKind::of(unit[0]) {
                NalKind::Sps => parts.sps.push(unit.to_vec()),
                NalKind::Pps => parts.pps.push(unit.to_vec()),
                NalKind::Aud => {}
                _ => put(&mut parts.units, unit),
            }
        }
        parts
    }

    /// Its parameter sets, where it has both kinds.
    ///
    /// # Errors
    /// In words, when they cannot be read.
    pub fn sets(&mut self) -> Result<Option<ParameterSets>, String> {
        let (sps, pps) = (std::mem::take(&mut self.sps), std::mem::take(&mut self.pps));
        if sps.is_empty() || pps.is_empty() {
            return Ok(None);
        }
        let sets = ParameterSets::new(sps, pps);
        sets.map(Some).ok_or_else(|| "the sequence parameter set cannot be read".into())
    }
}

fn put(out: &mut Vec<u8>, unit: &[u8]) {
    out.extend_from_slice(&(unit.len() as u32).to_be_bytes());
    out.extend_from_slice(unit);
}

/// Sequence and picture parameter sets that belong together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ParameterSets {
    sps: Vec<Vec<u8>>,
    pps: Vec<Vec<u8>>,
    pub parsed: Sps,
}

impl ParameterSets {
    /// `None` where they cannot be read, or are more than a sample description can hold.
    fn new(sps: Vec<Vec<u8>>, pps: Vec<Vec<u8>>) -> Option<Self> {
        let parsed = Sps::parse(sps.first()?)?;
        let fits = |set: &Vec<u8>| set.len() <= usize::from(u16::MAX);
        let most = sps.len() <= 31 && pps.len() <= 255 && !pps.is_empty();
        (most && sps.iter().chain(&pps).all(fits)).then_some(Self { sps, pps, parsed })
    }

    /// As they stand in front of a picture.
    pub fn in_band(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.sps.iter().chain(&self.pps).for_each(|set| put(&mut out, set));
        out
    }

    /// Reads what [`in_band`](Self::in_band) gives.
    pub fn read(mut bytes: &[u8]) -> Option<Self> {
        let (mut sps, mut pps) = (Vec::new(), Vec::new());
        while !bytes.is_empty() {
            let length = bytes.u32()? as usize;
            let unit = bytes.front(length)?;
            match NalKind::of(*unit.first()?) {
                NalKind::Sps => sps.push(unit.to_vec()),
                NalKind::Pps => pps.push(unit.to_vec()),
                _ => return None,
            }
        }
        Self::new(sps, pps)
    }

    /// A sample entry: `avc1`, or `avc3` where parameter sets also stand in front of pictures.
    pub fn sample_entry(&self, w: &mut Writer, kind: &[u8; 4]) {
        let sps = &self.parsed;
        w.nest(kind, |w| {
            w.zeros(6);
            w.u16(1);
            w.zeros(16);
            w.u16(sps.size.width as u16);
            w.u16(sps.size.height as u16);
            w.u32(0x48_0000); // 72 dpi
            w.u32(0x48_0000);
            w.u32(0);
            w.u16(1);
            w.zeros(32);
            w.u16(24);
            w.u16(0xffff);
            w.nest(b"avcC", |w| {
                w.u8(1);
                w.bytes(&self.sps[0][1..4]);
                w.u8(0xff); // lengths of four bytes
                for (sets, reserved) in [(&self.sps, 0xe0), (&self.pps, 0)] {
                    w.u8(reserved | sets.len() as u8);
                    for set in sets {
                        w.u16(set.len() as u16);
                        w.bytes(set);
                    }
                }
                if HIGH_PROFILES.contains(&sps.profile) {
                    w.u8(0xfc | sps.chroma_format);
                    w.u8(0xf8 | (sps.luma_bits - 8));
                    w.u8(0xf8 | (sps.chroma_bits - 8));
                    w.u8(0);
                }
            });
            if let Some(colour) = sps.colour {
                w.nest(b"colr", |w| {
                    w.bytes(b"nclx");
                    w.u16(u16::from(colour.primaries));
                    w.u16(u16::from(colour.transfer));
                    w.u16(u16::from(colour.matrix));
                    w.u8(u8::from(colour.full_range) << 7);
                });
            }
        });
    }
}
