//! The state of a session in numbers, for a program that monitors it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU8, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use encoder_core::EncoderType;
use encoder_ringbuf::Monitor;
use serde::Serialize;

use crate::slot::Meta;

/// The seconds over which [`Stats::fps`] is measured.
const WINDOW: u64 = 5;

/// Whether a session accepts frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SessionState {
    /// It accepts frames.
    Open,
    /// It accepts no more frames, and encodes those in its ring.
    Closing,
    /// It has ended, with a video or with an error; its encoder and its sink are closed.
    Ended,
}

/// The state of a session at one moment. The counts only grow.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Whether the session accepts frames.
    pub state: SessionState,
    /// The active encoder, or the last active encoder.
    pub encoder: EncoderType,
    /// Changes of the encoder in mid-stream, to another encoder or to the same one opened again.
    pub failovers: u64,
    /// Slots of the ring.
    pub ring_slots: usize,
    /// Bytes of the ring, as allocated.
    pub ring_bytes: usize,
    /// Slots in use: reserved for a frame whose access unit is not in the sink.
    pub ring_used: usize,
    /// The most slots that were in use at the same time.
    pub ring_high_water: usize,
    /// Frames in the ring that wait for the encoder.
    pub queue: usize,
    /// Frames that were pushed, including bad and dropped frames.
    pub frames_in: u64,
    /// Frames that are in the video together with all frames displayed before them.
    pub frames_encoded: u64,
    /// Frames of the video that repeat an earlier or later picture.
    pub frames_repeated: u64,
    /// Frames that could not be decoded.
    pub frames_failed: u64,
    /// Frames that were dropped because the ring was full, or because the run was stopped and no
    /// encoder worked.
    pub frames_dropped: u64,
    /// Bytes of access units.
    pub bytes_out: u64,
    /// Frames per second that reached the sink, over the last five whole seconds.
    pub fps: f64,
    /// From the reservation of a frame's slot until its access unit is in the sink.
    pub latency: Latency,
}

/// Latencies of all frames of a session so far, in seconds; 0 before the first frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// Of half the frames the latency is at most this; at most 13 % too high.
    pub p50_s: f64,
    /// Of 99 % of the frames the latency is at most this; at most 13 % too high.
    pub p99_s: f64,
    /// The highest latency.
    pub max_s: f64,
}

/// Reads the [`Stats`] of a session from any thread, also after its end. Cheap to clone; keeps
/// neither frames nor the encoder alive.
#[derive(Clone)]
pub struct StatsHandle {
    counters: Arc<Counters>,
    ring: Monitor<Meta>,
    ring_bytes: usize,
}

impl StatsHandle {
    pub(crate) fn new(counters: Arc<Counters>, ring: Monitor<Meta>, ring_bytes: usize) -> Self {
        Self { counters, ring, ring_bytes }
    }

    /// The stats now. Reads atomics, and holds the lock of the ring for less than a microsecond for
    /// each hundred slots.
    pub fn get(&self) -> Stats {
        let Counters { begun, rate, latencies, .. } = &*self.counters;
        let ring = self.ring.snapshot();
        let read = |count: &AtomicU64| count.load(Relaxed);
        Stats {
            state: self.counters.state(),
            encoder: self.counters.encoder(),
            failovers: read(&self.counters.failovers),
            ring_slots: ring.capacity,
            ring_bytes: self.ring_bytes,
            ring_used: ring.len,
            ring_high_water: ring.high_water,
            queue: ring.readable,
            frames_in: read(&self.counters.frames_in),
            frames_encoded: read(&self.counters.frames_encoded),
            frames_repeated: read(&self.counters.frames_repeated),
            frames_failed: read(&self.counters.frames_failed),
            frames_dropped: read(&self.counters.frames_dropped),
            bytes_out: read(&self.counters.bytes_out),
            fps: rate.per_second(begun.elapsed()),
            latency: latencies.summary(),
        }
    }
}

impl fmt::Debug for StatsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StatsHandle").field(&self.get()).finish()
    }
}

