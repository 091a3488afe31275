//! Detection and the choice of encoders, with backends that this test registers.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use encoder_core::{
    Backend, Cache, Caps, ConfigError, Detected, Detection, Device, EncoderType, GpuEncoderConfig,
    OpenError, OpenRequest, Policy, ProbeResult, RateControl, Refusal, RefusalKind, Resolution,
    Settings, detect_available_encoders, plan, ranked,
};

/// Works.
const GOOD: EncoderType = EncoderType::new("good");
/// Has no device.
const ABSENT: EncoderType = EncoderType::new("absent");
/// Has a device that is refused by the probe.
const BROKEN: EncoderType = EncoderType::new("broken");
/// Is busy at its first probe.
const BUSY: EncoderType = EncoderType::new("busy");
/// Is busy at every probe.
const FULL: EncoderType = EncoderType::new("full");
/// Panics in its probe.
const PANICKING: EncoderType = EncoderType::new("panicking");
/// Its options name a device that does not exist.
const CHOOSY: EncoderType = EncoderType::new("choosy");

macro_rules! register {
    ($($id:ident $rank:literal $hardware:literal),* $(,)?) => {$(
        encoder_core::inventory::submit! {
            Backend::new($id, |_| unreachable!("nothing is opened here"))
                .rank(|request| rank($rank, request))
                .hardware($hardware)
                .check_options(|_| Ok(()))
                .inspect(|request| inspect($id, request))
                .probe(|request, deadline| probe($id, request, deadline))
                .max_delay(|request| $rank + usize::from(request.config.b_frames))
        }
    )*};
}
register!(
    ABSENT 1 true,
    BROKEN 2 true,
    BUSY 3 true,
    FULL 4 true,
    PANICKING 5 true,
    CHOOSY 6 true,
    GOOD 7 false,
);

/// A backend with the option `first` has the lowest rank.
fn rank(usual: u16, request: &OpenRequest<'_>) -> u16 {
    if request.options.contains_key("first") { 0 } else { usual }
}

fn refusal(id: EncoderType, kind: RefusalKind) -> Refusal {
    Refusal::new(id, kind, format!("{id} says no"), "none")
}

fn busy(id: EncoderType) -> Refusal {
    refusal(id, RefusalKind::Busy).transient()
}

fn inspect(id: EncoderType, request: &OpenRequest<'_>) -> Result<Device, OpenError> {
    match id {
        ABSENT => Err(refusal(id, RefusalKind::NoDevice).into()),
        CHOOSY if request.options.contains_key("gpu") => {
            Err(ConfigError::value("backend.choosy.gpu", 7, "0").into())
        }
        _ => Ok(Device::new(format!("device of {id}"))
            .with_identity(vec![id.to_string(), request.config.preset.to_string()])),
    }
}

/// The probes that were made, by backend. The tests share it, so they run one at a time.
static PROBED: Mutex<Vec<EncoderType>> = Mutex::new(Vec::new());
static RUNNING: Mutex<()> = Mutex::new(());
static BUSY_ASKED: AtomicU32 = AtomicU32::new(0);

fn probe(id: EncoderType, request: &OpenRequest<'_>, deadline: Duration) -> ProbeResult {
    PROBED.lock().unwrap().push(id);
    assert!(deadline <= Duration::from_secs(request.gpu.probe_timeout_s.into()));
    // A probe has its own size and quality.
    assert_eq!(request.config.resolution, None);
    assert_eq!(request.config.rate_control, RateControl::Crf(23));
    match id {
        BROKEN => ProbeResult::Refused(refusal(id, RefusalKind::WrongOutput)),
        FULL => ProbeResult::Refused(busy(id)),
        BUSY if BUSY_ASKED.fetch_add(1, SeqCst) == 0 => ProbeResult::Refused(busy(id)),
        PANICKING => panic!("on purpose"),
        _ => ProbeResult::Usable(Caps::new(format!("lib{id}"))),
    }
}

fn by_name(found: &[Detected], id: EncoderType) -> &Detected {
    found.iter().find(|d| d.encoder == id).unwrap()
}

fn refused(found: &[Detected], id: EncoderType) -> &Refusal {
    match &by_name(found, id).result {
        ProbeResult::Refused(refusal) => refusal,
        usable => panic!("{usable:?}"),
    }
}

fn require(name: &str) -> Policy {
    Policy::new(&GpuEncoderConfig::default(), Some(name))
}

/// Runs `detection`; also returns which backends were probed, in the order of names.
fn run(detection: &Detection<'_>) -> (Vec<Detected>, Vec<EncoderType>) {
    PROBED.lock().unwrap().clear();
    let found = detection.run().unwrap();
    let mut probes = std::mem::take(&mut *PROBED.lock().unwrap());
    probes.sort();
    (found, probes)
}

