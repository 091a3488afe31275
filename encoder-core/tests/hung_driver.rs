//! A driver that does not answer the device check is remembered.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

use encoder_core::{
    Backend, Cache, Caps, Detected, Detection, Device, EncoderType, OpenError, OpenRequest,
    ProbeResult, Refusal, RefusalKind, Settings, inventory,
};

const SLOW: EncoderType = EncoderType::new("slow");

inventory::submit! {
    Backend::new(SLOW, |_| unreachable!("nothing is opened here"))
        .hardware(true)
        .inspect(inspect)
        .probe(|_, _| {
            let device = Device::new("second").with_driver("driver 2".to_owned());
            ProbeResult::Usable(Caps::new("lib").with_device(device).with_chosen("device", "second"))
        })
        .driver_identity(|| vec![format!("driver {}", VERSION.load(Relaxed))])
}

static CHECKS: AtomicU32 = AtomicU32::new(0);
static VERSION: AtomicU32 = AtomicU32::new(1);
static HANGS: AtomicBool = AtomicBool::new(true);

fn inspect(_: &OpenRequest<'_>) -> Result<Device, OpenError> {
    CHECKS.fetch_add(1, SeqCst);
    if HANGS.load(Relaxed) {
        let refusal = Refusal::new(SLOW, RefusalKind::Timeout, "no answer", "restart");
        return Err(refusal.transient().into());
    }
    Ok(Device::new("first").with_identity(vec!["first".into()]))
}

#[test]
fn it_is_not_checked_again_until_something_changes() {
    let (settings, folder) = (Settings::default(), tempfile::tempdir().unwrap());
    let detect = |reprobe| -> (Detected, u32) {
        let before = CHECKS.load(SeqCst);
        let cache = Some(Cache::at(folder.path()));
        let found = Detection::new(&settings).cache(cache).reprobe(reprobe).run().unwrap();
        (found[0].clone(), CHECKS.load(SeqCst) - before)
    };
    let refusal = |found: &Detected| match &found.result {
        ProbeResult::Refused(refusal) => refusal.clone(),
        usable => panic!("{usable:?}"),
    };
    let (first, checks) = detect(false);
    assert_eq!((checks, first.cached_s), (1, None));
    assert_eq!(refusal(&first).reason, "no answer");
    let (again, checks) = detect(false);
    assert_eq!(checks, 0);
    assert!(again.cached_s.is_some());
    let kept = refusal(&again);
    assert!(kept.reason.starts_with("no answer (checked "), "{kept}");
    assert!(kept.transient && kept.kind == RefusalKind::Timeout, "{kept}");
    // On request, and with another driver.
    assert_eq!(detect(true).1, 1);
    VERSION.store(2, Relaxed);
    assert_eq!(detect(false).1, 1);
    assert_eq!(detect(false).1, 0);
    // Without a cache nothing is remembered.
    let before = CHECKS.load(SeqCst);
    Detection::new(&settings).run().unwrap();
    assert_eq!(CHECKS.load(SeqCst) - before, 1);

    // It answers again: the refusal is forgotten. The probe has chosen among several devices, and
    // its choice is cached with it.
    HANGS.store(false, Relaxed);
    assert_eq!(detect(false).1, 0);
    for reprobe in [true, false] {
        let (found, checks) = detect(reprobe);
        assert_eq!((checks, found.cached_s.is_none()), (1, reprobe));
        let device = found.device.unwrap();
        assert_eq!((device.name.as_str(), device.driver.as_deref()), ("second", Some("driver 2")));
        let ProbeResult::Usable(caps) = found.result else { panic!("{:?}", found.result) };
        assert_eq!((caps.chosen["device"].as_str(), caps.device), ("second", None));
    }
}
