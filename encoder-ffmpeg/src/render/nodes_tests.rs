#![allow(clippy::unwrap_used)]

use encoder_core::Caps;

use super::*;
use crate::render::NVIDIA;

const QSV: Wanted = Wanted {
    id: EncoderType::QSV,
    what: "Quick Sync",
    fits: |vendor| vendor == INTEL,
    needs: "one of Intel",
    hint: "buy one",
};
const VAAPI: Wanted = Wanted {
    id: EncoderType::VAAPI,
    what: "VA-API",
    fits: |vendor| vendor != NVIDIA,
    needs: "one of AMD or Intel",
    hint: "buy one",
};

/// A machine in a folder: `renderD128=8086:46a6:i915`, where an empty part is not known and a
/// `!` at the end makes a node that does not open.
#[cfg(unix)]
fn machine(spec: &str) -> tempfile::TempDir {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let dev = root.path().join("dri");
    fs::create_dir(&dev).unwrap();
    for word in spec.split_whitespace() {
        let opens = !word.ends_with('!');
        let (name, facts) = word.trim_end_matches('!').split_once('=').unwrap();
        // A dangling link cannot be opened, not even by root.
        if opens {
            fs::write(dev.join(name), "").unwrap();
        } else {
            symlink("nowhere", dev.join(name)).unwrap();
        }
        let facts: Vec<_> = facts.split(':').collect();
        let &[vendor, model, driver] = facts.as_slice() else { continue };
        let device = root.path().join("drm").join(name).join("device");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("vendor"), format!("0x{vendor}\n")).unwrap();
        fs::write(device.join("device"), format!("0x{model}\n")).unwrap();
        let (driver, version) = driver.split_once('-').unwrap_or((driver, ""));
        let folder = root.path().join("drivers").join(driver);
        fs::create_dir_all(folder.join("module")).unwrap();
        if !version.is_empty() {
            fs::write(folder.join("module/version"), format!("{version}\n")).unwrap();
        }
        symlink(&folder, device.join("driver")).unwrap();
    }
    root
}

#[cfg(unix)]
fn search(root: &Path, wanted: &Wanted, named: Option<&str>) -> Result<Nodes, OpenError> {
    let named = named.map(|name| root.join("dri").join(name));
    find_in(wanted, named.as_deref(), &root.join("dri"), &root.join("drm"))
}

