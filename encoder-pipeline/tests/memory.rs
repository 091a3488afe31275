//! The memory of a session's ring: the kind that the encoder requests, if the program provides it.
#![allow(clippy::unwrap_used)]

use std::{
    ptr::NonNull,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use encoder_core::{
    Backend, EncodeError, EncodedChunk, EncoderType, FailureKind, Frame, FrameMemory, OpenError,
    OpenRequest, PixelFormat, Plan, RefusalKind, Resolution, Settings, VideoEncoder, inventory,
};
use encoder_pipeline::{
    mux::{AccessUnit, CallbackSink},
    session::{Session, SessionConfig, SessionError},
    source::{Payload, RawImage},
    timeline::FrameTimes,
};
use encoder_ringbuf::{Heap, SlotAllocator, SlotMemory};

const SIZE: Resolution = Resolution::new(16, 16);
const COUNT: i64 = 20;

const PLAIN: EncoderType = EncoderType::new("plain");
/// Requests page-locked memory, if its option `locked` is set.
const LOCKED: EncoderType = EncoderType::new("locked");
const REMOTE: EncoderType = EncoderType::new("remote");
/// Fails once.
const FAILING: EncoderType = EncoderType::new("failing");

fn locked(request: &OpenRequest<'_>) -> FrameMemory {
    match request.options.get("locked").and_then(|value| value.as_bool()) {
        Some(true) => FrameMemory::PageLocked,
        _ => FrameMemory::Host,
    }
}

inventory::submit! { Backend::new(PLAIN, |request| Ok(Reading::open(PLAIN, request))) }
inventory::submit! {
    Backend::new(LOCKED, |request| Ok(Reading::open(LOCKED, request)))
        .check_options(|_| Ok(()))
        .memory(locked)
}
inventory::submit! {
    Backend::new(REMOTE, |request| Ok(Reading::open(REMOTE, request)))
        .memory(|_| FrameMemory::Device)
}
inventory::submit! { Backend::new(FAILING, |request| Ok(Reading::open(FAILING, request))) }

static HAS_FAILED: AtomicBool = AtomicBool::new(false);

/// Its access units are the shades of the pictures and the addresses that they were read from.
struct Reading {
    id: EncoderType,
    size: Resolution,
    count: u64,
}

impl Reading {
    fn open(id: EncoderType, request: &OpenRequest<'_>) -> Box<dyn VideoEncoder> {
        let size = request.config.resolution.unwrap();
        Box::new(Self { id, size, count: 0 })
    }
}

impl VideoEncoder for Reading {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        frame.check(PixelFormat::Yuv420p, self.size)?;
        assert!(frame.is_stable);
        let keyframe = self.count == 0;
        self.count += 1;
        if self.id == FAILING && self.count == 4 && !HAS_FAILED.swap(true, SeqCst) {
            let message = "once".into();
            let (encoder, index, kind) = (FAILING, frame.index, FailureKind::Failed);
            return Err(EncodeError::Failed { encoder, index, kind, message });
        }
        // Every picture has a shade of its own.
        let luma = frame.planes()[0];
        let shade = luma.data[0];
        let is_shade = |&sample: &u8| sample == shade;
        assert!(luma.rows().flatten().all(is_shade), "frame {}", frame.index);
        let mut data = vec![shade];
        data.extend(luma.data.as_ptr().addr().to_le_bytes());
        let pts = frame.index;
        Ok(Some(EncodedChunk { data, pts, dts: pts, keyframe }))
    }
    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        Ok(Vec::new())
    }
    fn encoder_type(&self) -> EncoderType {
        self.id
    }
    fn description(&self) -> String {
        "a test".into()
    }
    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Yuv420p
    }
    fn max_delay(&self) -> usize {
        0
    }
}

/// Memory of the heap, counted.
#[derive(Debug, Default)]
struct Provider {
    made: AtomicUsize,
    in_use: Arc<AtomicUsize>,
}

struct Counted(Box<dyn SlotMemory>, Arc<AtomicUsize>);

impl SlotAllocator for Provider {
    fn allocate(&self, bytes: usize) -> Option<Box<dyn SlotMemory>> {
        let memory = Heap.allocate(bytes)?;
        self.made.fetch_add(1, SeqCst);
        self.in_use.fetch_add(1, SeqCst);
        Some(Box::new(Counted(memory, Arc::clone(&self.in_use))))
    }
}

// SAFETY: the block of the heap keeps the contract, and belongs to this value.
unsafe impl SlotMemory for Counted {
    fn start(&self) -> NonNull<u8> {
        self.0.start()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, SeqCst);
    }
}

fn config(id: EncoderType, options: &str) -> SessionConfig {
    let mut settings = Settings::default();
    settings.backend.insert(id.to_string(), options.parse().unwrap());
    SessionConfig::new(settings, Plan::new(vec![id], vec![]))
}

/// Encodes a video and returns the output of the sink.
fn encode(config: &SessionConfig) -> Result<Vec<u8>, SessionError> {
    let shades = Arc::new(Mutex::new(Vec::new()));
    let out = Arc::clone(&shades);
    let sink = CallbackSink(move |AccessUnit { chunk, .. }: AccessUnit| {
        out.lock().unwrap().push(chunk.data[0]);
    });
    let mut session = Session::open(SIZE, config, Box::new(sink))?;
    for n in 0..COUNT {
        let image = RawImage {
            encoding: "mono8".into(),
            width: SIZE.width,
            height: SIZE.height,
            step: SIZE.width,
            is_bigendian: false,
            data: vec![n as u8 * 10; 256].into(),
        };
        session.push(&Payload::Raw(image), FrameTimes::at(n * 1_000_000))?;
    }
    session.finish()?;
    let shades = std::mem::take(&mut *shades.lock().unwrap());
    Ok(shades)
}

