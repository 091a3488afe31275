//! Two backends with one id, as two crates of one program may register them.
#![allow(clippy::unwrap_used)]

use encoder_core::{
    Backend, Chain, ConfigError, Detection, EncoderType, OpenError, OpenRequest, Plan, Refusal,
    RefusalKind, Resolution, Settings, VideoEncoder, backend, backends, detect_available_encoders,
    inventory,
};

const TWICE: EncoderType = EncoderType::new("twice");
const ONCE: EncoderType = EncoderType::new("once");

fn open(_: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    Err(Refusal::new(TWICE, RefusalKind::Failed, "nothing may open it", "").into())
}

const LINE: u32 = line!();
inventory::submit! { Backend::new(ONCE, open) }
inventory::submit! { Backend::new(TWICE, open).rank(|_| 1) }
inventory::submit! { Backend::new(TWICE, open).rank(|_| 2) }

#[test]
fn the_error_names_both_backends() {
    let places =
        [LINE + 2, LINE + 3].map(|line| format!("encoder-core/tests/duplicates.rs:{line}"));
    let is_reported = |error: &ConfigError| {
        let text = error.to_string();
        assert!(text.contains("two backends are named `twice`"), "{text}");
        let at: Vec<_> = places.iter().map(|place| text.find(place.as_str())).collect();
        assert!(at[0].is_some() && at[0] < at[1], "{places:?} in {text}");
        matches!(error, ConfigError::DuplicateBackend { id: TWICE, places: [_, _] })
    };
    let mut settings = Settings::default();
    assert!(is_reported(&settings.check().unwrap_err()));
    assert!(is_reported(&Settings::from_toml("").unwrap_err()));
    assert!(is_reported(&Detection::new(&settings).run().unwrap_err()));
    settings.encoder.resolution = Some(Resolution::new(64, 64));
    // Also if the plan contains neither of them.
    for order in [vec![TWICE], vec![ONCE]] {
        match Chain::new(&Plan::new(order, vec![]), settings.clone(), 1) {
            Err(OpenError::Config(error)) => assert!(is_reported(&error)),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("a chain without an error"),
        }
    }
    assert_eq!(detect_available_encoders(), []);
    match backend(TWICE) {
        Err(OpenError::Config(error)) => assert!(is_reported(&error)),
        other => panic!("{other:?}"),
    }
    assert_eq!(backend(ONCE).unwrap().registered_at().line(), LINE + 1);
}

#[test]
fn the_list_contains_both() {
    let all: Vec<_> = backends().iter().map(|b| (b.id, b.registered_at().line())).collect();
    assert_eq!(all, [(TWICE, LINE + 2), (TWICE, LINE + 3), (ONCE, LINE + 1)]);
}