#[cfg(unix)]
#[test]
fn nodes_that_fit_in_order() {
    // machine | named | for Quick Sync | for VA-API: nodes, or a part of the refusal
    let table: &[(&str, &str, &str, &str)] = &[
        ("", "", "no render node", "no render node"),
        ("card0=8086:46a6:i915", "", "no render node", "no render node"),
        ("renderD128=8086:46a6:i915", "", "renderD128", "renderD128"),
        (
            "renderD128=1002:73bf:amdgpu",
            "",
            "renderD128 is a device of AMD; Quick Sync needs one of Intel",
            "renderD128",
        ),
        (
            "renderD128=10de:2684:nvidia",
            "",
            "renderD128 is a device of NVIDIA; Quick Sync needs one of Intel",
            "renderD128 is a device of NVIDIA; VA-API needs one of AMD or Intel",
        ),
        ("renderD128=1af4:1050:virtio-pci", "", "is a device of vendor 0x1af4", "renderD128"),
        // The node of another vendor comes first.
        ("renderD128=10de:1:nvidia renderD129=8086:2:i915", "", "renderD129", "renderD129"),
        (
            "renderD128=1002:1:amdgpu renderD129=8086:2:xe",
            "",
            "renderD129",
            "renderD128 renderD129",
        ),
        ("renderD128=8086:1:i915! renderD129=8086:2:xe", "", "renderD129", "renderD129"),
        (
            "renderD200=8086:1:i915 renderD99=8086:2:xe",
            "",
            "renderD99 renderD200",
            "renderD99 renderD200",
        ),
        // Display adapters of virtual machines and of servers come last.
        (
            "renderD128=1af4:1050:virtio-pci renderD129=1a03:2000:ast renderD130=1002:1:amdgpu",
            "",
            "renderD130 is a device of AMD; Quick Sync needs one of Intel",
            "renderD130 renderD128 renderD129",
        ),
        ("renderD128=8086:1:i915!", "", "cannot be opened", "cannot be opened"),
        // Without /sys the probe decides.
        ("renderD128=", "", "renderD128", "renderD128"),
        (
            "renderD128= renderD129=8086:2:i915 renderD130=1af4:1050:virtio-pci",
            "",
            "renderD129 renderD128",
            "renderD129 renderD128 renderD130",
        ),
        ("renderD128= renderD129=10de:2:nvidia", "", "renderD128", "renderD128"),
        // By name.
        ("renderD128=8086:1:i915 renderD129=8086:2:xe", "renderD129", "renderD129", "renderD129"),
        (
            "renderD128=1002:1:amdgpu renderD129=8086:2:xe",
            "renderD128",
            "is a device of AMD",
            "renderD128",
        ),
        ("renderD128=8086:1:i915", "renderD130", "not allowed; allowed is", "not allowed"),
        ("", "renderD128", "has none here", "has none here"),
    ];
    for (spec, named, qsv, vaapi) in table {
        let root = machine(spec);
        for (wanted, expected) in [(QSV, qsv), (VAAPI, vaapi)] {
            let named = (!named.is_empty()).then_some(*named);
            match search(root.path(), &wanted, named) {
                Ok(nodes) => {
                    let name =
                        |node: &Node| node.path.file_name().unwrap().to_string_lossy().into_owned();
                    let names: Vec<_> = nodes.all().map(name).collect();
                    assert_eq!(names.join(" "), *expected, "{spec}");
                    assert_eq!(nodes.is_named, named.is_some());
                }
                Err(error) => {
                    let lost =
                        named.is_some_and(|name| !root.path().join("dri").join(name).exists());
                    assert_eq!(matches!(error, OpenError::Config(_)), lost, "{spec}");
                    assert!(error.to_string().contains(expected), "{spec}: {error}");
                }
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn the_kernel_describes_a_node() {
    let root = machine("renderD128=1002:73bf:amdgpu-6.8.5 renderD129=");
    let nodes = search(root.path(), &VAAPI, None).unwrap();
    let (path, other) = (nodes.first().path.display(), nodes.others[0].path.display());
    let device = nodes.device(vec!["ffmpeg".into()], &[]);
    assert_eq!(device.name, format!("{path} (AMD), {other}"));
    assert_eq!(device.driver.as_deref(), Some("amdgpu 6.8.5"));
    assert_eq!(
        device.identity,
        ["ffmpeg".to_owned(), format!("{path} 1002:73bf amdgpu 6.8.5"), format!("{other} ?:? ?")]
    );
    let node = search(root.path(), &VAAPI, Some("renderD129")).unwrap().first;
    let device = node.device();
    assert_eq!((device.name, device.driver), (node.path.display().to_string(), None));
    // A link to a node is that node.
    let link = root.path().join("dri/by-path");
    std::os::unix::fs::symlink(root.path().join("dri/renderD128"), &link).unwrap();
    let linked = search(root.path(), &VAAPI, Some("by-path")).unwrap();
    assert_eq!(linked.first().vendor, Some(AMD));
}

#[test]
fn permission() {
    let node = Path::new("/dev/dri/renderD128");
    let closed = denied(&QSV, node, &io::ErrorKind::PermissionDenied.into(), Some("video"));
    assert_eq!(closed.kind, RefusalKind::Permission);
    assert!(closed.reason.contains("the group video"), "{closed}");
    assert!(closed.hint.contains("usermod -aG video"), "{closed}");
    let lost = denied(&QSV, node, &io::ErrorKind::NotFound.into(), None);
    assert_eq!(lost.kind, RefusalKind::NoDevice);
    let groups = "root:x:0:\nvideo:x:44:me\nrender:x:104:\nbroken";
    assert_eq!(group_name(groups, "104").as_deref(), Some("render"));
    assert_eq!(group_name(groups, "4"), None);
}

const LONG: Duration = Duration::from_secs(60);

fn refused(kind: RefusalKind, reason: &str) -> ProbeResult {
    ProbeResult::Refused(Refusal::new(QSV.id, kind, reason, format!("hint of {reason}")))
}

#[cfg(unix)]
#[test]
fn nodes_are_probed_in_turn_until_an_encoder_works() {
    use RefusalKind::{Busy, Failed, NoDevice};
    let root = machine(
        "renderD128=1af4:1050:virtio-pci renderD129=1002:1:amdgpu renderD130=8086:1:xe \
         renderD131=8086:1:xe!",
    );
    let nodes = search(root.path(), &VAAPI, None).unwrap();
    let probe = |works: &str, busy: &str| {
        let tried = std::cell::RefCell::new(Vec::new());
        let result = nodes.probe(LONG, |node, share| {
            let name = node.path.file_name().unwrap().to_string_lossy().into_owned();
            tried.borrow_mut().push((name.clone(), share));
            match name {
                name if name == works => ProbeResult::Usable(Caps::new("lib")),
                name if name == busy => refused(Busy, "busy"),
                _ => refused(Failed, "broken"),
            }
        });
        (result, tried.into_inner())
    };
    let (result, tried) = probe("renderD130", "");
    let ProbeResult::Usable(caps) = result else { panic!("{result:?}") };
    let path = root.path().join("dri/renderD130").display().to_string();
    assert_eq!(caps.device.unwrap().name, format!("{path} (Intel)"));
    assert_eq!(caps.chosen["device"], path);
    let names: Vec<_> = tried.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["renderD129", "renderD130"]);
    // A node that hangs leaves the same time for each of the others.
    assert!(tried[0].1 <= LONG / 3 && tried[1].1 > LONG / 3, "{tried:?}");

    let (result, tried) = probe("", "");
    let ProbeResult::Refused(refusal) = result else { panic!("{result:?}") };
    assert_eq!(tried.len(), 3);
    for (node, text) in [
        ("129", "(AMD): broken"),
        ("130", "(Intel): broken"),
        ("128", "(vendor 0x1af4): broken"),
        ("131", "cannot be opened"),
    ] {
        assert!(refusal.reason.contains(&format!("renderD{node} {text}")), "{refusal}");
    }
    assert_eq!((refusal.kind, refusal.hint.as_str()), (Failed, "hint of broken"));
    // For a busy node a wait may help.
    let ProbeResult::Refused(refusal) = probe("", "renderD130").0 else { panic!() };
    assert!(refusal.is_busy() && refusal.reason.contains("(Intel): busy"), "{refusal}");

    // The node of the probe is opened first.
    let again = nodes.clone().starting_with(path.as_ref(), &VAAPI).unwrap();
    assert!(again.first().path.ends_with("renderD130") && again.others.len() == 2);
    let gone = nodes.clone().starting_with("/dev/dri/renderD140".as_ref(), &VAAPI).unwrap_err();
    assert_eq!(gone.kind, NoDevice);
    assert!(gone.reason.starts_with("/dev/dri/renderD140"), "{gone}");

    // A node that the configuration names is the only one, and its name is not added.
    let nodes = search(root.path(), &VAAPI, Some("renderD129")).unwrap();
    let result = nodes.probe(LONG, |_, _| ProbeResult::Usable(Caps::new("lib")));
    let ProbeResult::Usable(caps) = result else { panic!("{result:?}") };
    assert!(caps.chosen.is_empty() && caps.device.is_some());
    let result = nodes.probe(LONG, |_, _| refused(NoDevice, "none"));
    assert_eq!(result, refused(NoDevice, "none"));
}

#[test]
fn low_power_is_tried_where_the_refusal_concerns_the_mode() {
    use RefusalKind::{Failed, Unsupported};
    const ATTEMPTS: [Option<bool>; 3] = [None, Some(true), Some(false)];
    // configured | modes that work | modes that fail otherwise | tried | chosen
    type Modes = &'static [Option<bool>];
    let table: &[(Option<bool>, Modes, Modes, Modes, Option<&str>)] = &[
        (None, &[None], &[], &[None], None),
        (None, &[Some(true)], &[], &[None, Some(true)], Some("true")),
        (None, &[Some(false)], &[], &ATTEMPTS, Some("false")),
        (None, &[], &[], &ATTEMPTS, None),
        (None, &[Some(true)], &[None], &[None], None),
        (Some(false), &[Some(true)], &[], &[Some(false)], None),
        (Some(true), &[Some(true)], &[], &[Some(true)], None),
    ];
    for (configured, works, fails, expected, chosen) in table {
        let tried = std::cell::RefCell::new(Vec::new());
        let is_mode = |refusal: &Refusal| refusal.kind == Unsupported;
        let result = probe_low_power(*configured, &ATTEMPTS, is_mode, LONG, |mode, _| {
            tried.borrow_mut().push(mode);
            match mode {
                mode if works.contains(&mode) => ProbeResult::Usable(Caps::new("lib")),
                mode if fails.contains(&mode) => refused(Failed, "broken"),
                _ => refused(Unsupported, "no mode"),
            }
        });
        assert_eq!(tried.into_inner(), *expected);
        match result {
            ProbeResult::Usable(caps) => {
                assert_eq!(caps.chosen.get("low_power").map(String::as_str), *chosen);
            }
            ProbeResult::Refused(refusal) => {
                assert!(!expected.iter().any(|mode| works.contains(mode)));
                if expected.len() == 3 {
                    let all = "no mode; with low_power = true: no mode; with low_power = \
                               false: no mode";
                    assert_eq!(refusal.reason, all);
                }
            }
        }
    }
}
