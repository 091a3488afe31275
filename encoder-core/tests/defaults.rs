//! Backends that set nothing but an id and the function that opens an encoder.
#![allow(clippy::unwrap_used)]

use std::{sync::Mutex, time::Duration};

use encoder_core::{
    Backend, Cache, Chain, ConfigError, Detected, Detection, EncodeError, EncodedChunk,
    EncoderType, FailureKind, Frame, FrameBuffer, FrameLayout, FrameMemory, OpenError, OpenRequest,
    PixelFormat, Plan, ProbeResult, Refusal, RefusalKind, Resolution, Settings, VideoEncoder,
    backend, backends, inventory,
};

/// Works.
const PLAIN: EncoderType = EncoderType::new("plain");
/// Works, and prefers page-locked frames.
const LOCKED: EncoderType = EncoderType::new("locked");
/// Takes frames in the memory of its device only.
const REMOTE: EncoderType = EncoderType::new("remote");
/// Makes no codec at all.
const MUTE: EncoderType = EncoderType::new("mute");
/// Keeps more frames than its backend declares.
const GREEDY: EncoderType = EncoderType::new("greedy");
/// Returns access units without parameter sets.
const BARE: EncoderType = EncoderType::new("bare");
/// Takes only sizes that are multiples of 16, and is probed with one.
const BLOCKS: EncoderType = EncoderType::new("blocks");
/// The same, probed with the usual size.
const UNEVEN: EncoderType = EncoderType::new("uneven");
/// Hangs when it is opened.
const HANGING: EncoderType = EncoderType::new("hanging");
/// Panics when it is opened.
const PANICKING: EncoderType = EncoderType::new("panicking");

inventory::submit! { Backend::new(PLAIN, |request| open(PLAIN, request)) }
inventory::submit! {
    Backend::new(LOCKED, |request| open(LOCKED, request)).memory(|_| FrameMemory::PageLocked)
}
inventory::submit! {
    Backend::new(REMOTE, |request| open(REMOTE, request)).memory(|_| FrameMemory::Device)
}
inventory::submit! { Backend::new(MUTE, |request| open(MUTE, request)).codecs(&[]) }
inventory::submit! { Backend::new(GREEDY, |request| open(GREEDY, request)).max_delay(|_| 2) }
inventory::submit! { Backend::new(BARE, |request| open(BARE, request)) }
inventory::submit! {
    Backend::new(BLOCKS, |request| open(BLOCKS, request)).probe_size(Resolution::new(640, 368))
}
inventory::submit! { Backend::new(UNEVEN, |request| open(UNEVEN, request)) }
// These two would delay the detection of the others, so they are probed separately.
static HANGS: Backend = Backend::new(HANGING, |request| open(HANGING, request));
static PANICS: Backend = Backend::new(PANICKING, |request| open(PANICKING, request));

struct Empty {
    id: EncoderType,
    size: Resolution,
    taken: u64,
}

fn open(id: EncoderType, request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    match id {
        HANGING => loop {
            std::thread::park();
        },
        PANICKING => panic!("on purpose"),
        BLOCKS | UNEVEN if !is_whole(request.coded_size()?) => {
            let reason = "no multiple of 16";
            Err(Refusal::new(id, RefusalKind::Unsupported, reason, "").into())
        }
        _ => Ok(Box::new(Empty { id, size: request.coded_size()?, taken: 0 })),
    }
}

fn is_whole(size: Resolution) -> bool {
    size.width.is_multiple_of(16) && size.height.is_multiple_of(16)
}

impl VideoEncoder for Empty {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        frame.check(PixelFormat::Yuv420p, self.size)?;
        self.taken += 1;
        if self.id == GREEDY && self.taken <= 3 {
            return Ok(None);
        }
        // The headers of SPS, PPS and an IDR picture.
        let all = [0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 1, 0, 0, 0, 1, 0x65, 1];
        let data = if self.id == BARE { &all[12..] } else { &all[..] };
        let (data, pts) = (data.to_vec(), frame.index);
        Ok(Some(EncodedChunk { data, pts, dts: pts, keyframe: true }))
    }
    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        Ok(Vec::new())
    }
    fn encoder_type(&self) -> EncoderType {
        self.id
    }
    fn description(&self) -> String {
        format!("lib{}", self.id)
    }
    fn pixel_format(&self) -> PixelFormat {
        PixelFormat::Yuv420p
    }
}

