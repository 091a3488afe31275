#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn versions_of_all_vendors() {
    let table = [
        ("ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000-2026", Some((5, 1)), "5.1.9"),
        ("ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright", Some((4, 4)), "4.4.2"),
        ("ffmpeg version n6.0-11-g9a2ab9bd96 Copyright", Some((6, 0)), "6.0"),
        ("ffmpeg version n9.0.2-17-g2a571b6068-20260930 C", Some((9, 0)), "9.0.2"),
        ("ffmpeg version 7.0.2-static https://x", Some((7, 0)), "7.0.2"),
        ("ffmpeg version 6.1.1-tessus", Some((6, 1)), "6.1.1"),
        ("ffmpeg version 8.0", Some((8, 0)), "8.0"),
        ("ffmpeg version 10.2~rc1", Some((10, 2)), "10.2"),
        ("ffmpeg version 3.4.11-0ubuntu0.1", Some((3, 4)), "3.4.11"),
        ("ffmpeg version N-12345-g1234567 Copyright", None, "N-12345-g1234567"),
        ("ffmpeg version N-109000-g1.2.3", None, "N-109000-g1.2.3"),
        ("ffmpeg version git-2020-03-15-c467328", None, "git-2020-03-15-c467328"),
        (
            "ffmpeg version 2024-05-13-git-37db-full_build-www.x.dev",
            None,
            "2024-05-13-git-37db-full_build-www.x.dev",
        ),
        ("ffmpeg version 2024.05.13", None, "2024.05.13"),
        ("ffmpeg version UNKNOWN", None, "UNKNOWN"),
    ];
    for (line, expected, label) in table {
        let text = version_text(line).unwrap();
        let version = Version::parse(text);
        assert_eq!(version, expected.map(|(a, b)| Version::new(a, b)), "{line}");
        let ffmpeg = Ffmpeg {
            path: PathBuf::new(),
            version,
            version_text: text.into(),
            encoders: BTreeSet::new(),
        };
        assert_eq!(ffmpeg.label(), format!("ffmpeg {label}"));
    }
    for line in ["", "ffprobe version 5.1", "ffmpeg version ", "ffmpeg versions 5.1"] {
        assert_eq!(version_text(line), None, "{line:?}");
    }
}

#[test]
fn encoders_are_read_from_the_list() {
    let text = "Encoders:\n V..... = Video\n ------\n V....D libx264   libx264 H.264\n\n \
                V....D h264_nvenc  NVIDIA\n A....D aac  AAC";
    let names = listed(text);
    assert_eq!(
        names.iter().map(String::as_str).collect::<Vec<_>>(),
        ["aac", "h264_nvenc", "libx264"]
    );
    assert!(listed("V....D libx264").is_empty());
}

/// A program `ffmpeg` in a folder of its own.
fn program(root: &Path, folder: &str, text: &str) -> PathBuf {
    let folder = root.join(folder);
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join(format!("ffmpeg{}", env::consts::EXE_SUFFIX));
    std::fs::write(&program, text).unwrap();
    set_mode(&program, 0o755);
    program
}

fn set_mode(file: &Path, mode: u32) {
    let _ = (file, mode);
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(file, mode).unwrap();
    }
}

#[test]
fn the_variable_comes_before_the_path() {
    let root = tempfile::tempdir().unwrap();
    let first = program(root.path(), "a", "");
    let second = program(root.path(), "b", "");
    let folders = |names: &[&str]| env::join_paths(names.iter().map(|n| root.path().join(n)));
    let path = folders(&["none", "a", "b", "a"]).unwrap();
    let both = Ok(vec![first.clone(), second.clone()]);
    assert_eq!(locate(None, Some(&path)), both);
    assert_eq!(locate(Some((ENV, second.as_os_str())), Some(&path)), Ok(vec![second.clone()]));
    let other = root.path().join("mine");
    assert!(locate(Some((ENV, other.as_os_str())), Some(&path)).unwrap_err().contains("no file"));
    // The settings come before both, whatever the environment of this test has.
    let search = Search::new(EncoderType::X264);
    assert_eq!(search.named(Some(&second)).files(), Ok(vec![second]));
    let refusal = search.named(Some(&other)).files().unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Missing);
    assert!(refusal.reason.starts_with("ffmpeg.path = "), "{refusal}");
    assert!(locate(None, Some(OsStr::new("/nowhere"))).unwrap_err().contains("no ffmpeg"));
    assert!(locate(None, None).is_err());
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_run_hides_no_other() {
    let root = tempfile::tempdir().unwrap();
    let closed = program(root.path(), "a", "");
    set_mode(&closed, 0o644);
    let folders = |names: &[&str]| env::join_paths(names.iter().map(|n| root.path().join(n)));
    let only = folders(&["a"]).unwrap();
    let reason = locate(None, Some(&only)).unwrap_err();
    assert!(reason.contains("a/ffmpeg cannot be run: Permission denied"), "{reason}");
    let open = program(root.path(), "b", "");
    // Two folders lead to one file.
    std::os::unix::fs::symlink(root.path().join("b"), root.path().join("c")).unwrap();
    let all = folders(&["a", "b", "c"]).unwrap();
    assert_eq!(locate(None, Some(&all)), Ok(vec![open]));
}

