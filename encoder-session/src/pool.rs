//! Bounds that the sessions of a program share.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use encoder_core::Resolution;
use encoder_ringbuf::{SlotAllocator, SlotMemory};
use serde::Serialize;
use thiserror::Error;

use crate::report::width_and_height;

/// What all sessions of a [`Pool`] may use together. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PoolLimits {
    /// Bytes of memory: the rings, the copies of frames, and the encoders by their estimate
    /// ([`Backend::memory_estimate`](encoder_core::Backend::memory_estimate)), child processes
    /// included.
    pub memory: Option<u64>,
    /// Threads of software encoders. Each session with a software encoder needs at least one.
    pub threads: Option<usize>,
    /// Sessions that are open at the same time. With it, memory and threads are divided evenly:
    /// each session gets at most what is free divided by the sessions that may still be opened.
    pub sessions: Option<usize>,
}

impl PoolLimits {
    /// No limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the bytes of rings, copies of frames and encoders.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Limits the threads of software encoders, and with it the sessions that have one: each needs
    /// at least one thread.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Limits the sessions that are open at the same time.
    #[must_use]
    pub fn with_sessions(mut self, sessions: usize) -> Self {
        self.sessions = Some(sessions);
        self
    }

    /// What is left of the limits.
    fn free(&self, used: &Amount) -> Free {
        Free {
            memory: self.memory.map(|limit| limit.saturating_sub(used.memory)),
            threads: self.threads.map(|limit| limit.saturating_sub(used.threads)),
            sessions: self.sessions.map(|limit| limit.saturating_sub(used.sessions)),
        }
    }
}

/// Bounds memory, encoder threads and number of the sessions that share it
/// ([`SessionConfig::with_pool`](crate::SessionConfig::with_pool)). Clones are the same pool.
///
/// A session takes its share when it opens. If memory is short, its ring gets fewer slots than
/// `ring_buffer_size`, down to the fewest that its encoders need; if threads are short, a software
/// encoder gets fewer, down to one. The share is returned when the session's encoder is closed and
/// the memory of its ring is freed, however the session ended.
///
/// A session whose encoders all need a device takes no threads. Another session returns them if an
/// encoder with a device opens; a software encoder that takes over later gets one thread, which is
/// not counted.
///
/// Sessions that wait for a share get it in the order in which they began to wait: no session
/// overtakes another, even if its share is smaller.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    limits: PoolLimits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: Amount,
    holders: Vec<(u64, Holder)>,
    /// The sessions that wait, in order.
    queue: VecDeque<(u64, Option<Waker>)>,
    next_id: u64,
}

/// What is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    memory: u64,
    threads: usize,
    sessions: usize,
}

/// What is left of the limits of a pool; `None` where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Free {
    /// Bytes.
    pub memory: Option<u64>,
    /// Threads of software encoders.
    pub threads: Option<usize>,
    /// Sessions.
    pub sessions: Option<usize>,
}

/// The share of a session that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Holder {
    /// The session's `camera_label`.
    pub camera: Option<String>,
    /// The size of its pictures.
    #[serde(flatten, serialize_with = "width_and_height")]
    pub size: Resolution,
    /// Bytes of its ring.
    pub ring_bytes: u64,
    /// Bytes of the frames that it may copy out of its ring: see [`Needed::copied_bytes`].
    pub copied_bytes: u64,
    /// Bytes that its encoder is estimated to use.
    pub encoder_bytes: u64,
    /// Threads that its software encoder may use; 0 if its encoder needs a device.
    pub threads: usize,
}

impl Holder {
    /// Bytes of ring, copies and encoder.
    pub fn memory(&self) -> u64 {
        self.ring_bytes.saturating_add(self.copied_bytes).saturating_add(self.encoder_bytes)
    }

    fn amount(&self) -> Amount {
        Amount { memory: self.memory(), threads: self.threads, sessions: 1 }
    }
}

/// The state of a pool at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PoolStats {
    /// What the sessions may use together.
    pub limits: PoolLimits,
    /// What is left of it.
    pub free: Free,
    /// The sessions that have a share, in the order in which they got it.
    pub holders: Vec<Holder>,
    /// How many sessions wait for a share.
    pub waiting: usize,
}

