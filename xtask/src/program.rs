//! What stands in the built program, and what does not.

use std::{fs, path::Path, process::Command};

use memchr::memmem;
use serde_json::Value;

use crate::{
    process::{Result, output},
    workspace::{Backend, NATIVE},
};

/// Looks for the traces of every backend: those of `features` must all be there, of the others
/// none.
///
/// # Errors
/// Names what is missing or too much.
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
    /// What a real encode gave: the device, or the reason of the refusal.
    pub usable: std::result::Result<String, String>,
}

/// Asks the program what it can use here.
///
/// # Errors
/// When it fails, or answers in another form.
pub fn detect(program: &mut Command) -> Result<Vec<Detected>> {
    let answer: Value =
        serde_json::from_slice(&output(program.args(["detect", "--json"]))?.stdout)?;
    let read = |one: &Value| {
        let text = |key: &str| one[key].as_str().map(str::to_string);
        let usable = match text("verdict")?.as_str() {
            "usable" => Ok(text("device")?),
            _ => Err(text("reason")?),
        };
        Some(Detected { encoder: text("encoder")?, usable })
    };
    let all = answer.as_array().and_then(|list| list.iter().map(read).collect());
    all.ok_or_else(|| format!("`encoder detect --json` answers in another form: {answer}").into())
}
