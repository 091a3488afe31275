//! Opens a session: takes its share of the pool, opens its encoder, allocates its ring and starts
//! its thread.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use encoder_core::{
    Chain, EncoderType, FrameLayout, OpenError, PixelFormat, Resolution, Task, Waiter, backend,
    block_on,
};
use encoder_media::{
    Sink,
    timeline::{self, StreamingTimeline, TimestampAnalysis},
};
use encoder_ringbuf::{Consumer, Heap, Producer, RingOptions, SlotAllocator, ring_in};
use tracing::{Span, error_span, field::Empty};

use crate::{
    Closing, Needed, OnBadFrame, Session, SessionConfig, SessionError, StatsHandle,
    engine::{self, Engine},
    metrics::{self, Meter},
    output_check::OutputCheck,
    pool::{Demand, Share, SharedAllocator},
    shared::{EndOfWorker, Shared},
    slot::Meta,
    stats::Counters,
    worker::{Parts, Worker},
};

/// A session that is not open yet.
pub(super) struct Opening {
    size: Resolution,
    config: SessionConfig,
    chain: Chain,
    check: OutputCheck,
    waiter: Waiter,
    span: Span,
}

/// Whether the encoder needs a device, and no threads of this machine.
fn is_hardware(id: EncoderType) -> bool {
    backend(id).is_ok_and(|backend| backend.hardware)
}

/// The share of a pool, if the session has a pool.
type MaybeShare = Option<Arc<Share>>;

impl Opening {
    /// Checks the configuration. Does not block.
    pub fn new(size: Resolution, config: &SessionConfig) -> Result<Self, SessionError> {
        let span = error_span!("session", encoder = Empty, size = %size, part = config.part);
        let entered = span.enter();
        let mut config = config.clone();
        config.settings.encoder.resolution = Some(size);
        let settings = &config.settings;
        let waiter = config.waiter.child();
        // Checks the settings, the size included.
        let chain = Chain::new(&config.plan, settings.clone(), config.threads)?;
        let check = OutputCheck::new(settings.gpu.check_output, settings.encoder.codec, size);
        let chain = chain.with_waiter(waiter.clone());
        drop(entered);
        Ok(Self { size, config, chain, check, waiter, span })
    }

    /// Stopped when the session is no longer needed.
    pub fn waiter(&self) -> &Waiter {
        &self.waiter
    }

    /// Frames that B-frames and the check of pictures hold back.
    fn held_back(&self) -> usize {
        let b_frames = self.config.settings.encoder.b_frames;
        engine::max_reorder(b_frames.into()) as usize + self.check.delay()
    }

    /// The fewest slots with which the ring cannot deadlock, whichever encoder of the chain is
    /// active. An encoder may hold `max_delay` frames, and B-frames delay the emission of other
    /// access units. Beyond that, one frame is being read, one is kept for repetition, and one is
    /// being written.
    fn least_slots(&self) -> usize {
        self.chain.max_delay() + self.held_back() + 3
    }

    /// The slots that the configuration asks for.
    fn wished_slots(&self) -> usize {
        let gpu = &self.config.settings.gpu;
        if gpu.enable_ring_buffer { gpu.ring_buffer_size } else { 0 }
    }

    /// The most frames that the session copies out of its ring at the same time.
    fn copied_frames(&self) -> usize {
        // A bad frame holds a copy of the picture that it repeats until it is encoded. At worst
        // every second frame is bad, and repeats a picture of its own.
        let repeated = match self.config.on_bad_frame {
            OnBadFrame::Repeat => 1 + (self.chain.max_delay() + self.held_back()) / 2,
            OnBadFrame::Skip | OnBadFrame::Fail => 0,
        };
        // The ring has the format of the encoder that opens first.
        repeated + usize::from(self.config.plan.order.len() > 1)
    }

    /// The least that the session needs, for frames of `bytes`.
    fn needed(&self, bytes: usize, threads: usize) -> Needed {
        let options = RingOptions { slots: self.least_slots(), slot_bytes: bytes };
        Needed {
            size: self.size,
            slots: options.slots,
            slot_bytes: options.slot_stride().unwrap_or(usize::MAX) as u64,
            copied_bytes: (self.copied_frames() as u64).saturating_mul(bytes as u64),
            encoder_bytes: self.chain.memory_estimate(),
            threads,
        }
    }

    /// What the session needs, before it is known which encoder opens.
    fn demand(&self) -> Demand {
        let bytes = |format| FrameLayout::new(format, self.size).bytes();
        let bytes = bytes(PixelFormat::Yuv420p).max(bytes(PixelFormat::Nv12));
        let order = &self.config.plan.order;
        let is_hardware = !order.is_empty() && order.iter().all(|&id| is_hardware(id));
        let (least, wished) = if is_hardware { (0, 0) } else { (1, self.config.threads.max(1)) };
        let needed = self.needed(bytes, least);
        Demand {
            camera: self.config.camera_label.clone(),
            slots: self.wished_slots().max(needed.slots),
            threads: wished,
            needed,
        }
    }