/// The least that a session needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Needed {
    /// The size of its pictures.
    #[serde(flatten, serialize_with = "width_and_height")]
    pub size: Resolution,
    /// Slots of its ring.
    pub slots: usize,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Bytes of the frames that it may copy out of its ring: pictures that are repeated in place of
    /// bad frames, and a frame that is converted for an encoder of another pixel format.
    pub copied_bytes: u64,
    /// Bytes that its encoder is estimated to use.
    pub encoder_bytes: u64,
    /// Threads of its encoder: 1, or 0 if it needs a device.
    pub threads: usize,
}

impl Needed {
    /// Bytes of ring, copies and encoder.
    pub fn memory(&self) -> u64 {
        (self.slots as u64).saturating_mul(self.slot_bytes).saturating_add(self.beside_ring())
    }

    fn beside_ring(&self) -> u64 {
        self.copied_bytes.saturating_add(self.encoder_bytes)
    }
}

/// Why a session got no share of its pool.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The session needs more than the whole pool has: no wait would help.
    #[error("the pool is too small for a session: {needed}; the whole pool has {}", Free::of(.limits))]
    TooSmall {
        /// The least that the session needs.
        needed: Box<Needed>,
        /// What the whole pool has.
        limits: PoolLimits,
    },
    /// Other sessions have what the session needs.
    #[error("the pool is full: {needed}; free are {free}; {}", in_use(.holders, *.waiting))]
    Full {
        /// The least that the session needs.
        needed: Box<Needed>,
        /// What is left of the pool.
        free: Free,
        /// The sessions that have a share.
        holders: Vec<Holder>,
        /// How many sessions wait for a share.
        waiting: usize,
    },
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, slots, slot_bytes, copied_bytes, encoder_bytes, threads } = *self;
        let (all, slot) = (megabytes(self.memory()), megabytes(slot_bytes));
        write!(f, "a session of {size} needs at least {all} ({slots} slots of {slot}")?;
        if copied_bytes > 0 {
            write!(f, ", {} for copies of frames", megabytes(copied_bytes))?;
        }
        write!(f, ", and {} for the encoder)", megabytes(encoder_bytes))?;
        match threads {
            0 => Ok(()),
            _ => write!(f, " and {}", count(threads, "encoder thread")),
        }
    }
}

impl Free {
    fn of(limits: &PoolLimits) -> Self {
        limits.free(&Amount::default())
    }
}

impl fmt::Display for Free {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = self.memory.map(megabytes);
        let threads = self.threads.map(|threads| count(threads, "encoder thread"));
        let sessions = self.sessions.map(|sessions| count(sessions, "session"));
        let all: Vec<_> = [memory, threads, sessions].into_iter().flatten().collect();
        f.write_str(&all.join(", "))
    }
}

fn in_use(holders: &[Holder], waiting: usize) -> String {
    let of = |holder: &Holder| {
        let camera = holder.camera.as_deref().unwrap_or("a session");
        let memory = megabytes(holder.amount().memory);
        format!("{camera} ({}): {memory} and {}", holder.size, count(holder.threads, "thread"))
    };
    let mut text = match holders {
        [] => "no session is open".to_owned(),
        _ => format!("in use by {}", holders.iter().map(of).collect::<Vec<_>>().join(", ")),
    };
    if waiting > 0 {
        text += &format!("; waiting before it: {}", count(waiting, "session"));
    }
    text
}

/// `1 thread`, `2 threads`.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// What a session asks for.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    pub camera: Option<String>,
    /// The least that it needs.
    pub needed: Needed,
    /// The slots that it wants.
    pub slots: usize,
    /// The threads that it wants, at least those that it needs.
    pub threads: usize,
}

impl Demand {
    /// Whether the limits never allow it.
    fn is_too_large(&self, limits: &PoolLimits) -> bool {
        limits.memory.is_some_and(|limit| self.needed.memory() > limit)
            || limits.threads.is_some_and(|limit| self.needed.threads > limit)
            || limits.sessions == Some(0)
    }