fn detect(settings: &Settings, cache: Option<Cache>) -> Vec<Detected> {
    Detection::new(settings).cache(cache).run().unwrap()
}

fn of(found: &[Detected], id: EncoderType) -> &Detected {
    found.iter().find(|detected| detected.encoder == id).unwrap()
}

fn refusal(result: &ProbeResult) -> &Refusal {
    match result {
        ProbeResult::Refused(refusal) => refusal,
        usable => panic!("{usable:?}"),
    }
}

#[test]
fn memory_is_estimated_by_size_delay_and_hardware() {
    const MIB: u64 = 1 << 20;
    let open: encoder_core::Open = |_| unreachable!("nothing is opened here");
    let plain = Backend::new(EncoderType::new("a"), open);
    let frame = 64 * 48 * 3 / 2;
    let table = [
        (plain, 16 * MIB + 24 * frame),
        (
            Backend::new(EncoderType::new("b"), open).max_delay(|_| 3),
            16 * MIB + 24 * frame + 15 * frame / 2,
        ),
        (Backend::new(EncoderType::new("c"), open).hardware(true), 128 * MIB + 8 * frame),
        (Backend::new(EncoderType::new("d"), open).memory_estimate(|_| 7), 7),
    ];
    let mut settings = Settings::default();
    for (backend, expected) in table {
        // An odd size counts as the next even one.
        settings.encoder.resolution = Some(Resolution::new(63, 47));
        let request = OpenRequest::new(&settings, backend.id, 1);
        assert_eq!(backend.estimate_memory(&request), expected, "{}", backend.id);
        assert_eq!(request.frame_bytes(), frame);
    }
}

#[test]
fn a_backend_without_settings_is_a_software_encoder_without_options() {
    let plain = backend(PLAIN).unwrap();
    let settings = Settings::default();
    let request = OpenRequest::new(&settings, PLAIN, 1);
    assert_eq!(((plain.rank)(&request), (plain.max_delay)(&request)), (100, 0));
    assert_eq!((plain.memory)(&request), FrameMemory::Host);
    assert!(!plain.hardware && plain.presets.all.is_empty());
    assert!(plain.registered_at().file().ends_with("tests/defaults.rs"));
    assert!(format!("{plain:?}").contains("plain"));
    // Backends of equal rank are ordered by name.
    let ids: Vec<_> = backends().iter().map(|backend| backend.id).collect();
    assert_eq!(ids, [BARE, BLOCKS, GREEDY, LOCKED, MUTE, PLAIN, REMOTE, UNEVEN]);
    assert!(matches!(backend(HANGING), Err(OpenError::Unknown { .. })));
}

#[test]
fn the_probe_is_a_real_encode() {
    let found = detect(&Settings::default(), None);
    for id in [PLAIN, LOCKED, BLOCKS] {
        let ProbeResult::Usable(caps) = &of(&found, id).result else { panic!("{found:?}") };
        assert_eq!(caps.library, format!("lib{id}"));
        assert_eq!(caps.pixel_formats, [PixelFormat::Yuv420p]);
        assert_eq!(of(&found, id).device.as_ref().unwrap().name, "");
    }
    let bare = refusal(&of(&found, BARE).result);
    assert_eq!(bare.kind, RefusalKind::WrongOutput, "{bare}");
    let uneven = refusal(&of(&found, UNEVEN).result);
    assert_eq!(
        (uneven.kind, uneven.reason.as_str()),
        (RefusalKind::Unsupported, "no multiple of 16")
    );
    let greedy = refusal(&of(&found, GREEDY).result);
    assert_eq!(
        greedy.reason,
        "encoder greedy failed at frame 2: it keeps 3 frames, its backend declares 2"
    );
}

#[test]
fn a_probe_that_hangs_or_panics_is_a_refusal() {
    let settings = Settings::default();
    let result = |backend: &Backend, deadline| {
        backend.run_probe(&OpenRequest::new(&settings, backend.id, 1), deadline)
    };
    let hangs = result(&HANGS, Duration::from_millis(20));
    assert_eq!((refusal(&hangs).kind, refusal(&hangs).transient), (RefusalKind::Timeout, true));
    let panics = result(&PANICS, Duration::from_secs(3600));
    assert_eq!(refusal(&panics).reason, "its probe panicked");
}

