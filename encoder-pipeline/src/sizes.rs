//! Reports changes of the size of a camera's pictures.

use encoder_core::Resolution;

/// The changes of size of a camera. Sizes that alternate are reported once.
#[derive(Default)]
pub(crate) struct SizeChanges {
    /// The last change, which is not reported yet: its size may alternate with the one before it.
    last: Option<String>,
    alternates: bool,
}

impl SizeChanges {
    /// A size that has no video yet. Returns a remark to report.
    pub fn begins(&mut self, from: Resolution, to: Resolution, frame: u64) -> Option<String> {
        let text =
            format!("the pictures change from {from} to {to} at frame {frame}: a new video begins");
        match self.alternates {
            true => Some(text),
            false => self.last.replace(text),
        }
    }

    /// A size whose video continues. Returns a remark to report.
    pub fn returns(&mut self, from: Resolution, to: Resolution, frame: u64) -> Option<String> {
        if std::mem::replace(&mut self.alternates, true) {
            return None;
        }
        self.last = None;
        Some(format!(
            "the pictures change from {to} to {from}, and back at frame {frame}, as if the topic \
             had several publishers: each size has a video of its own, which continues; further \
             changes between them are not listed"
        ))
    }

    /// Returns the last change, if it is not reported yet.
    pub fn take(&mut self) -> Option<String> {
        self.last.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_alternate_are_one_remark() {
        let size = |n: u32| Resolution::new(16 * n, 16);
        let mut changes = SizeChanges::default();
        assert_eq!(changes.begins(size(1), size(2), 5), None);
        // A third size: the second one has not returned.
        let first = changes.begins(size(2), size(3), 9);
        assert!(first.is_some_and(|text| text.contains("from 16x16 to 32x16 at frame 5")));
        let back = changes.returns(size(3), size(2), 10);
        assert!(
            back.is_some_and(|text| text.contains("from 32x16 to 48x16, and back at frame 10"))
        );
        assert_eq!((changes.returns(size(2), size(3), 11), changes.take()), (None, None));
        assert!(changes.begins(size(3), size(4), 12).is_some_and(|text| text.contains("64x16")));

        let mut once = SizeChanges::default();
        assert_eq!(once.begins(size(1), size(2), 5), None);
        assert!(once.take().is_some_and(|text| text.contains("a new video begins")));
        assert_eq!(once.take(), None);
    }
}
