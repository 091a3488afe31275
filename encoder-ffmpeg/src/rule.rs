//! Rules: the meaning of lines of FFmpeg's log. Each backend has its own table.

use encoder_core::RefusalKind;

/// A line of FFmpeg's log and its meaning, for [`classify`](crate::classify).
///
/// The first matching rule of a table decides, so causes precede their consequences. A rule matches
/// lines that FFmpeg marked as a warning or worse, and lines without a mark.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub(crate) needle: &'static str,
    pub(crate) also: &'static str,
    pub(crate) kind: RefusalKind,
    pub(crate) meaning: &'static str,
    pub(crate) hint: &'static str,
    pub(crate) any_level: bool,
    pub(crate) last_resort: bool,
}

impl Rule {
    /// A line that contains `needle` becomes a refusal with the reason `meaning` and this `hint`. A
    /// refusal of the kind [`RefusalKind::Busy`] is transient, every other refusal is lasting.
    pub const fn new(
        needle: &'static str,
        kind: RefusalKind,
        meaning: &'static str,
        hint: &'static str,
    ) -> Self {
        Self { needle, also: "", kind, meaning, hint, any_level: false, last_resort: false }
    }

    /// The line must also contain this text.
    #[must_use]
    pub const fn and(mut self, also: &'static str) -> Self {
        self.also = also;
        self
    }

    /// Lines below the level of a warning match too: for a cause that some version of FFmpeg
    /// reports as verbose only.
    #[must_use]
    pub const fn at_any_level(mut self) -> Self {
        self.any_level = true;
        self
    }

    /// Applies only if no other rule matches, of the backend or of FFmpeg: for a line that
    /// summarises earlier lines.
    #[must_use]
    pub const fn as_last_resort(mut self) -> Self {
        self.last_resort = true;
        self
    }
}

/// Hints that several tables of rules share.
pub mod hints {
    /// For a device whose sessions or memory are used up.
    pub const LATER: &str = "close other programs that encode, let gpu.session_wait_s wait for \
                             them, or try again later";
    /// For a size that a device does not support.
    pub const SIZE: &str = "use another size, or another encoder";
    /// For a device or driver that failed.
    pub const LOG: &str = "check the system log (dmesg) for the driver's message";
    /// For a defect of this program, or an FFmpeg that it does not know.
    pub const REPORT: &str = "report it with the results of `Detection::run`";
}
