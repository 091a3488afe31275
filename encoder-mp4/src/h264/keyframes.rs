use encoder_core::Resolution;

/// The `idr_pic_id` of the key frames. Many encoders change it with every key frame, or count it up:
/// an id that is not as expected then shows that a key frame is missing.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyframeIds {
    last: Option<(u32, Resolution)>,
    /// Key frames so far whose id differs from that of the key frame before.
    changes: u32,
    /// Key frames in a row whose id is one more than that of the key frame before.
    counted: u32,
    /// The encoder uses an id for several key frames in a row.
    is_constant: bool,
    /// Pictures are missing since the last key frame, as was reported.
    is_interrupted: bool,
}

impl KeyframeIds {
    /// How many key frames show how the encoder chooses ids.
    const USUAL: u32 = 2;

    /// Adds the next key frame. Returns the reason why a key frame before it must be missing.
    pub fn next(&mut self, id: u32, size: Resolution) -> Option<String> {
        let last = self.last.replace((id, size)).filter(|(_, before)| *before == size);
        let was_interrupted = std::mem::take(&mut self.is_interrupted);
        let Some((before, _)) = last else {
            (self.changes, self.counted) = (0, 0);
            return None;
        };
        let was_counted = self.counted >= Self::USUAL;
        self.counted = if id == before + 1 { self.counted + 1 } else { 0 };
        // A lower id may be that of an encoder that was restarted.
        let is_unexpected = match id == before {
            true => self.changes >= Self::USUAL && !self.is_constant,
            false => was_counted && id > before + 1,
        };
        match id == before {
            true if !is_unexpected && !was_interrupted => self.is_constant = true,
            true => {}
            false => self.changes += 1,
        }
        (is_unexpected && !was_interrupted).then(|| {
            format!(
                "its idr_pic_id is {id} after {before}, unlike those before it: a key frame is \
                 missing, or the encoder was restarted"
            )
        })
    }

    /// Pictures are missing since the last key frame, as was reported.
    pub fn skip(&mut self) {
        self.is_interrupted = true;
    }
}