#[test]
fn a_cached_probe_does_not_outlive_a_change_of_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let cache = || Some(Cache::at(folder.path()));
    let cached = |settings: &Settings| of(&detect(settings, cache()), PLAIN).cached_s.is_some();
    let mut settings = Settings::default();
    assert!(!cached(&settings));
    assert!(cached(&settings));
    settings.encoder.gop_size = 7;
    assert!(!cached(&settings));
    settings.gpu.probe_timeout_s = 9;
    assert!(!cached(&settings));
    assert!(cached(&settings));
}

#[test]
fn options_of_a_backend_that_has_none_are_refused() {
    let error = Settings::from_toml("[backend.plain]\nspeed = 3").unwrap_err();
    assert_eq!(error.to_string(), "unknown key `speed` in [backend.plain]; it has no keys");
    assert!(Settings::from_toml("[backend.plain]").is_ok());
}

#[test]
fn an_unsupported_request_is_refused_before_the_probe_and_at_opening() {
    let mut settings = Settings::default();
    let found = detect(&settings, None);
    settings.encoder.resolution = Some(Resolution::new(64, 64));
    for (id, reason) in [
        (REMOTE, "it takes frames in device memory only, and they are in host memory"),
        (MUTE, "it does not make h264"),
    ] {
        let refused = refusal(&of(&found, id).result);
        assert_eq!((refused.kind, refused.reason.as_str()), (RefusalKind::Unsupported, reason));
        // A plan that was made without detection.
        let plan = Plan::new(vec![id, LOCKED], vec![]);
        let mut chain = Chain::new(&plan, settings.clone(), 1).unwrap();
        assert_eq!(chain.open().unwrap().encoder_type(), LOCKED);
        assert_eq!(chain.refusals(), std::slice::from_ref(refused));
    }
}

#[test]
fn frames_of_another_format_or_size_are_a_mismatch() {
    let mut settings = Settings::default();
    let opened = |settings: &Settings| {
        backend(PLAIN).unwrap().open_encoder(&OpenRequest::new(settings, PLAIN, 1))
    };
    let error = opened(&settings).err().unwrap();
    assert!(matches!(error, OpenError::Config(ConfigError::Value { .. })), "{error}");
    settings.encoder.resolution = Some(Resolution::new(63, 64));
    let mut encoder = opened(&settings).unwrap();
    for (format, size, good) in [
        (PixelFormat::Yuv420p, (64, 64), true),
        (PixelFormat::Nv12, (64, 64), false),
        (PixelFormat::Yuv420p, (64, 66), false),
        (PixelFormat::Yuv420p, (62, 64), false),
    ] {
        let layout = FrameLayout::new(format, Resolution::new(size.0, size.1));
        let result = encoder.encode_frame(&FrameBuffer::new(layout).frame(3));
        match result {
            Ok(_) => assert!(good, "{layout:?}"),
            Err(EncodeError::Mismatch { index: 3, width: 64, height: 64, .. }) => assert!(!good),
            Err(error) => panic!("{error}"),
        }
    }
    let failed = EncodeError::failed(PLAIN, 7, FailureKind::Died, "gone").to_string();
    assert_eq!(failed, "encoder plain failed at frame 7: gone");
}

#[test]
fn an_encoder_is_opened_with_the_delay_that_its_backend_declares() {
    static SEEN: Mutex<Vec<Option<usize>>> = Mutex::new(Vec::new());
    let backend = Backend::new(PLAIN, |request| {
        SEEN.lock().unwrap().push(request.max_delay);
        Err(Refusal::new(PLAIN, RefusalKind::Unsupported, "never", "").into())
    });
    let backend = backend.max_delay(|request| request.config.b_frames.into());
    let mut settings = Settings::default();
    settings.encoder.b_frames = 3;
    let request = OpenRequest::new(&settings, PLAIN, 1);
    assert!(backend.open_encoder(&request).is_err());
    assert!(!backend.run_probe(&request, Duration::from_secs(60)).is_usable());
    assert!((backend.open)(&request).is_err());
    assert_eq!(*SEEN.lock().unwrap(), [Some(3), Some(3), None]);
}