    /// The share that it gets of what is free, if that is enough.
    fn share_of(&self, free: &Free) -> Option<Holder> {
        let is_short = free.memory.is_some_and(|memory| memory < self.needed.memory())
            || free.threads.is_some_and(|threads| threads < self.needed.threads)
            || free.sessions == Some(0);
        if is_short {
            return None;
        }
        let sessions = free.sessions.unwrap_or(1).max(1);
        let slots = free.memory.map_or(self.slots, |memory| {
            let for_ring = (memory / sessions as u64).saturating_sub(self.needed.beside_ring());
            let slots = for_ring / self.needed.slot_bytes.max(1);
            usize::try_from(slots).unwrap_or(usize::MAX).min(self.slots)
        });
        let threads = free.threads.map_or(self.threads, |free| self.threads.min(free / sessions));
        Some(Holder {
            camera: self.camera.clone(),
            size: self.needed.size,
            ring_bytes: slots.max(self.needed.slots) as u64 * self.needed.slot_bytes,
            copied_bytes: self.needed.copied_bytes,
            encoder_bytes: self.needed.encoder_bytes,
            threads: threads.max(self.needed.threads),
        })
    }
}

impl Pool {
    /// A pool with these limits.
    pub fn new(limits: PoolLimits) -> Self {
        Self(Arc::new(Shared { limits, state: Mutex::default() }))
    }

    /// What is used, what is free, and by which sessions.
    pub fn stats(&self) -> PoolStats {
        let state = self.lock();
        PoolStats {
            limits: self.0.limits,
            free: self.0.limits.free(&state.used),
            holders: state.holders.iter().map(|(_, holder)| holder.clone()).collect(),
            waiting: state.queue.len(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock: it is only arithmetic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A share for `demand` now.
    pub(crate) fn try_share(&self, demand: &Demand) -> Result<Arc<Share>, PoolError> {
        self.check(demand)?;
        let mut state = self.lock();
        let granted = match state.queue.is_empty() {
            true => self.grant(&mut state, demand),
            // Others came first.
            false => None,
        };
        granted.ok_or_else(|| PoolError::Full {
            needed: Box::new(demand.needed),
            free: self.0.limits.free(&state.used),
            holders: state.holders.iter().map(|(_, holder)| holder.clone()).collect(),
            waiting: state.queue.len(),
        })
    }

    /// A share for `demand`, as soon as there is one and all that began to wait before have theirs.
    pub(crate) async fn share(&self, demand: &Demand) -> Result<Arc<Share>, PoolError> {
        self.check(demand)?;
        Ok(Waiting { pool: self, demand, id: None }.await)
    }

    fn check(&self, demand: &Demand) -> Result<(), PoolError> {
        let limits = self.0.limits;
        match demand.is_too_large(&limits) {
            true => Err(PoolError::TooSmall { needed: Box::new(demand.needed), limits }),
            false => Ok(()),
        }
    }

    fn grant(&self, state: &mut State, demand: &Demand) -> Option<Arc<Share>> {
        let holder = demand.share_of(&self.0.limits.free(&state.used))?;
        let id = state.next_id;
        state.next_id += 1;
        let amount = holder.amount();
        state.used.memory = state.used.memory.saturating_add(amount.memory);
        state.used.threads = state.used.threads.saturating_add(amount.threads);
        state.used.sessions += amount.sessions;
        let (ring_bytes, threads) = (holder.ring_bytes, holder.threads);
        let slots = ring_bytes / demand.needed.slot_bytes.max(1);
        state.holders.push((id, holder));
        Some(Arc::new(Share { pool: self.clone(), id, slots: slots as usize, threads }))
    }

    /// Wakes the first that waits, after the state has changed.
    fn wake_first(mut state: MutexGuard<'_, State>) {
        let waker = state.queue.front_mut().and_then(|(_, waker)| waker.take());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.stats()).finish()
    }
}

/// A wait for a share. Dropping it gives up its place in the queue.
struct Waiting<'a> {
    pool: &'a Pool,
    demand: &'a Demand,
    /// Its place in the queue.
    id: Option<u64>,
}

impl Future for Waiting<'_> {
    type Output = Arc<Share>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arc<Share>> {
        let waker = cx.waker().clone();
        let pool = self.pool;
        let mut state = pool.lock();
        let is_first = state.queue.front().map(|(first, _)| *first) == self.id;
        if is_first && let Some(share) = pool.grant(&mut state, self.demand) {
            let place = self.id.take().and_then(|_| state.queue.pop_front());
            Pool::wake_first(state);
            drop(place);
            return Poll::Ready(share);
        }
        let before = match self.id {
            None => {
                let id = state.next_id;
                state.next_id += 1;
                self.id = Some(id);
                state.queue.push_back((id, Some(waker)));
                None
            }
            Some(id) => {
                let place = state.queue.iter_mut().find(|(known, _)| *known == id);
                place.and_then(|(_, known)| known.replace(waker))
            }
        };
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut state = self.pool.lock();
        let place = state.queue.iter().position(|(known, _)| *known == id);
        let removed = place.and_then(|place| state.queue.remove(place));
        // The place may have been the first, whose share was too large for what is free.
        Pool::wake_first(state);
        drop(removed);
    }
}

