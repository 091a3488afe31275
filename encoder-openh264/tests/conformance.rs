//! The rules of a backend, with the decoder of this crate.

use encoder_core::testing::{Outcome, check};

#[test]
fn it_keeps_every_rule() {
    let report = check(&encoder_openh264::BACKEND);
    for result in &report.results {
        let expected = match result.rule {
            "sizes" => "refused: 2x2",
            "rate-control" => "refused: 20000 kbit/s, at most 40000 kbit/s",
            "refusals" => "refused: 16384x2, 2x16384",
            _ => "",
        };
        assert_eq!(result.outcome, Outcome::Passed(expected.into()), "{report}");
    }
}
