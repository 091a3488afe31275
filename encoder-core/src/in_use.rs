//! Counts the encoders that this process has open.
//!
//! A chain that waits for a busy encoder must not wait for a session of its own process: often the
//! waiting thread is also the thread that feeds the other sessions, so they would never end.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use crate::EncoderType;

static OPEN: Mutex<Vec<Weak<InUse>>> = Mutex::new(Vec::new());

/// An open encoder; dropped with it.
pub(crate) struct InUse {
    encoder: EncoderType,
    /// Whether its stream gets no more frames, so that it ends without further calls.
    is_ending: Arc<AtomicBool>,
}

impl InUse {
    pub fn new(encoder: EncoderType, is_ending: &Arc<AtomicBool>) -> Arc<Self> {
        let new = Arc::new(Self { encoder, is_ending: Arc::clone(is_ending) });
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|known| known.strong_count() > 0);
        open.push(Arc::downgrade(&new));
        new
    }
}

/// The open encoders of one backend.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub all: usize,
    /// Encoders of streams that get no more frames.
    pub ending: usize,
}

pub(crate) fn count(encoder: EncoderType) -> Count {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let of: Vec<_> =
        open.iter().filter_map(Weak::upgrade).filter(|open| open.encoder == encoder).collect();
    let ending = of.iter().filter(|open| open.is_ending.load(SeqCst)).count();
    Count { all: of.len(), ending }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_encoders_are_counted_until_they_are_dropped() {
        const HERE: EncoderType = EncoderType::new("in-use");
        let count = || count(HERE);
        let flags = [(); 2].map(|()| Arc::default());
        let first = InUse::new(HERE, &flags[0]);
        let second = InUse::new(HERE, &flags[1]);
        let _other = InUse::new(EncoderType::new("in-use-2"), &flags[1]);
        assert_eq!(count(), Count { all: 2, ending: 0 });
        flags[1].store(true, SeqCst);
        assert_eq!(count(), Count { all: 2, ending: 1 });
        drop(second);
        assert_eq!(count(), Count { all: 1, ending: 0 });
        drop(first);
        assert_eq!(count(), Count { all: 0, ending: 0 });
    }
}