/// The share of a session; returned to the pool when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    pool: Pool,
    id: u64,
    /// The slots that its ring may have.
    slots: usize,
    /// The threads that its encoder may have.
    pub threads: usize,
}

impl Share {
    /// Whether the pool limits threads.
    pub fn are_threads_limited(&self) -> bool {
        self.pool.0.limits.threads.is_some()
    }

    /// The slots that a ring may have, of slots that take `stride` bytes, between `least` and
    /// `wished`. Returns what is left over, or takes more if the session needs more than it asked
    /// for before its encoder was open. With an encoder that needs no threads, returns the threads.
    ///
    /// # Errors
    /// [`PoolError`] if it needs more than is free.
    pub fn fit(&self, needed: Needed, wished: usize) -> Result<usize, PoolError> {
        let slots = wished.min(self.slots).max(needed.slots);
        let ring_bytes = slots as u64 * needed.slot_bytes;
        let limits = self.pool.0.limits;
        let mut state = self.pool.lock();
        let Some(place) = state.holders.iter().position(|(id, _)| *id == self.id) else {
            return Ok(slots);
        };
        let before = state.holders[place].1.amount().memory;
        let after = ring_bytes.saturating_add(needed.beside_ring());
        let others = state.used.memory.saturating_sub(before);
        if limits.memory.is_some_and(|limit| others.saturating_add(after) > limit) {
            if limits.memory.is_some_and(|limit| after > limit) {
                return Err(PoolError::TooSmall { needed: Box::new(needed), limits });
            }
            let free = limits.free(&Amount { memory: others, ..state.used });
            let is_other = |(id, _): &&(u64, Holder)| *id != self.id;
            let holders = state.holders.iter().filter(is_other).map(|(_, it)| it.clone()).collect();
            let (needed, waiting) = (Box::new(needed), state.queue.len());
            return Err(PoolError::Full { needed, free, holders, waiting });
        }
        state.used.memory = others.saturating_add(after);
        let holder = &mut state.holders[place].1;
        (holder.ring_bytes, holder.encoder_bytes) = (ring_bytes, needed.encoder_bytes);
        holder.copied_bytes = needed.copied_bytes;
        if needed.threads == 0 {
            let returned = std::mem::take(&mut holder.threads);
            state.used.threads = state.used.threads.saturating_sub(returned);
        }
        Pool::wake_first(state);
        Ok(slots)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let Some(place) = state.holders.iter().position(|(id, _)| *id == self.id) else { return };
        let (_, holder) = state.holders.remove(place);
        let amount = holder.amount();
        state.used.memory = state.used.memory.saturating_sub(amount.memory);
        state.used.threads = state.used.threads.saturating_sub(amount.threads);
        state.used.sessions = state.used.sessions.saturating_sub(amount.sessions);
        Pool::wake_first(state);
        drop(holder);
    }
}

/// Allocates a ring whose memory keeps the share of its session until it is freed.
#[derive(Debug)]
pub(crate) struct SharedAllocator<'a> {
    pub inner: &'a dyn SlotAllocator,
    pub share: Arc<Share>,
}

impl SlotAllocator for SharedAllocator<'_> {
    fn allocate(&self, bytes: usize) -> Option<Box<dyn SlotMemory>> {
        let memory = self.inner.allocate(bytes)?;
        Some(Box::new(SharedMemory { memory, _share: Arc::clone(&self.share) }))
    }
}

struct SharedMemory {
    // Dropped before the share.
    memory: Box<dyn SlotMemory>,
    _share: Arc<Share>,
}

// SAFETY: the memory behind `start` is that of the inner allocator, which keeps the contract; this
// value owns it, and moving the value does not move it.
unsafe impl SlotMemory for SharedMemory {
    fn start(&self) -> NonNull<u8> {
        self.memory.start()
    }
}

#[cfg(test)]
#[path = "pool/tests.rs"]
mod tests;
