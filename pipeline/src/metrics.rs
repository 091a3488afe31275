//! placeholder until merged
use encoder_core::{EncoderType, Refusal};
use std::time::{Duration, Instant};
pub(crate) struct Meter;
impl Meter {
    pub fn new(_: EncoderType, _: Option<&str>) -> Self {
        Self
    }
    pub fn switch(&mut self, _: EncoderType) {}
    pub fn failover(&self, _: Option<EncoderType>, _: &str) {}
    pub fn refusal(&self, _: &Refusal) {}
    pub fn frame(&self, _: usize) {}
    pub fn unit(&self, _: usize, _: Duration) {}
    pub fn repeated(&self, _: u64) {}
    pub fn failed(&self) {}
    pub fn dropped(&self, _: u64) {}
    pub fn tick(&mut self, _: Instant, _: &encoder_ringbuf::Snapshot) {}
}