/// The counts of a session, which its threads change.
#[derive(Debug)]
pub(crate) struct Counters {
    pub frames_in: AtomicU64,
    pub frames_encoded: AtomicU64,
    pub frames_repeated: AtomicU64,
    pub frames_failed: AtomicU64,
    pub frames_dropped: AtomicU64,
    pub bytes_out: AtomicU64,
    failovers: AtomicU64,
    /// A [`SessionState`] as a number.
    state: AtomicU8,
    /// Changed only when the encoder changes.
    encoder: Mutex<EncoderType>,
    begun: Instant,
    rate: Rate,
    latencies: Latencies,
}

impl Counters {
    pub fn new(encoder: EncoderType) -> Self {
        Self {
            frames_in: AtomicU64::new(0),
            frames_encoded: AtomicU64::new(0),
            frames_repeated: AtomicU64::new(0),
            frames_failed: AtomicU64::new(0),
            frames_dropped: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            failovers: AtomicU64::new(0),
            state: AtomicU8::new(0),
            encoder: Mutex::new(encoder),
            begun: Instant::now(),
            rate: Rate::default(),
            latencies: Latencies::default(),
        }
    }

    /// Counts a frame whose access unit is in the sink, `latency` after its slot was reserved.
    pub fn written(&self, latency: Duration) {
        self.frames_encoded.fetch_add(1, Relaxed);
        self.rate.add(self.begun.elapsed());
        self.latencies.add(latency);
    }

    pub fn set_encoder(&self, encoder: EncoderType, failovers: u64) {
        *self.encoder.lock().unwrap_or_else(PoisonError::into_inner) = encoder;
        self.failovers.store(failovers, Relaxed);
    }

    fn encoder(&self) -> EncoderType {
        *self.encoder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves to a later state; an earlier one has no effect.
    pub fn set_state(&self, state: SessionState) {
        self.state.fetch_max(state as u8, SeqCst);
    }

    fn state(&self) -> SessionState {
        match self.state.load(SeqCst) {
            0 => SessionState::Open,
            1 => SessionState::Closing,
            _ => SessionState::Ended,
        }
    }
}

/// Counts frames by second. One thread adds, any thread reads.
#[derive(Debug, Default)]
struct Rate {
    /// Each has the number of its second in the upper half, and its frames in the lower half.
    seconds: [AtomicU64; WINDOW as usize + 1],
}

impl Rate {
    const FRAMES: u64 = u32::MAX as u64;

    fn add(&self, age: Duration) {
        let second = age.as_secs();
        let cell = &self.seconds[(second % (WINDOW + 1)) as usize];
        let before = cell.load(Relaxed);
        let frames = if before >> 32 == second { before & Self::FRAMES } else { 0 };
        cell.store((second << 32) | (frames + 1).min(Self::FRAMES), Relaxed);
    }

    /// Frames per second in the last [`WINDOW`] whole seconds; in a younger session since it began.
    fn per_second(&self, age: Duration) -> f64 {
        let now = age.as_secs();
        let is_young = now < WINDOW;
        let is_inside =
            |second: u64| second + WINDOW >= now && (second < now || (is_young && second == now));
        let cells = self.seconds.iter().map(|cell| cell.load(Relaxed));
        let frames: u64 =
            cells.filter(|cell| is_inside(cell >> 32)).map(|cell| cell & Self::FRAMES).sum();
        let seconds = if is_young { age.as_secs_f64() } else { WINDOW as f64 };
        if frames == 0 { 0.0 } else { frames as f64 / seconds.max(0.001) }
    }
}

/// A histogram of latencies in microseconds, with 8 buckets for each doubling.
#[derive(Debug)]
struct Latencies {
    buckets: [AtomicU64; BUCKETS],
    max: AtomicU64,
}

/// Up to 2^36 µs, which is 19 hours.
const BUCKETS: usize = 8 * 35;

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], max: AtomicU64::new(0) }
    }
}