#[test]
fn three_stages_a_cache_and_a_second_try() {
    let _turn = RUNNING.lock();
    BUSY_ASKED.store(0, SeqCst);
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        encoder: encoder_core::EncoderConfig {
            rate_control: RateControl::Crf(51),
            resolution: Some(Resolution::new(64, 64)),
            ..Default::default()
        },
        ..Settings::default()
    };
    let detection = Detection::new(&settings).cache(Some(Cache::at(folder.path())));
    let (found, probes) = run(&detection);
    let order: Vec<_> = found.iter().map(|d| d.encoder).collect();
    assert_eq!(order, [ABSENT, BROKEN, BUSY, FULL, PANICKING, CHOOSY, GOOD]);
    // A backend without a device is not probed; a busy backend is probed twice.
    assert_eq!(probes, [BROKEN, BUSY, BUSY, CHOOSY, FULL, FULL, GOOD, PANICKING]);
    assert_eq!(refused(&found, ABSENT).kind, RefusalKind::NoDevice);
    assert_eq!(refused(&found, BROKEN).kind, RefusalKind::WrongOutput);
    assert!(by_name(&found, BUSY).result.is_usable());
    assert!(refused(&found, FULL).transient);
    assert!(refused(&found, PANICKING).reason.contains("panicked"));
    assert_eq!(by_name(&found, GOOD).device.as_ref().unwrap().name, "device of good");
    assert!(by_name(&found, ABSENT).device.is_none());

    // In JSON each key occurs once.
    let json = serde_json::to_string(by_name(&found, BROKEN)).unwrap();
    assert_eq!(json.matches("\"encoder\"").count(), 1, "{json}");
    assert!(json.contains("\"status\":\"refused\"") && json.contains("\"kind\":\"wrong-output\""));

    // Lasting results are cached, refusals too; transient refusals and the panic are not.
    let (again, probes) = run(&detection);
    assert_eq!(probes, [FULL, FULL, PANICKING]);
    assert_eq!(refused(&again, BROKEN), refused(&found, BROKEN));
    assert_eq!(by_name(&again, GOOD).result, by_name(&found, GOOD).result);
    assert!(by_name(&again, GOOD).cached_s.is_some() && by_name(&found, GOOD).cached_s.is_none());

    // Another option needs another probe; `reprobe` probes every backend again.
    let mut other = settings.clone();
    other.encoder.preset = encoder_core::Preset::Slow;
    let slow = Detection::new(&other).cache(Some(Cache::at(folder.path())));
    assert_eq!(run(&slow).1, [BROKEN, BUSY, CHOOSY, FULL, FULL, GOOD, PANICKING]);
    let (fresh, probes) = run(&detection.clone().reprobe(true));
    assert_eq!(probes, [BROKEN, BUSY, CHOOSY, FULL, FULL, GOOD, PANICKING]);
    assert!(by_name(&fresh, GOOD).cached_s.is_none());

    // Only the required encoder is examined.
    let policy = require("good");
    let (found, probes) = run(&Detection::new(&settings).for_policy(&policy));
    assert_eq!((found.len(), probes), (1, vec![GOOD]));
}

#[test]
fn a_configured_device_that_does_not_exist_is_an_error() {
    let _turn = RUNNING.lock();
    let mut settings = Settings::default();
    settings.backend.insert("choosy".into(), "gpu = 7".parse().unwrap());
    let error = Detection::new(&settings).run().unwrap_err().to_string();
    assert_eq!(error, "backend.choosy.gpu = 7: not allowed; allowed is 0");
    // The error is not reported if the policy excludes that backend.
    let policy = require("good");
    assert!(Detection::new(&settings).for_policy(&policy).run().is_ok());
    settings.encoder.rate_control = RateControl::Crf(99);
    assert!(Detection::new(&settings).run().unwrap_err().to_string().contains("crf"));
}

#[test]
fn available_encoders_are_those_that_passed_their_probe() {
    let _turn = RUNNING.lock();
    BUSY_ASKED.store(1, SeqCst);
    assert_eq!(detect_available_encoders(), [BUSY, CHOOSY, GOOD]);
    assert!(matches!(
        plan(&require("full"),
             &Detection::new(&Settings::default()).run().unwrap()),
        Err(OpenError::Refused(refusal)) if refusal.transient
    ));
}

#[test]
fn the_order_depends_on_the_settings() {
    let ids = |settings: &Settings| -> Vec<EncoderType> {
        ranked(settings).iter().map(|backend| backend.id).collect()
    };
    let mut settings = Settings::default();
    assert_eq!(ids(&settings), [ABSENT, BROKEN, BUSY, FULL, PANICKING, CHOOSY, GOOD]);
    settings.backend.insert("good".into(), "first = true".parse().unwrap());
    assert_eq!(ids(&settings), [GOOD, ABSENT, BROKEN, BUSY, FULL, PANICKING, CHOOSY]);
}
