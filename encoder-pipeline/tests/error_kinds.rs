//! The kinds of errors and the page that lists them.

use std::collections::HashSet;

use encoder_pipeline::error::ErrorKind;

#[test]
fn every_kind_has_a_name_of_its_own_that_is_documented() {
    let page = include_str!("../../docs/report.md");
    let mut names = HashSet::new();
    for kind in ErrorKind::ALL {
        assert!(names.insert(kind.as_str()), "{kind}");
        assert!(page.contains(&format!("| `{kind}` |")), "{kind} is missing in report.md");
    }
}
