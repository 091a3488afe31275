use encoder_core::Resolution;

/// The `idr_pic_id` of the key frames. Many encoders change it with every key frame: then two key
/// frames in a row with the same id show that a key frame between them is missing.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyframeIds {
    last: Option<(u32, Resolution)>,
    /// Key frames in a row whose id differs from that of the key frame before.
    changes: u32,
    /// The encoder uses an id for several key frames in a row.
    is_constant: bool,
    /// Pictures are missing since the last key frame, as was reported.
    is_interrupted: bool,
}

impl KeyframeIds {
    /// How many changes in a row show that the encoder always changes the id.
    const USUAL: u32 = 2;

    /// Adds the next key frame. Returns the reason why a key frame before it must be missing.
    pub fn next(&mut self, id: u32, size: Resolution) -> Option<String> {
        let last = self.last.replace((id, size)).filter(|(_, before)| *before == size);
        let was_interrupted = std::mem::take(&mut self.is_interrupted);
        match last {
            None => {
                self.changes = 0;
                None
            }
            Some((before, _)) if before != id => {
                self.changes += 1;
                None
            }
            // Ids that count from the start of the encoder may be equal after a restart.
            _ if was_interrupted => None,
            _ if self.changes >= Self::USUAL && !self.is_constant => Some(format!(
                "its idr_pic_id is {id}, as that of the key frame before it, while it changed with \
                 each of the others: a key frame is missing, or the encoder was restarted"
            )),
            _ => {
                self.is_constant = true;
                None
            }
        }
    }

    /// Pictures are missing since the last key frame, as was reported.
    pub fn skip(&mut self) {
        self.is_interrupted = true;
    }
}