    /// Takes a share of the pool. Waits for it without blocking, until the waiter is stopped.
    pub fn share(&self) -> impl Future<Output = Result<MaybeShare, SessionError>> + Send + use<> {
        let (pool, waiter) = (self.config.pool.clone(), self.waiter.clone());
        let demand = self.demand();
        async move {
            let Some(pool) = pool else { return Ok(None) };
            let mut share = pin!(pool.share(&demand));
            let mut stopped = pin!(waiter.stopped());
            poll_fn(|cx| match share.as_mut().poll(cx) {
                Poll::Ready(share) => Poll::Ready(share.map(Some).map_err(SessionError::from)),
                Poll::Pending => stopped.as_mut().poll(cx).map(|()| Err(OpenError::Stopped.into())),
            })
            .await
        }
    }

    /// Takes a share of the pool. Blocks for at most `pool_wait`.
    pub fn share_within_wait(&self) -> Result<MaybeShare, SessionError> {
        let Some(pool) = &self.config.pool else { return Ok(None) };
        if !self.config.pool_wait.is_zero()
            && let Some(share) = block_on(self.share(), Some(self.config.pool_wait))
        {
            return share;
        }
        Ok(Some(pool.try_share(&self.demand())?))
    }

    /// Opens the encoder and starts the session's thread. Blocks while the encoder starts.
    pub fn open(mut self, share: MaybeShare, sink: Box<dyn Sink>) -> Result<Session, SessionError> {
        let span = self.span.clone();
        let _entered = span.enter();
        let camera = self.config.camera_label.as_deref();
        if let Some(share) = &share {
            self.chain.set_threads(share.threads.max(1));
        }
        let opened = self.chain.open();
        let encoder = opened.inspect_err(|error| metrics::not_opened(error, camera))?;
        let meter = Meter::new(encoder.encoder_type(), encoder.load(), camera);
        let layout = FrameLayout::new(encoder.pixel_format(), self.size);
        self.chain.prefer_format(layout.format);
        let threads = if is_hardware(encoder.encoder_type()) { 0 } else { 1 };
        let allocator = self.config.allocator(encoder.encoder_type());
        let may_share = allocator.is_none();
        let (producer, consumer, options) =
            self.ring(&layout, threads, allocator.unwrap_or(&Heap), share.as_ref())?;
        if share.as_ref().is_some_and(|share| threads == 0 && share.are_threads_limited()) {
            // Those of the share are returned.
            self.chain.set_threads(1);
        }
        let id = encoder.encoder_type();
        let counters = Arc::new(Counters::new(id));
        let ring_bytes = options.bytes().unwrap_or(usize::MAX);
        let stats = StatsHandle::new(Arc::clone(&counters), producer.monitor(), ring_bytes);
        let Self { config, chain, check, waiter, .. } = self;
        let shared = Arc::new(Shared::new(sink, waiter.clone(), chain.ending_flag(), counters));
        let (timing, spread) = config.spread();
        let encoding = &config.settings.encoder;
        let frames = (encoding.b_frames.into(), encoding.gop_size.into());
        let worker = Worker::new(Parts {
            consumer,
            engine: Engine::new(chain, encoder, layout, frames, check, meter),
            shared: Arc::clone(&shared),
            layout,
            on_bad_frame: config.on_bad_frame,
            analysis: TimestampAnalysis::new(
                timing,
                encoding.frame_rate,
                timeline::reorder(encoding.b_frames),
            ),
            timeline: StreamingTimeline::new(timing, encoding.frame_rate),
        });
        let of_thread = (span.clone(), EndOfWorker(Arc::clone(&shared)), share);
        let work = move || {
            // The share is returned before the session counts as ended.
            let (span, _end, _share) = of_thread;
            let _entered = span.enter();
            worker.run()
        };
        let thread =
            Task::spawn(&format!("encode-{id}"), waiter, work).map_err(SessionError::thread)?;
        Ok(Session {
            running: Closing::new(thread, shared, stats),
            producer: Some(producer),
            converter: None,
            layout,
            options: config.picture,
            may_share,
            encoder: id,
            next_number: 0,
            is_key_due: false,
            on_full: config.on_full,
            spread,
            slots: options.slots,
            span: span.clone(),
        })
    }

    /// Allocates the ring, for an encoder that needs `threads`.
    fn ring(
        &self,
        layout: &FrameLayout,
        threads: usize,
        allocator: &dyn SlotAllocator,
        share: Option<&Arc<Share>>,
    ) -> Result<(Producer<Meta>, Consumer<Meta>, RingOptions), SessionError> {
        let least = self.least_slots();
        let wished = self.wished_slots().max(least);
        let (slots, in_share);
        let allocator = match share {
            Some(share) => {
                slots = share.fit(self.needed(layout.bytes(), threads), wished)?;
                in_share = SharedAllocator { inner: allocator, share: Arc::clone(share) };
                &in_share
            }
            None => {
                slots = wished;
                allocator
            }
        };
        let options = RingOptions { slots, slot_bytes: layout.bytes() };
        let (producer, consumer) = ring_in(options, allocator)?;
        Ok((producer, consumer, options))
    }
}
