//! Key frames that were requested, and those at the beginning of a GOP.

use encoder_core::OpenError;

use super::{Active, Engine};

impl Engine {
    /// Whether the active encoder begins a GOP at this frame, if it has added no IDR picture.
    pub(super) fn is_gop_start(&self, index: u64) -> bool {
        (index - self.gop_start).is_multiple_of(self.gop_size)
    }

    /// Whether the active encoder must be opened again to make the next frame an IDR picture. This
    /// includes frames where a GOP should begin: an encoder counts its GOPs from IDR pictures that it
    /// adds by itself, and may not have returned their access units yet.
    pub(super) fn must_restart(&self) -> bool {
        self.gop_size > 1
            && self.next() > self.base
            && self.active.as_ref().is_some_and(|active| !active.encoder.can_force_idr())
    }

    /// Opens the active encoder again, which has been drained, or the next one if it is refused.
    pub(super) fn restart(&mut self) -> Result<(), OpenError> {
        let from = self.retire();
        let opened = self.chain.reopen();
        self.count_refusals();
        let encoder = opened.inspect_err(|error| {
            if !matches!(error, OpenError::Stopped) {
                self.meter.failover(None, "refused");
            }
        })?;
        let to = encoder.encoder_type();
        if to != from {
            let refusal = self.refusals().iter().rev().find(|refusal| refusal.encoder == from);
            let reason = refusal.map_or(String::new(), |refusal| refusal.reason.clone());
            self.changed(from, to, "refused", reason);
        }
        self.install(Active::new(encoder, self.layout));
        Ok(())
    }
}
