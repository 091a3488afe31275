#![allow(clippy::unwrap_used)]

use super::*;

/// A file with the camera `topic` from `start` to `end`, in tenths of a second.
fn file(name: &str, topic: &str, start: i64, end: i64) -> Survey {
    Survey {
        path: Path::new("rec").join(name),
        span: Some((start * SECOND / 10, end * SECOND / 10)),
        cameras: [(topic.to_owned(), "x".to_owned())].into(),
        interval: SECOND / 20,
        damage: None,
    }
}

/// The groups as text: numbers of the files, and of the missing parts.
fn grouped(files: &[(&str, &str, i64, i64)]) -> String {
    let surveys = files.iter().map(|(name, topic, start, end)| file(name, topic, *start, *end));
    let surveys: Vec<_> = surveys.collect();
    let present: Vec<_> = surveys.iter().map(|file| file.path.clone()).collect();
    let (groups, reason) = group(surveys, &present);
    assert_eq!(groups.len() > 1, reason.is_some(), "{files:?}");
    let text = |group: &Group| {
        let names = group.files.iter().map(|f| stem(&f.path)).collect::<Vec<_>>().join("+");
        format!("{names}{}", "!".repeat(group.missing.len()))
    };
    groups.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn parts_of_a_recording_and_recordings() {
    let table: &[(&[(&str, &str, i64, i64)], &str)] = &[
        (&[("a.mcap", "/c", 0, 100)], "a"),
        // Parts: one after another, crossing a boundary, in another order.
        (&[("x_0.mcap", "/c", 0, 100), ("x_1.mcap", "/c", 101, 200)], "x_0+x_1"),
        (&[("x_0.mcap", "/c", 0, 100), ("x_1.mcap", "/c", 95, 200)], "x_0+x_1"),
        (&[("x_0.mcap", "/c", 101, 200), ("x_1.mcap", "/c", 0, 100)], "x_1+x_0"),
        (
            &[
                ("b_2020-01-01-10-00-00_0.bag", "/c", 0, 600),
                ("b_2020-01-01-10-01-00_1.bag", "/c", 605, 1200),
            ],
            "b_2020-01-01-10-00-00_0+b_2020-01-01-10-01-00_1",
        ),
        // Recordings: at the same time, again, with a pause, with other topics, with other names.
        (&[("e1.mcap", "/c", 0, 100), ("e2.mcap", "/c", 0, 110)], "e1 e2"),
        (&[("e1.mcap", "/c", 0, 100), ("e2.mcap", "/c", 50, 150)], "e1 e2"),
        (&[("e1.mcap", "/c", 0, 100), ("e2.mcap", "/c", 20, 80)], "e1 e2"),
        (&[("e1.mcap", "/c", 0, 100), ("e2.mcap", "/c", 150, 250)], "e1 e2"),
        (&[("e1.mcap", "/c", 0, 100), ("e2.mcap", "/d", 101, 200)], "e1 e2"),
        (&[("left.bag", "/c", 0, 100), ("right.bag", "/c", 101, 200)], "left right"),
        (&[("e1.mcap", "/c", 0, 100), ("e2.bag", "/c", 101, 200)], "e1 e2"),
        // Two recorders at the same time.
        (
            &[
                ("a_0.mcap", "/c", 0, 100),
                ("b_0.mcap", "/c", 5, 105),
                ("a_1.mcap", "/c", 101, 200),
                ("b_1.mcap", "/c", 106, 205),
            ],
            "a_0+a_1 b_0+b_1",
        ),
        // Missing parts.
        (&[("x_0.mcap", "/c", 0, 100), ("x_2.mcap", "/c", 200, 300)], "x_0+x_2!"),
        (&[("x_2.mcap", "/c", 0, 100), ("x_3.mcap", "/c", 101, 200)], "x_2+x_3!"),
        (&[("e_0.mcap", "/c", 0, 100), ("e_2.mcap", "/c", 300, 400)], "e_0 e_2"),
        (&[("rec_0.mcap", "/c", 0, 100), ("rec_2.mcap", "/c", 300, 400)], "rec_0+rec_2!"),
        (&[("rec_1.mcap", "/c", 0, 100)], "rec_1!"),
        (&[("run_5.mcap", "/c", 0, 100)], "run_5"),
        // A part that is read as a recording of its own, and a recorder that was killed.
        (
            &[
                ("rec_0.mcap", "/c", 0, 100),
                ("rec_1.mcap", "/d", 100, 200),
                ("rec_2.mcap", "/c", 200, 300),
            ],
            "rec_0+rec_2 rec_1",
        ),
        (
            &[
                ("run_1.mcap", "/c", 0, 100),
                ("run_2.mcap", "/c", 101, 200),
                ("run_3.mcap", "/c", 500, 600),
                ("run_4.mcap", "/c", 601, 700),
            ],
            "run_1+run_2 run_3+run_4",
        ),
        (&[("x_0.bag", "/c", 0, 100), ("x_1.bag.active", "/c", 101, 200)], "x_0+x_1"),
        // Numbers that are not those of parts.
        (&[("x_0.mcap", "/c", 0, 100), ("x_7.mcap", "/c", 101, 200)], "x_0+x_7"),
        // Recordings of equal length in equal distances.
        (
            &[
                ("e_0.mcap", "/c", 0, 300),
                ("e_1.mcap", "/c", 320, 620),
                ("e_2.mcap", "/c", 640, 940),
                ("e_3.mcap", "/c", 960, 1260),
            ],
            "e_0 e_1 e_2 e_3",
        ),
        (
            &[
                ("e_0.mcap", "/c", 0, 300),
                ("e_1.mcap", "/d", 320, 620),
                ("e_2.mcap", "/c", 640, 940),
            ],
            "e_0 e_1 e_2",
        ),
        // Dated recordings of two days; parts of the second are missing.
        (
            &[
                ("2020-01-01-10-00-00_0.bag", "/c", 0, 20),
                ("2020-01-02-10-00-00_0.bag", "/c", 864_000, 864_020),
                ("2020-01-02-10-00-02_1.bag", "/c", 864_020, 864_040),
            ],
            "2020-01-01-10-00-00_0 2020-01-02-10-00-00_0+2020-01-02-10-00-02_1",
        ),
        (
            &[
                ("2020-01-01-10-00-00_0.bag", "/c", 0, 20),
                ("2020-01-02-10-00-02_1.bag", "/c", 864_020, 864_040),
                ("2020-01-02-10-00-04_2.bag", "/c", 864_040, 864_060),
            ],
            "2020-01-01-10-00-00_0 2020-01-02-10-00-02_1+2020-01-02-10-00-04_2!",
        ),
        (
            &[
                ("2020-01-01-10-00-00_0.bag", "/d", 0, 20),
                ("2020-01-02-10-00-02_1.bag", "/c", 864_020, 864_040),
            ],
            "2020-01-01-10-00-00_0 2020-01-02-10-00-02_1!",
        ),
        // The second begins soon after the first.
        (
            &[
                ("2020-01-01-10-00-00_0.bag", "/c", 0, 600),
                ("2020-01-01-10-02-00_0.bag", "/c", 1200, 1800),
                ("2020-01-01-10-03-00_1.bag", "/c", 1800, 2400),
            ],
            "2020-01-01-10-00-00_0 2020-01-01-10-02-00_0+2020-01-01-10-03-00_1",
        ),
    ];
    for (files, expected) in table {
        assert_eq!(grouped(files), *expected, "{files:?}");
    }
}

/// Files that are there but not read, as they are damaged or have no camera, are not missing.
#[test]
fn files_that_are_not_read_are_not_missing() {
    let date = |n: u64| format!("b_2020-01-01-10-{n:02}-00_{n}.bag");
    let name = |pattern: &str, n: u64| match pattern {
        "dated" => date(n),
        _ => pattern.replace('#', &n.to_string()),
    };
    // The pattern of the names; the numbers that are read, and others that are there; what is
    // missing.
    let table: &[(&str, &[u64], &[u64], &[&str])] = &[
        ("rec_#.mcap", &[0, 2], &[1], &[]),
        ("rec_#.mcap", &[0, 4], &[1, 3], &["1 part is missing between"]),
        ("rec_#.mcap", &[2, 3], &[0, 1], &[]),
        ("rec_#.mcap", &[3], &[1], &["2 parts are missing before rec_3.mcap"]),
        ("x_#.mcap", &[0, 2], &[1], &[]),
        ("x_#.mcap", &[0, 2], &[], &["1 part is missing between"]),
        ("dated", &[0, 2], &[1], &[]),
        ("dated", &[1, 2], &[0], &[]),
        ("dated", &[3], &[1, 2], &["1 part is missing before"]),
        ("dated", &[1, 3], &[], &["1 part is missing before", "1 part is missing between"]),
    ];
    for (pattern, read, others, expected) in table {
        let at = |n: &u64| {
            let start = *n as i64 * 100;
            file(&name(pattern, *n), "/c", start, start + 95)
        };
        let present: Vec<_> = read.iter().chain(*others).map(|n| at(n).path).collect();
        let (groups, _) = group(read.iter().map(at).collect(), &present);
        let [Group { missing, .. }] = groups.as_slice() else { panic!("{groups:?}") };
        assert_eq!(missing.len(), expected.len(), "{missing:?}");
        for (text, part) in missing.iter().zip(*expected) {
            assert!(text.starts_with(part), "{text}");
        }
    }
}

/// A dated file that is not read is a part of the recording that it lies next to.
#[test]
fn unread_dated_files_belong_to_the_recording_next_to_them() {
    for (day, expected) in [(1, 1), (3, 0)] {
        let first = file("2020-01-02-10-00-00_5.bag", "/d", 0, 20);
        let second = file("2020-01-03-10-00-02_1.bag", "/c", 864_020, 864_040);
        let unread = format!("rec/2020-01-0{day}-10-00-00_0.bag").into();
        let present = [unread, first.path.clone(), second.path.clone()];
        let (groups, _) = group(vec![first, second], &present);
        assert_eq!(groups[1].missing.len(), expected, "{groups:?}");
    }
}

#[test]
fn a_slow_camera_pauses_between_parts() {
    let slow = |name, start, end| Survey { interval: 5 * SECOND, ..file(name, "/c", start, end) };
    let link = |before: &Survey, after: &Survey| {
        let name_of = |file: &Survey| Name::of(&file.path, "rec");
        link_named((before, &name_of(before)), (after, &name_of(after)), Some(&Numbered::default()))
    };
    assert_eq!(link(&slow("x_0.mcap", 0, 600), &slow("x_1.mcap", 650, 1200)), Ok(0));
    let fast = |name, start, end| file(name, "/c", start, end);
    assert!(link(&fast("x_0.mcap", 0, 600), &fast("x_1.mcap", 650, 1200)).is_err());
}

#[test]
fn a_camera_may_be_silent_in_a_part() {
    let with = |name, start, end| {
        let mut file = file(name, "/c", start, end);
        file.cameras.insert(("/d".into(), "x".into()));
        file
    };
    let link = |before: &Survey, after: &Survey| link(before, after, &[]);
    assert_eq!(link(&with("rec_0.mcap", 0, 100), &file("rec_1.mcap", "/d", 101, 200)), Ok(0));
    // In a directory that is no recording.
    let (both, one) = (with("y_0.mcap", 0, 100), file("y_1.mcap", "/d", 101, 200));
    assert_eq!(group(vec![both, one], &[]).0.len(), 2);
    let empty = Survey { span: None, ..file("rec_1.mcap", "/c", 0, 0) };
    assert_eq!(link(&file("rec_0.mcap", "/c", 0, 100), &empty), Ok(0));
}

#[test]
fn names_of_recordings() {
    for (files, expected) in [
        (&["x_0.mcap", "x_1.mcap"][..], "x"),
        (&["x_0.mcap"], "x_0"),
        (&["a.db3.zstd"], "a"),
        (&["0.bag", "1.bag"], "0"),
        (&["b.bag.active"], "b"),
    ] {
        let files: Vec<_> = files.iter().map(|name| file(name, "/c", 0, 1)).collect();
        assert_eq!(common_name(&files), expected);
    }
}