impl Latencies {
    fn add(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Relaxed);
        self.max.fetch_max(us, Relaxed);
    }

    fn summary(&self) -> Latency {
        let counts: Vec<u64> = self.buckets.iter().map(|count| count.load(Relaxed)).collect();
        let (all, max) = (counts.iter().sum::<u64>(), self.max.load(Relaxed));
        let quantile = |percent: u64| {
            let rank = (all * percent).div_ceil(100).max(1);
            let mut below = 0;
            let found = counts.iter().position(|count| {
                below += count;
                below >= rank
            });
            found.map_or(0, |bucket| last_of(bucket).min(max)) as f64 / 1e6
        };
        Latency { p50_s: quantile(50), p99_s: quantile(99), max_s: max as f64 / 1e6 }
    }
}

/// The bucket of a number of microseconds.
fn bucket(us: u64) -> usize {
    let Some(doublings) = us.max(1).ilog2().checked_sub(3) else { return us as usize };
    // The highest bit and the three bits behind it.
    let leading = (us >> doublings) as usize;
    (doublings as usize * 8 + leading).min(BUCKETS - 1)
}

/// The highest number of microseconds of a bucket.
fn last_of(bucket: usize) -> u64 {
    match bucket {
        0..8 => bucket as u64,
        _ => {
            let (doublings, leading) = (bucket / 8 - 1, bucket % 8 + 8);
            ((leading as u64 + 1) << doublings) - 1
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_latency_is_in_its_bucket_and_the_buckets_have_no_gaps() {
        for n in 0..BUCKETS {
            assert_eq!(bucket(last_of(n)), n);
            assert_eq!(bucket(last_of(n) + 1), (n + 1).min(BUCKETS - 1));
            let width = last_of(n) - n.checked_sub(1).map_or(0, last_of);
            assert!(width * 8 <= last_of(n).max(8), "bucket {n} is {width} wide");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!(last_of(BUCKETS - 1) > 19 * 3_600_000_000);
    }

    #[test]
    fn quantiles_of_latencies() {
        let close = |got: f64, want: f64| got >= want && got <= want * 1.13;
        let latencies = Latencies::default();
        assert_eq!(latencies.summary(), Latency::default());
        latencies.add(Duration::from_millis(7));
        let one = latencies.summary();
        assert_eq!((one.p50_s, one.p99_s, one.max_s), (0.007, 0.007, 0.007));
        let latencies = Latencies::default();
        (1..=1000).for_each(|ms| latencies.add(Duration::from_millis(ms)));
        let many = latencies.summary();
        assert!(close(many.p50_s, 0.5) && close(many.p99_s, 0.99), "{many:?}");
        assert_eq!(many.max_s, 1.0);
    }

    #[test]
    fn the_rate_is_that_of_the_last_whole_seconds() {
        let at = Duration::from_secs_f64;
        let rate = Rate::default();
        assert_eq!(rate.per_second(at(0.0)), 0.0);
        // 10 frames per second for two seconds: a young session counts from its beginning.
        (0..20).for_each(|n| rate.add(at(f64::from(n) / 10.0)));
        assert_eq!(rate.per_second(at(2.0)), 10.0);
        assert_eq!(rate.per_second(at(4.0)), 5.0);
        // 30 frames per second from second 10 on; the second that is not over does not count.
        (0..105).for_each(|n| rate.add(at(10.0 + f64::from(n) / 30.0)));
        let table =
            [(13.4, 18.0), (14.0, 21.0), (15.5, 21.0), (16.0, 15.0), (18.0, 3.0), (19.0, 0.0)];
        for (age, fps) in table {
            assert_eq!(rate.per_second(at(age)), fps, "after {age} s");
        }
        assert_eq!(rate.per_second(at(1000.0)), 0.0);
    }

    #[test]
    fn states_do_not_go_back() {
        let counters = Counters::new(EncoderType::OPENH264);
        assert_eq!(counters.state(), SessionState::Open);
        counters.set_state(SessionState::Ended);
        counters.set_state(SessionState::Closing);
        assert_eq!(counters.state(), SessionState::Ended);
    }
}
