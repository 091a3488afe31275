//! FLV as FFmpeg writes it, without FFmpeg.

/// A stream of `count` access units with `bytes` bytes each.
pub fn stream(count: u32, bytes: usize) -> Vec<u8> {
    let mut all = b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec();
    let mut tag = |ms: u32, body: &[u8]| {
        let size = (body.len() as u32).to_be_bytes();
        let [high, time @ ..] = ms.to_be_bytes();
        all.extend([9, size[1], size[2], size[3]]);
        all.extend(time);
        all.extend([high, 0, 0, 0]);
        all.extend_from_slice(body);
        all.extend((body.len() as u32 + 11).to_be_bytes());
    };
    tag(0, &[0x17, 0, 0, 0, 0, 1, 100, 0, 30, 0xff, 0xe1, 0, 2, 0x67, 1, 1, 0, 2, 0x68, 1]);
    for n in 0..count {
        let mut body = vec![if n % 30 == 0 { 0x17 } else { 0x27 }, 1, 0, 0, 0];
        body.extend((bytes as u32).to_be_bytes());
        body.push(if n % 30 == 0 { 0x65 } else { 0x41 });
        body.resize(9 + bytes, 0x5a);
        tag(n * 33, &body);
    }
    all
}
