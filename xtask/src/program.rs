//! Builds the program `encoder`, and checks which backends it contains.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use memchr::memmem;
use serde_json::Value;

use crate::{
    process::{Result, cargo, output, show, target},
    workspace::{Backend, NATIVE, PROGRAM, target_of},
};

/// Where Cargo puts the program when it builds with the profile `dev`.
pub fn built() -> PathBuf {
    target().join("debug").join(format!("{PROGRAM}{}", env::consts::EXE_SUFFIX))
}

/// The program `encoder`, built for measurements.
///
/// # Errors
/// When it does not build.
pub fn encoder() -> Result<PathBuf> {
    let package = target_of("bin", PROGRAM)?.package;
    if !show(cargo().args(["build", "--package", &package, "--bin", PROGRAM]))? {
        return Err("the program `encoder` does not build".into());
    }
    Ok(built())
}

/// Searches the program for the traces of every backend: it must contain those of `features` and no
/// others.
///
/// # Errors
/// Names the missing and the unexpected traces.
pub fn contains_exactly(program: &Path, features: &[String], all: &[Backend]) -> Result<()> {
    let bytes = fs::read(program).map_err(|e| format!("{}: {e}", program.display()))?;
    let native = features.iter().any(|f| f == NATIVE);
    let mut wrong = Vec::new();
    let mut look = |expected: bool, trace: &str| match memmem::find(&bytes, trace.as_bytes()) {
        Some(_) if !expected => wrong.push(format!("contains {trace}")),
        None if expected => wrong.push(format!("lacks {trace}")),
        _ => {}
    };
    for backend in all {
        let expected = features.contains(&backend.name) || (native && backend.name == "x264");
        // Symbols of Rust carry the crate's name behind its length; paths of sources do not.
        let symbol = backend.package.replace('-', "_");
        look(expected, &format!("{}{symbol}", symbol.len()));
        look(expected, &codec(&backend.name));
    }
    look(native, "x264_encoder_open");
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join(", ").into()),
    }
}

/// A string or symbol that only this backend brings: FFmpeg's name of the encoder, or a function
/// of the codec.
fn codec(backend: &str) -> String {
    match backend {
        "x264" => "libx264".into(),
        "openh264" => "WelsCreateSVCEncoder".into(),
        hardware => format!("h264_{hardware}"),
    }
}

/// One backend in the answer of `encoder detect --json`.
#[derive(Debug)]
pub struct Detected {
    /// Its name.
    pub encoder: String,
    /// The result of a real encode: device and library, or the reason of the refusal.
    pub usable: std::result::Result<String, String>,
}

/// Runs `encoder detect`, with a fresh probe.
///
/// # Errors
/// When it fails, or its output has another form.
pub fn detect(program: &mut Command) -> Result<Vec<Detected>> {
    let answer: Value =
        serde_json::from_slice(&output(program.args(["detect", "--json"]))?.stdout)?;
    let read = |one: &Value| {
        let text = |key: &str| one[key].as_str().map(str::to_string);
        let usable = match text("status")?.as_str() {
            "usable" => {
                let words = [text("name").unwrap_or_default(), text("library")?];
                Ok(words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", "))
            }
            _ => Err(text("reason")?),
        };
        Some(Detected { encoder: text("encoder")?, usable })
    };
    let all = answer.as_array().and_then(|list| list.iter().map(read).collect());
    all.ok_or_else(|| format!("`encoder detect --json` answers in another form: {answer}").into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn too_much_and_too_little_is_seen() {
        let all = ["nvenc", "x264"]
            .map(|name| Backend { name: name.into(), package: format!("encoder-{name}") });
        let program = tempfile::NamedTempFile::new().unwrap();
        let nvenc = "_ZN13encoder_nvenc3job17h h264_nvenc\0";
        let x264 = "_ZN12encoder_x2643job17h libx264\0";
        // What stands in the program, the features | what is wrong
        for (text, features, wrong) in [
            (String::new(), vec![], ""),
            ("/home/encoder-nvenc/src encoder_nvenc".into(), vec![], ""),
            (nvenc.into(), vec!["nvenc"], ""),
            (nvenc.into(), vec![], "contains 13encoder_nvenc, contains h264_nvenc"),
            (nvenc.into(), vec!["nvenc", "x264"], "lacks 12encoder_x264, lacks libx264"),
            (
                format!("{nvenc}{x264}"),
                vec!["x264"],
                "contains 13encoder_nvenc, contains h264_nvenc",
            ),
            (x264.into(), vec![NATIVE], "lacks x264_encoder_open"),
            (format!("{x264}x264_encoder_open_164"), vec!["x264"], "contains x264_encoder_open"),
            (format!("{x264}x264_encoder_open_164"), vec![NATIVE], ""),
        ] {
            fs::write(program.path(), &text).unwrap();
            let features: Vec<_> = features.into_iter().map(String::from).collect();
            let found = contains_exactly(program.path(), &features, &all);
            assert_eq!(found.map_or_else(|e| e.to_string(), |()| String::new()), wrong, "{text}");
        }
    }
}
