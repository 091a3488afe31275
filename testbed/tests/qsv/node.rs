//! The render node, as programs other than FFmpeg see it.

use std::process::{Command, Output};

use encoder_testbed::qsv::{Fault, Part, VirtualQsv};

use crate::device;

fn shell(device: &VirtualQsv, script: &str) -> Output {
    device.apply(Command::new("sh").args(["-c", script])).output().unwrap()
}

#[test]
fn a_character_device() {
    let Some(device) = device() else { return };
    let device = device.node(130);
    let script = "ls /dev/dri; stat -c '%F %Hr:%Lr' /dev/dri/renderD130; \
                  test -c /dev/dri/renderD130 && exec 3<>/dev/dri/renderD130 && echo opened";
    let output = shell(&device, script);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "renderD130\ncharacter special file 226:130\nopened\n", "{output:?}");
}

#[test]
fn no_node() {
    let Some(device) = device() else { return };
    let output = shell(&device.without(Part::Node), "ls /dev/dri && ! test -e /dev/dri/renderD128");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn not_for_this_user() {
    let Some(device) = device() else { return };
    let device = device.fault(Fault::NODE_DENIED);
    let output = shell(&device, "ls /dev/dri; exec 3<>/dev/dri/renderD128");
    assert!(!output.status.success());
    assert_eq!(output.stdout, b"renderD128\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");
}