#[cfg(unix)]
#[test]
fn an_ffmpeg_without_the_encoder_hides_no_other() {
    let script = |version: &str, encoders: &str| {
        format!(
            "#!/bin/sh\necho 'ffmpeg version {version} Copyright' >&2\necho ' ------'\n\
             for name in {encoders}; do echo \" V..... $name x\"; done\n"
        )
    };
    let root = tempfile::tempdir().unwrap();
    let files = [
        program(root.path(), "broken", "#!/bin/sh\nexit 3\n"),
        program(root.path(), "old", &script("3.4", "libx264 h264_nvenc")),
        program(root.path(), "small", &script("9.0", "libx264")),
        program(root.path(), "large", &script("8.1", "libx264 h264_nvenc")),
    ];
    let choose = |name, files: &[PathBuf]| {
        let minute = Duration::from_secs(60);
        let found =
            Ffmpeg::choose(EncoderType::NVENC, name, files.to_vec(), minute, &Waiter::new());
        found.map(|ffmpeg| ffmpeg.path.clone())
    };
    assert_eq!(choose(None, &files), Ok(files[2].clone()));
    assert_eq!(choose(Some("libx264"), &files), Ok(files[2].clone()));
    assert_eq!(choose(Some("h264_nvenc"), &files), Ok(files[3].clone()));
    let refusal = choose(Some("h264_qsv"), &files).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NotBuilt);
    let reason = refusal.reason.as_str();
    assert!(reason.contains("small/ffmpeg") && reason.contains("large/ffmpeg"), "{reason}");
    let refusal = choose(Some("h264_qsv"), &files[..2]).unwrap_err();
    assert!(refusal.reason.contains("broken/ffmpeg is no FFmpeg that works"), "{refusal}");
}

/// Searches that wait for the run of another search, and the search that runs FFmpeg, end at their
/// own stop. The next search runs it again: FFmpeg hangs only once.
#[cfg(unix)]
#[test]
fn a_stop_ends_a_search_and_is_not_remembered() {
    use std::{sync::mpsc::channel, thread};

    use encoder_testbed::process::{assert_group_gone, until};

    const LONG: Duration = Duration::from_secs(600);
    let root = tempfile::tempdir().unwrap();
    let text = "#!/bin/sh\ncd \"${0%/*}\"\necho $$ >>calls\n\
                if mkdir hung 2>/dev/null; then trap '' TERM; sleep 1000; sleep 1000; fi\n\
                echo 'ffmpeg version 9.0 Copyright' >&2\necho ' ------'\n";
    let file = program(root.path(), "a", text);
    let calls = || {
        let text = std::fs::read_to_string(root.path().join("a/calls")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect::<Vec<u32>>()
    };
    let (ended, end) = channel();
    let search = |name: &'static str, waiter: &Waiter| {
        let (file, waiter, ended) = (file.clone(), waiter.clone(), ended.clone());
        thread::spawn(move || {
            let search = Search::new(EncoderType::X264).named(Some(&file)).within(LONG);
            let found = search.with_waiter(Some(&waiter)).run();
            let _ = ended.send((name, found.map(drop)));
        })
    };
    let (runs, waits, stays) = (Waiter::new(), Waiter::new(), Waiter::new());
    let mut threads = vec![search("runs", &runs)];
    until("FFmpeg hangs", || calls().len() == 1);
    threads.push(search("waits", &waits));
    threads.push(search("stays", &stays));
    let next = || end.recv_timeout(LONG / 10).unwrap();
    waits.stop();
    let (name, found) = next();
    let refusal = found.unwrap_err();
    assert_eq!((name, refusal.kind), ("waits", RefusalKind::Timeout));
    assert!(refusal.transient && refusal.reason.contains("was stopped"), "{refusal}");
    runs.stop();
    let mut rest = [next(), next()];
    rest.sort_by_key(|(name, _)| *name);
    let [(_, ran), (_, stayed)] = rest;
    assert!(ran.unwrap_err().reason.contains("was stopped"));
    assert_eq!(stayed, Ok(()));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let calls = calls();
    assert_eq!(calls.len(), 2);
    calls.into_iter().for_each(assert_group_gone);
}
