//! A bounded ring of frame slots with write, read and commit cursors.
