//! Decides which errors of FFmpeg may be the reason for an encoder without output.

/// Distinguishes errors that the encoder has survived from errors that may have stopped it.
///
/// An error is survived when the encoder returns the access unit of a frame that was written after
/// the error was seen. The order in which an error and an access unit arrive shows nothing: they
/// use two pipes, and access units that were finished before the encoder failed may arrive after
/// the error.
#[derive(Debug, Default)]
pub(crate) struct ErrorWatch {
    /// Number of errors that were survived.
    survived: u64,
    /// An error that was seen and is not yet survived.
    seen: Option<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Number of errors reported at that time.
    errors: u64,
    /// Number of frames written at that time.
    frames: u64,
}

impl ErrorWatch {
    /// To be called when the encoder has opened: the `errors` reported so far have not stopped it.
    pub(crate) fn opened(&mut self, errors: u64) {
        *self = Self { survived: errors, seen: None };
    }

    /// To be called before each frame is written: FFmpeg has reported `errors` so far, and `frames`
    /// were written before.
    pub(crate) fn before_frame(&mut self, errors: u64, frames: u64) {
        if self.seen.is_none() && errors > self.survived {
            self.seen = Some(Seen { errors, frames });
        }
    }

    /// To be called for each access unit: `index` is that of its frame, counted from the first
    /// frame.
    pub(crate) fn access_unit(&mut self, index: u64) {
        if let Some(seen) = self.seen.take_if(|seen| index >= seen.frames) {
            self.survived = seen.errors;
        }
    }

    /// Whether one of the `errors` that FFmpeg has reported may have stopped the encoder.
    pub(crate) fn may_have_stopped(&self, errors: u64) -> bool {
        errors > self.survived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_counts_until_the_access_unit_of_a_later_frame() {
        let mut watch = ErrorWatch::default();
        assert!(watch.may_have_stopped(1));
        watch.opened(1);
        assert!(!watch.may_have_stopped(1));
        watch.before_frame(1, 1);
        // The second error is reported while frames 0 to 3 are in flight.
        assert!(watch.may_have_stopped(2));
        watch.before_frame(2, 4);
        // Access units of frames that were written before it show nothing, in any order.
        for index in [0, 3, 1, 2] {
            watch.access_unit(index);
            assert!(watch.may_have_stopped(2));
        }
        watch.before_frame(2, 5);
        watch.access_unit(4);
        assert!(!watch.may_have_stopped(2));
        // The next error counts again.
        assert!(watch.may_have_stopped(3));
    }

    #[test]
    fn an_error_for_each_frame_is_survived_with_a_delay() {
        let mut watch = ErrorWatch::default();
        for frame in 0..100 {
            watch.before_frame(frame, frame);
            if let Some(out) = u64::checked_sub(frame, 3) {
                watch.access_unit(out);
                assert!(!watch.may_have_stopped(out.saturating_sub(3)), "{frame}");
            }
        }
    }
}