#[test]
fn the_ring_has_the_memory_that_its_encoder_wants() {
    // encoder | options | provided memory | rings in it
    let table = [
        (LOCKED, "locked = true", FrameMemory::PageLocked, 1),
        (LOCKED, "locked = false", FrameMemory::PageLocked, 0),
        (PLAIN, "", FrameMemory::PageLocked, 0),
        (PLAIN, "", FrameMemory::Host, 1),
        // The requested memory is not provided: it gets host memory.
        (LOCKED, "locked = true", FrameMemory::Host, 0),
    ];
    for (id, options, memory, rings) in table {
        let provider = Arc::new(Provider::default());
        let config = config(id, options).with_allocator(memory, provider.clone());
        let shades = encode(&config).unwrap();
        assert_eq!(shades.len(), COUNT as usize, "{id} {options} {memory}");
        assert!(shades.is_sorted() && shades[0] < shades[COUNT as usize - 1]);
        assert_eq!(provider.made.load(SeqCst), rings, "{id} {options} {memory}");
        assert_eq!(provider.in_use.load(SeqCst), 0, "the ring is freed with the session");
    }
}

#[test]
fn the_last_allocator_for_a_memory_counts() {
    let (old, new) = (Arc::new(Provider::default()), Arc::new(Provider::default()));
    let config = config(PLAIN, "")
        .with_allocator(FrameMemory::Host, old.clone())
        .with_allocator(FrameMemory::Host, new.clone());
    encode(&config).unwrap();
    assert_eq!((old.made.load(SeqCst), new.made.load(SeqCst)), (0, 1));
}

#[test]
fn an_encoder_for_frames_out_of_reach_of_the_cpu_is_refused() {
    let provider = Arc::new(Provider::default());
    let config = config(REMOTE, "").with_allocator(FrameMemory::Device, provider.clone());
    match encode(&config) {
        Err(SessionError::Open(OpenError::NoneLeft { refusals })) => {
            assert_eq!((refusals[0].encoder, refusals[0].kind), (REMOTE, RefusalKind::Unsupported));
            assert!(refusals[0].reason.contains("device memory"), "{}", refusals[0]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(provider.made.load(SeqCst), 0);
}

/// Encodes pictures of 128x16 pixels with the shades 0, 8, 16 …; `None` is a broken one. Returns for
/// each access unit its shade and the picture that it was read from, if it was read from one.
fn addresses(
    config: &SessionConfig,
    encoding: &str,
    pictures: &[Option<Bytes>],
) -> Vec<(u8, Option<usize>)> {
    let units = Arc::new(Mutex::new(Vec::new()));
    let out = Arc::clone(&units);
    let sink = CallbackSink(move |AccessUnit { chunk, .. }: AccessUnit| {
        let address = usize::from_le_bytes(chunk.data[1..].try_into().unwrap());
        out.lock().unwrap().push((chunk.data[0], address));
    });
    let mut session = Session::open(Resolution::new(128, 16), config, Box::new(sink)).unwrap();
    for (n, picture) in pictures.iter().enumerate() {
        let raw = |data: &Bytes| RawImage {
            encoding: encoding.into(),
            width: 128,
            height: 16,
            step: 0,
            is_bigendian: false,
            data: data.clone(),
        };
        let broken = || Payload::Compressed { format: "jpeg".into(), data: Bytes::new() };
        let payload = picture.as_ref().map_or_else(broken, |data| Payload::Raw(raw(data)));
        session.push(&payload, FrameTimes::at(n as i64 * 1_000_000)).unwrap();
    }
    session.finish().unwrap();
    let place = |address: usize| {
        let is_there = |picture: &Option<Bytes>| {
            picture.as_ref().is_some_and(|picture| picture.as_ptr().addr() == address)
        };
        pictures.iter().position(is_there)
    };
    let units = units.lock().unwrap();
    units.iter().map(|&(shade, address)| (shade, place(address))).collect()
}

#[test]
fn a_picture_with_the_layout_of_the_ring_is_not_copied() {
    let picture = |n: usize| Some(Bytes::from(vec![n as u8 * 8; 128 * 16 * 2]));
    let mut pictures: Vec<_> = (0..30).map(picture).collect();
    pictures[7] = None;
    let shade = |n: usize| if n == 7 { 48 } else { n as u8 * 8 };
    let shared: Vec<_> = (0..30).map(|n| (shade(n), (n != 7).then_some(n))).collect();
    let copied: Vec<_> = (0..30).map(|n| (shade(n), None)).collect();
    for id in [PLAIN, FAILING] {
        assert_eq!(addresses(&config(id, ""), "i420", &pictures), shared, "{id}");
        assert_eq!(addresses(&config(id, ""), "nv12", &pictures), copied, "{id}");
        // The program decides where the pictures are.
        let own = config(id, "").with_allocator(FrameMemory::Host, Arc::new(Provider::default()));
        assert_eq!(addresses(&own, "i420", &pictures), copied, "{id}");
    }
    assert!(pictures.iter().flatten().all(Bytes::is_unique), "the session is gone");
}
