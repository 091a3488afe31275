//! Messages that were compressed individually: rosbag2 with `compression_mode: message`.

use std::io::Read;

use bytes::Bytes;

use crate::BadMessage;
use crate::signature::ZSTD;

/// Decompresses a message in CDR that was compressed as Zstandard; returns any other message as it
/// is. The first bytes of Zstandard are those of no message in CDR.
///
/// # Errors
/// [`BadMessage`] when it cannot be decompressed, or has more than `limit` bytes.
pub(crate) fn unzip(data: Bytes, limit: u64) -> Result<Bytes, BadMessage> {
    if !data.starts_with(ZSTD) {
        return Ok(data);
    }
    let mut out = Vec::new();
    zstd::stream::read::Decoder::with_buffer(&*data)
        .and_then(|zip| zip.take(limit.saturating_add(1)).read_to_end(&mut out))
        .map_err(|error| BadMessage { reason: format!("zstd: {error}") })?;
    if out.len() as u64 > limit {
        return Err(BadMessage {
            reason: format!(
                "it has more than {limit} bytes decompressed, the limit; raise `Limits::message_bytes`"
            ),
        });
    }
    Ok(out.into())
}
