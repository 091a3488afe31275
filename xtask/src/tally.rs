//! Counting what `cargo test` ran.

/// One test target in what `cargo test` writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Its source: `unittests src/lib.rs`, `tests/virtual.rs`; a crate for its doc tests.
    pub target: String,
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// Tests, among those that passed, that did not do their work, for want of a device or a tool: they have said
    /// `left out:`, which is seen with `--show-output`.
    pub left_out: u32,
}

/// Reads both outputs of `cargo test`, merged in the order of writing.
pub fn tallies(text: &str) -> Vec<Tally> {
    let mut all: Vec<Tally> = Vec::new();
    // A test may say twice that it was left out.
    let mut said = false;
    for line in text.lines().map(str::trim) {
        let target = line.strip_prefix("Running ").or_else(|| line.strip_prefix("Doc-tests "));
        if let Some(target) = target {
            let target = target.split(" (").next().unwrap_or(target).to_string();
            all.push(Tally { target, ..Tally::default() });
        }
        let Some(last) = all.last_mut() else { continue };
        if let Some(result) = line.strip_prefix("test result: ") {
            // `ok. 4 passed; 0 failed; 0 ignored; …`
            let words: Vec<_> = result.split([' ', ';']).filter(|word| !word.is_empty()).collect();
            let count = |what: &str| {
                let at = words.iter().position(|word| *word == what)?;
                words.get(at.checked_sub(1)?)?.parse::<u32>().ok()
            };
            last.passed += count("passed").unwrap_or(0);
            last.failed += count("failed").unwrap_or(0);
        } else if line.starts_with("---- ") {
            said = false;
        } else if line.starts_with("left out: ") && !said {
            said = true;
            last.left_out += 1;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        let text = "   Compiling encoder-nvenc v0.1.0\n     \
             Running unittests src/lib.rs (target/debug/deps/encoder_nvenc-8c38)\n\n\
             running 4 tests\ntest tests::argument_lists ... ok\n\n\
             test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished \
             in 0.32s\n\n     Running tests/virtual.rs (target/debug/deps/virtual-8c38)\n\
             running 3 tests\n---- one stdout ----\nleft out: no C compiler\nleft out: nor \
             this\n\
             test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n   \
             Doc-tests encoder_nvenc\n\
             test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let tally = |target: &str, passed, failed, left_out| Tally {
            target: target.into(),
            passed,
            failed,
            left_out,
        };
        let expected = [
            tally("unittests src/lib.rs", 4, 0, 0),
            tally("tests/virtual.rs", 2, 1, 1),
            tally("encoder_nvenc", 0, 0, 0),
        ];
        assert_eq!(tallies(text), expected);
        assert_eq!(tallies("error: could not compile"), []);
    }
}
