//! Just enough of MP4 to look at the order of its boxes and at its timescale.

/// The boxes in `bytes`: kind and content.
pub fn boxes(bytes: &[u8]) -> Vec<(String, &[u8])> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let kind = String::from_utf8_lossy(&bytes[at + 4..at + 8]).into_owned();
        let (head, size) = match number(at) {
            1 => (16, (u64::from(number(at + 8)) << 32 | u64::from(number(at + 12))) as usize),
            size => (8, size as usize),
        };
        assert!(size >= head && at + size <= bytes.len(), "box {kind} of {size} bytes at {at}");
        out.push((kind, &bytes[at + head..at + size]));
        at += size;
    }
    out
}

/// The content of the box at a path such as `moov/trak/mdia`.
pub fn find<'a>(bytes: &'a [u8], path: &str) -> Option<&'a [u8]> {
    path.split('/').try_fold(bytes, |bytes, kind| {
        boxes(bytes).into_iter().find(|(k, _)| k == kind).map(|(_, content)| content)
    })
}

/// Fails where the index is not in front of the pictures.
pub fn check_order(file: &[u8]) {
    let kinds: Vec<_> = boxes(file).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["ftyp", "moov", "mdat"]);
}

/// Ticks in a second of the track, and its duration in ticks (of `mdhd`, version 1).
pub fn timescale_and_duration(file: &[u8]) -> (u32, u64) {
    let mdhd = find(file, "moov/trak/mdia/mdhd").unwrap();
    assert_eq!(mdhd[0], 1, "version of mdhd");
    (
        u32::from_be_bytes(mdhd[20..24].try_into().unwrap()),
        u64::from_be_bytes(mdhd[24..32].try_into().unwrap()),
    )
}

/// Colour primaries, transfer, matrix and full range flag, as the container tells them.
pub fn colour(file: &[u8]) -> Option<(u16, u16, u16, bool)> {
    let stsd = find(file, "moov/trak/mdia/minf/stbl/stsd")?;
    let (_, entry) = boxes(&stsd[8..]).into_iter().next()?;
    let colr = find(&entry[78..], "colr")?;
    let number = |at: usize| u16::from_be_bytes([colr[at], colr[at + 1]]);
    Some((number(4), number(6), number(8), colr[10] & 0x80 != 0))
}
