//! Which errors of FFmpeg may be the reason why its encoder is silent.

/// Distinguishes errors that the encoder has survived from errors that may have stopped it.
///
/// An error is survived when the access unit of a frame comes out that went in after the error had
/// been seen. The order in which an error and an access unit arrive proves nothing: they come
/// through two pipes, and units that were finished before the encoder failed may come behind the
/// error.
#[derive(Debug, Default)]
pub(crate) struct ErrorWatch {
    /// The first so many errors have been survived.
    survived: u64,
    /// An error that was seen and is not survived yet.
    seen: Option<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Errors up to this number.
    errors: u64,
    /// Frames that had gone in when it was seen.
    frames: u64,
}

impl ErrorWatch {
    /// The encoder has opened after so many errors: they have not stopped it.
    pub(crate) fn opened(&mut self, errors: u64) {
        *self = Self { survived: errors, seen: None };
    }

    /// A frame is about to go in; FFmpeg has reported `errors` so far, and `frames` went in before.
    pub(crate) fn before_frame(&mut self, errors: u64, frames: u64) {
        if self.seen.is_none() && errors > self.survived {
            self.seen = Some(Seen { errors, frames });
        }
    }

    /// The access unit of the frame `index`, counted from the first one, has come out.
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
    fn an_error_counts_until_a_later_frame_comes_out() {
        let mut watch = ErrorWatch::default();
        assert!(watch.may_have_stopped(1));
        watch.opened(1);
        assert!(!watch.may_have_stopped(1));
        watch.before_frame(1, 1);
        // The second error comes while frames 0 to 3 are inside.
        assert!(watch.may_have_stopped(2));
        watch.before_frame(2, 4);
        // Frames that went in before it prove nothing, in whatever order they come out.
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
