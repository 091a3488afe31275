//! Bags that are read without an index: late connections, several bags in a file.

use super::*;

fn images(numbers: std::ops::Range<u32>) -> Vec<(u32, u32, Vec<u8>)> {
    numbers.map(|n| (0, n, image(n))).collect()
}

#[test]
fn messages_find_connections_that_stand_before_them_in_the_file() {
    for compression in ["none", "bz2", "lz4"] {
        // The first chunk of the file is the last in time.
        let mut bag = Bag::new(&[(0, "/cam", CAMERA)]);
        bag.chunk(compression, &images(20..30));
        bag.later_chunk(&images(0..10)).later_chunk(&images(10..20));
        // As a recorder that was killed leaves it, and complete.
        let open = bag.out.clone();
        let complete = bag.finish();
        for (bytes, is_open) in [(open, true), (unindexed(&complete), false), (complete, false)] {
            let read = read(&bytes, &Default::default()).unwrap();
            assert_eq!(read.numbers(), all(0..30), "{compression}");
            assert_eq!(read.loss(), is_open, "{compression}: {:?}", read.warnings);
        }
    }
}

#[test]
fn a_bag_that_was_never_closed_is_a_loss() {
    let bag = sample(["none", "none", "none"]).out;
    let read1 = read(&bag, &Default::default()).unwrap();
    assert_eq!(read1.numbers(), all(0..30));
    let [Warning { text, loss: true }] = &read1.warnings[..] else { panic!("{read1:?}") };
    assert!(text.contains("no index") && text.contains("not yet written"), "{text}");
    // A bag that was cut behind a whole chunk promises more chunks in its header.
    let mut bag = sample(["none", "none", "none"]);
    let second = bag.out.len();
    bag.chunk("none", &images(30..40));
    let bytes = bag.finish();
    let read2 = read(&bytes[..second], &Default::default()).unwrap();
    assert_eq!(read2.numbers(), all(0..30));
    assert!(read2.loss() && read2.warnings[0].text.contains("1 of 4 chunks"), "{read2:?}");
}

/// Bags with the same numbers of connections for other topics.
fn halves() -> [Vec<u8>; 2] {
    [("/a", 0), ("/b", 10)].map(|(topic, start)| {
        let mut bag = Bag::new(&[(0, topic, CAMERA)]);
        bag.chunk("lz4", &images(start..start + 5)).later_chunk(&images(start + 5..start + 10));
        bag.finish()
    })
}

#[test]
fn bags_one_behind_the_other() {
    let [a, b] = halves();
    for bytes in [[&a[..], &b].concat(), [&b[..], &a].concat()] {
        let read = read(&bytes, &Default::default()).unwrap();
        assert_eq!(read.numbers(), all(0..20));
        let topic = |stream: usize| read.streams[stream].0.as_str();
        assert!(read.frames.iter().all(|f| (topic(f.0) == "/a") == (f.3 < 10)), "{read:?}");
        let [Warning { text, loss: false }] = &read.warnings[..] else { panic!("{read:?}") };
        assert!(text.contains("2 bags, one behind the other"), "{text}");
    }
}

#[test]
fn a_bag_behind_one_that_is_cut() {
    let [a, b] = halves();
    let mut mixed_up = 0;
    for cut in MAGIC.len()..a.len() {
        let read = read(&[&a[..cut], &b].concat(), &Default::default()).unwrap();
        // The last record that was cut may end exactly where a record of the second begins.
        if read.warnings.iter().any(|w| w.loss && w.text.contains("connection 0 is first")) {
            mixed_up += 1;
            continue;
        }
        // All of the second, a part of the first, and no picture is that of another topic.
        let of = |topic: &str| {
            let is_of = |frame: &&(usize, u64, i64, u32)| read.streams[frame.0].0 == topic;
            read.frames.iter().filter(is_of).map(|frame| frame.3).collect::<Vec<_>>()
        };
        assert_eq!(of("/b"), all(10..20), "{cut}: {read:?}");
        assert_eq!(of("/a"), all(0..of("/a").len() as u32), "{cut}: {read:?}");
        assert!(read.loss() || read.frames.len() == 20, "{cut}: {read:?}");
    }
    assert!(mixed_up < 5, "{mixed_up}");
}

#[test]
fn a_connection_with_two_definitions_is_named() {
    let mut bag = Bag::new(&[(0, "/a", CAMERA)]);
    bag.chunk("none", &images(0..3));
    let mut other = Bag::new(&[(0, "/b", CAMERA)]);
    other.out.clear();
    other.chunk("none", &images(3..6));
    bag.out.extend(&other.out);
    let read = read(&bag.out, &Default::default()).unwrap();
    let is_named = |w: &Warning| w.loss && w.text.contains("connection 0 is first /a and then /b");
    assert!(read.warnings.iter().any(is_named), "{read:?}");
}
