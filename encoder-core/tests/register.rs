//! Backends that are registered by a call, as in a static library.

use encoder_core::{Backend, EncoderType, Settings, backends, inventory, register};

const CALLED: EncoderType = EncoderType::new("called");
const BOTH: EncoderType = EncoderType::new("both");

const CALLED_BACKEND: Backend = Backend::new(CALLED, |_| unreachable!("nothing is opened here"));
const OTHER_BACKEND: Backend = Backend::new(CALLED, |_| unreachable!("nothing is opened here"));
const BOTH_BACKEND: Backend = Backend::new(BOTH, |_| unreachable!("nothing is opened here"));

inventory::submit! { BOTH_BACKEND }

#[test]
fn a_backend_is_registered_once_however_often_it_is_named() {
    let ids = || backends().into_iter().map(|backend| backend.id).collect::<Vec<_>>();
    assert_eq!(ids(), [BOTH]);
    for _ in 0..2 {
        register(&[&BOTH_BACKEND, &CALLED_BACKEND, &CALLED_BACKEND]);
        assert_eq!(ids(), [BOTH, CALLED]);
        assert!(Settings::default().check().is_ok());
    }
    // Another backend of the same name is no repetition.
    register(&[&OTHER_BACKEND]);
    assert_eq!(ids(), [BOTH, CALLED, CALLED]);
    assert!(Settings::default().check().is_err());
}
