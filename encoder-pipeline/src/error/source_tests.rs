use super::*;

/// One error of each variant.
fn all() -> Vec<RunError> {
    let io = || io::Error::from(io::ErrorKind::StorageFull);
    let path = std::path::Path::new("a");
    let reason = crate::skipped::SkipReason::NoMessages;
    let (topic, schema) = ("/cam".to_owned(), "Image".to_owned());
    let skipped = vec![SkippedTopic { topic, schema, frames_in: 0, reason }];
    let (topic, recording) = (|| "/cam".to_owned(), || "a.mcap".to_owned());
    vec![
        SourceError::io(path, io()).into(),
        SourceError::invalid(path, "it is empty", "record it again").into(),
        SourceError::no_camera(path, Vec::new()).into(),
        SinkError::io(path)(io()).kept(path).into(),
        SessionError::Sink(SinkError::io(path)(io())).into(),
        SessionError::Open(OpenError::Stopped).into(),
        RunError::Resample { topic: topic(), error: ResampleError::Apart },
        RunError::NothingConverted { recording: recording(), skipped },
        RunError::NoPicture,
        RunError::OutsideWindow { recording: recording(), span: Some((0, 1_000_000_000)) },
        RunError::Stopped { recording: recording() },
        RunError::Setup("no port".into()),
    ]
}

#[test]
fn no_error_displays_its_source_again() {
    use std::error::Error;
    let mut variants = std::collections::BTreeSet::new();
    for error in all() {
        // A new variant does not compile until it has a number here.
        variants.insert(match &error {
            RunError::Source(_) => 0,
            RunError::Sink(_) => 1,
            RunError::Session(_) => 2,
            RunError::Resample { .. } => 3,
            RunError::NothingConverted { .. } => 4,
            RunError::NoPicture => 5,
            RunError::OutsideWindow { .. } => 6,
            RunError::Stopped { .. } => 7,
            RunError::Setup(_) => 8,
        });
        let mut outer: &dyn Error = &error;
        while let Some(source) = outer.source() {
            let (text, cause) = (outer.to_string(), source.to_string());
            assert!(!text.contains(&cause), "`{text}` contains its source `{cause}`");
            outer = source;
        }
        // The cause is displayed by the error itself, once.
        let text = error.to_string();
        if let Some(cause) = error.io_error() {
            assert_eq!(text.matches(&cause.to_string()).count(), 1, "{text}");
        }
    }
    assert_eq!(variants.len(), 9, "all() has one error of each variant");
}
