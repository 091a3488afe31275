#![allow(clippy::unwrap_used)]

use encoder_core::{Resolution, nal_units};

use super::{
    CodedPicture, ReadFrame, StreamReader,
    synthetic::{Order, Slice, Stream, annex_b},
};

/// The frames of these messages, each with the number of its message.
fn frames(messages: &[Vec<u8>]) -> Vec<ReadFrame<usize>> {
    let mut reader = StreamReader::new();
    let mut frames = Vec::new();
    for (n, message) in messages.iter().enumerate() {
        reader.begin_message();
        frames.extend(nal_units(message).filter_map(|unit| reader.read(unit, &n)));
    }
    frames.extend(reader.finish());
    frames
}

fn good(frame: &ReadFrame<usize>) -> &CodedPicture {
    frame.1.as_ref().unwrap()
}

/// The result for each picture of a stream: in order, reordered, after a gap, or left out.
fn read(stream: &Stream, slices: &[Slice]) -> String {
    let messages: Vec<_> = slices.iter().map(|s| stream.unit(std::slice::from_ref(s))).collect();
    let frames = frames(&messages);
    assert_eq!(frames.len(), slices.len());
    let results = frames.iter().zip(slices).map(|((_, picture), slice)| {
        let Ok(read) = picture else { return 'x' };
        assert_eq!(read.is_keyframe, slice.is_idr);
        assert_eq!(read.size, Resolution::new(160, 128));
        match (read.is_reordered, &read.damage) {
            (false, None) => '.',
            (true, None) => 'r',
            (false, Some(_)) => 'g',
            (true, Some(gap)) => panic!("{gap}"),
        }
    });
    results.collect()
}

#[test]
fn output_order_by_the_low_bits_of_the_count() {
    let stream = Stream::default();
    let (idr, p, b) = (Slice::idr, Slice::p, Slice::b);
    let resets = |frame_num, lsb| Slice { resets: true, ..p(frame_num, lsb) };
    let cases: &[(&str, &[Slice], &str)] = &[
        ("in order", &[idr(), p(1, 2), p(2, 4), p(3, 6), idr(), p(1, 2)], "......"),
        ("I P B B", &[idr(), p(1, 6), b(2, 2), b(2, 4), p(2, 12), b(3, 8)], "..rr.r"),
        ("B slices in output order", &[idr(), b(1, 2), b(1, 4), p(1, 6)], "...."),
        ("a P picture before another", &[idr(), p(1, 4), p(2, 2)], "..r"),
        ("the count wraps around at 64", &[idr(), p(1, 30), p(2, 60), p(3, 2), p(4, 30)], "....."),
        ("and back", &[idr(), p(1, 30), p(2, 62), p(3, 4), b(4, 0)], "....r"),
        ("operation 5", &[idr(), p(1, 20), resets(2, 40), p(1, 2), p(2, 4)], "....."),
        ("behind operation 5", &[idr(), p(1, 20), resets(2, 40), p(1, 6), b(2, 2)], "....r"),
        ("equal counts", &[idr(), p(1, 2), p(2, 2)], "..."),
    ];
    for (name, slices, expected) in cases {
        assert_eq!(read(&stream, slices), *expected, "{name}");
    }
    // `delta_pic_order_cnt_bottom`: the bottom field is output first.
    let early = |frame_num, lsb, bottom| Slice { deltas: [0, bottom], ..p(frame_num, lsb) };
    assert_eq!(read(&stream, &[idr(), p(1, 8), early(2, 12, -2)]), "...");
    assert_eq!(read(&stream, &[idr(), p(1, 8), early(2, 12, -6)]), "..r");
}

#[test]
fn output_order_by_a_cycle_and_by_the_decoding_order() {
    let (idr, p, b) = (Slice::idr, Slice::p, Slice::b);
    // Reference frames are 4 apart; a non-reference picture is 2 behind its reference.
    let cycle = |non_reference| Stream {
        order: Order::Cycle { non_reference, top_to_bottom: 1, references: vec![4, 6] },
        ..Stream::default()
    };
    assert_eq!(read(&cycle(2), &[idr(), b(1, 0), p(1, 0), b(2, 0), p(2, 0)]), ".....");
    assert_eq!(read(&cycle(-2), &[idr(), p(1, 0), b(2, 0), p(2, 0), b(3, 0)]), "..r.r");
    let moved = |frame_num, delta| Slice { deltas: [delta, 0], ..p(frame_num, 0) };
    assert_eq!(read(&cycle(2), &[idr(), p(1, 0), moved(2, -5), moved(3, -10)]), "...r");
    // Frame numbers wrap around at 16.
    let long: Vec<_> = [idr()].into_iter().chain((1..40).map(|n| p(n % 16, 0))).collect();
    assert_eq!(read(&cycle(2), &long), ".".repeat(40));
    let decoding = Stream { order: Order::Decoding, ..Stream::default() };
    assert_eq!(read(&decoding, &long), ".".repeat(40));
    assert_eq!(read(&decoding, &[idr(), b(1, 0), p(1, 0), b(2, 0)]), "....");
}

#[test]
fn missing_pictures_are_reported_and_not_taken_for_another_order() {
    let (idr, p, b) = (Slice::idr, Slice::p, Slice::b);
    let stream = Stream::default();
    assert_eq!(read(&stream, &[idr(), p(1, 2), p(5, 10), p(6, 12)]), "..g.");
    assert_eq!(read(&stream, &[idr(), p(1, 2), p(3, 12), b(4, 8)]), "..gr");
    // A key frame needs no earlier picture.
    assert_eq!(read(&stream, &[idr(), p(1, 2), p(2, 4), idr(), p(1, 2)]), ".....");
    let sparse = Stream { gaps_allowed: true, ..Stream::default() };
    assert_eq!(read(&sparse, &[idr(), p(1, 2), p(5, 10), p(6, 12), b(7, 14)]), ".....");
    // After a key frame that is missing, or after so many pictures that the low bits of the count
    // decrease: left out until a decoder would display the pictures in their place.
    let after = [idr(), p(1, 8), p(2, 10), p(1, 2), p(2, 4), p(3, 6), p(4, 10), p(5, 12)];
    assert_eq!(read(&stream, &after), "...xxxx.");
    assert_eq!(read(&stream, &[idr(), p(1, 30), p(5, 10), p(6, 12), idr(), p(1, 2)]), "..xx..");
    // A message twice, or a key frame and the pictures up to the same number are missing.
    assert_eq!(read(&stream, &[idr(), p(1, 2), p(1, 2), p(2, 4)]), "..x.");
    assert_eq!(read(&stream, &[idr(), p(1, 2), p(1, 4), p(2, 6)]), "....");
    // The same where the count follows from frame_num, as FFmpeg computes it.
    let decoding = Stream { order: Order::Decoding, ..Stream::default() };
    let slices = [0, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6].map(|n| p(n, 0));
    let after = [&[idr()], &slices[1..]].concat();
    assert_eq!(read(&decoding, &after), ".....xxxx..");
    // 16 pictures are missing: frame_num is continuous, the count of 5 bits is not. The stream
    // declares that it does not reorder.
    let declared = |reorder| Stream { order: Order::Lsb(5), reorder, ..Stream::default() };
    let slices = [idr(), p(1, 14), p(2, 30), p(3, 14), p(4, 12), p(5, 14)];
    assert_eq!(read(&declared(Some(0)), &slices), "....xx");
    assert_eq!(read(&declared(Some(1)), &slices), "....r.");
    assert_eq!(read(&declared(None), &slices), "....r.");
    // A B picture with a lower count is reordered whatever the stream declares.
    assert_eq!(read(&declared(Some(0)), &[idr(), p(1, 4), b(2, 2)]), "..r");
    // After a broken picture the gap is expected.
    let broken = annex_b(&[vec![0x41]]);
    let messages = [stream.unit(&[idr()]), broken, stream.unit(&[p(5, 30)])];
    let results: Vec<_> = frames(&messages).into_iter().map(|(_, picture)| picture).collect();
    assert!(results[1].is_err());
    let behind = results[2].as_ref().unwrap();
    assert_eq!((behind.is_reordered, &behind.damage), (false, &None));
}

#[test]
fn a_key_frame_is_missed_by_its_id() {
    let stream = Stream::default();
    // The ids of key frames; `-`: a picture after a gap. The results.
    let cases: &[(&[i32], &str)] = &[
        (&[0, 1, 0, 1, 0, 1], "......"),
        (&[0, 1, 0, 1, 1, 0, 1], "....g.."),
        (&[3, 4, 5, 6, 8, 9, 9], "....g.g"),
        (&[3, 4, 5, 0, 1, 2, 3], "......."),
        (&[7, 1, 9, 4, 65535, 0], "......"),
        (&[0, 0, 1, 0, 1, 0, 0], "......."),
        (&[0, 1, 1, 0, 1, 0, 0], "......."),
        // Reported already.
        (&[0, 1, 0, 1, -1, 1, 0, 0], "....g..g"),
        (&[0; 6], "......"),
    ];
    for (ids, expected) in cases {
        let slices: Vec<_> = ids
            .iter()
            .map(|&id| match u32::try_from(id) {
                Ok(idr_id) => Slice { idr_id, ..Slice::idr() },
                Err(_) => Slice::p(7, 14),
            })
            .collect();
        assert_eq!(read(&stream, &slices), *expected, "{ids:?}");
    }
}

#[test]
fn parameter_sets_apply_from_where_they_stand() {
    let small = Stream::default();
    let large = Stream { id: 1, size: (20, 16), ..Stream::default() };
    let changed = Stream { id: 1, order: Order::Decoding, ..Stream::default() };
    let idr = |pps| Slice { pps, ..Slice::idr() };
    let p = |pps| Slice { pps, ..Slice::p(1, 2) };
    let messages = [
        // Slices that cannot be decoded without sets do not matter.
        small.unit(&[Slice::p(1, 2)]),
        annex_b(&[small.sps(), small.pps(0)]),
        annex_b(&[small.slice(&idr(0))]),
        // Around a picture that is not a key frame.
        annex_b(&[large.pps(7), small.slice(&p(0)), large.sps()]),
        annex_b(&[large.slice(&idr(7))]),
        // The other parameter set cannot be used without a key frame.
        annex_b(&[small.slice(&p(0))]),
        // Sets are activated by a key frame; until then the same id means the same content.
        annex_b(&[changed.sps(), large.slice(&p(7))]),
        annex_b(&[changed.slice(&idr(7))]),
    ];
    let frames = frames(&messages);
    assert!(frames[0].1.is_err());
    let sizes: Vec<_> = [1, 2, 3, 5, 6].map(|n| good(&frames[n]).size).to_vec();
    let (one, other) = (Resolution::new(160, 128), Resolution::new(320, 256));
    assert_eq!(sizes, [one, one, other, other, one]);
    assert_eq!(good(&frames[1]).data, annex_b(&[small.sps(), small.pps(0), small.slice(&idr(0))]));
    assert_eq!(good(&frames[1]).parameter_sets, annex_b(&[small.sps(), small.pps(0)]));
    let all = annex_b(&[large.sps(), small.sps(), small.pps(0), large.pps(7)]);
    assert_eq!(good(&frames[3]).parameter_sets, all);
    let error = frames[4].1.as_ref().unwrap_err();
    assert!(error.to_string().contains("without a key frame"), "{error}");
}

#[test]
fn nal_units_are_joined_to_frames_whatever_message_they_are_in() {
    let stream = Stream { frames_only: false, ..Stream::default() };
    let part = |first, n| stream.slice(&Slice { first, ..Slice::p(n, 2 * n) });
    let field = |is_bottom, n: u32| {
        let slice = Slice::p(n, 2 * n + u32::from(is_bottom));
        stream.slice(&Slice { field: Some(is_bottom), ..slice })
    };
    let (delimiter, note, end) = (vec![0x09, 0xf0], vec![0x06, 5, 1, 9, 0x80], vec![0x0a]);
    let [delimiter, note, end] = [&delimiter, &note, &end].map(|unit| || unit.clone());
    // The NAL units of the messages behind the key frame. For each frame: the number of its message
    // and of its NAL units, and what is missing.
    type Case<'a> = (&'a str, &'a [&'a [Vec<u8>]], &'a [(usize, usize, &'a str)]);
    let cases: &[Case<'_>] = &[
        ("slices of a frame", &[&[part(0, 1), part(40, 1)]], &[(1, 2, "")]),
        (
            "in any order",
            &[&[part(40, 1), part(0, 1)], &[part(40, 2), part(0, 2)]],
            &[(1, 2, ""), (2, 2, "")],
        ),
        (
            "two frames",
            &[&[part(0, 1), part(0, 2)], &[part(0, 3)]],
            &[(1, 1, ""), (1, 1, ""), (2, 1, "")],
        ),
        (
            "a frame in pieces",
            &[&[part(0, 1)], &[part(40, 1)], &[part(0, 2)]],
            &[(1, 2, ""), (3, 1, "")],
        ),
        (
            "pieces of two frames",
            &[&[part(0, 1)], &[part(40, 1), part(0, 2)], &[part(40, 2)]],
            &[(1, 2, ""), (2, 2, "")],
        ),
        (
            "one unit each",
            &[
                &[delimiter()],
                &[note()],
                &[part(0, 1)],
                &[part(40, 1)],
                &[delimiter()],
                &[part(0, 2)],
            ],
            &[(3, 4, ""), (6, 2, "")],
        ),
        (
            "a delimiter behind",
            &[&[part(0, 1), delimiter()], &[part(0, 2), delimiter()]],
            &[(1, 1, ""), (2, 2, "")],
        ),
        ("delimiters between slices", &[&[part(0, 1), delimiter(), part(40, 1)]], &[(1, 2, "")]),
        (
            "the end of a sequence",
            &[&[part(0, 1), end()], &[part(0, 2)]],
            &[(1, 2, ""), (2, 1, "")],
        ),
        (
            "fields of a frame",
            &[&[field(false, 1), field(true, 1)], &[part(0, 2)]],
            &[(1, 2, ""), (2, 1, "")],
        ),
        (
            "fields apart",
            &[&[field(true, 1)], &[field(false, 1)], &[part(0, 2)]],
            &[(1, 2, ""), (3, 1, "")],
        ),
        (
            "a lost field",
            &[&[field(false, 1)], &[field(false, 2)], &[field(true, 2)]],
            &[(1, 1, "fields"), (2, 2, "")],
        ),
        ("a lost slice", &[&[part(40, 1)], &[part(0, 2)]], &[(1, 1, "first slice"), (2, 1, "")]),
    ];
    for (name, messages, expected) in cases {
        let key = stream.unit(&[Slice::idr()]);
        let messages: Vec<_> =
            [key].into_iter().chain(messages.iter().map(|m| annex_b(m))).collect();
        let frames = frames(&messages);
        let got: Vec<_> = frames[1..]
            .iter()
            .map(|frame| {
                let picture = good(frame);
                assert!(!picture.is_reordered, "{name}");
                let damage = picture.damage.clone().unwrap_or_default();
                (frame.0, nal_units(&picture.data).count(), damage)
            })
            .collect();
        assert_eq!(got.len(), expected.len(), "{name}: {got:?}");
        for ((message, units, damage), expected) in got.iter().zip(*expected) {
            assert_eq!((*message, *units), (expected.0, expected.1), "{name}: {got:?}");
            assert_eq!(damage.is_empty(), expected.2.is_empty(), "{name}: {damage}");
            assert!(damage.contains(expected.2), "{name}: {damage}");
        }
    }
}

#[test]
fn broken_frames_are_named() {
    let stream = Stream::default();
    let (idr, p) = (stream.unit(&[Slice::idr()]), annex_b(&[stream.slice(&Slice::p(1, 2))]));
    let alone = annex_b(&[stream.slice(&Slice::idr())]);
    let sets = annex_b(&[stream.sps(), stream.pps(0)]);
    let cut = |header| annex_b(&[vec![header, 0x80]]);
    // Messages, and the error of each frame.
    let cases: &[(&[&Vec<u8>], &[&str])] = &[
        (&[&sets, &vec![0, 0, 1, 0x06, 0x05]], &[]),
        (&[&annex_b(&[vec![0x67, 0xff]]), &idr, &p], &["SPS", "key frame before it is broken"]),
        (&[&idr, &annex_b(&[vec![0x68, 0]]), &p], &["", "PPS"]),
        (&[&p, &p, &idr], &["before the first key frame", "before the first key frame", ""]),
        (&[&alone], &["PPS 0"]),
        (&[&annex_b(&[[&[0x67], &[0x42; 70_000][..]].concat()]), &idr], &["70001 bytes"]),
        (&[&idr, &cut(0x41), &p], &["", "cannot be read", ""]),
        // Nothing can be predicted from a broken key frame.
        (
            &[&idr, &[&alone[..], &cut(0x65)].concat(), &p, &idr, &p],
            &["", "cannot be read", "the key frame before it is broken", "", ""],
        ),
    ];
    for (messages, expected) in cases {
        let messages: Vec<_> = messages.iter().map(|message| (*message).clone()).collect();
        let errors: Vec<_> = frames(&messages)
            .into_iter()
            .map(|(_, picture)| picture.err().map(|e| e.to_string()).unwrap_or_default())
            .collect();
        assert_eq!(errors.len(), expected.len(), "{errors:?}");
        for (error, expected) in errors.iter().zip(*expected) {
            assert_eq!(error.is_empty(), expected.is_empty(), "{errors:?}");
            assert!(error.contains(expected), "{errors:?}");
        }
    }
}

#[test]
fn what_stands_in_front_of_no_frame_needs_no_more_memory_than_a_frame() {
    let stream = Stream::default();
    let note = [&[0x06, 5][..], &[0x55; 1 << 20]].concat();
    let mut messages = vec![annex_b(&[stream.sps(), stream.pps(0)])];
    messages.extend(std::iter::repeat_n(annex_b(&[note]), 20));
    messages.push(annex_b(&[stream.slice(&Slice::idr())]));
    let frames = frames(&messages);
    let data = &good(&frames[0]).data;
    assert!(data.len() < 5 << 20 && data.starts_with(&messages[0]), "{} bytes", data.len());
}

proptest::proptest! {
    #[test]
    fn nothing_in_a_stream_panics(
        units in proptest::collection::vec(proptest::collection::vec(0..=255u8, 0..60), 0..6),
        changes in proptest::collection::vec((0..200usize, 0..=255u8), 0..12),
        kinds in proptest::collection::vec(0..4u8, 0..6),
    ) {
        let mut reader = StreamReader::new();
        let mut read = |message: &[u8]| {
            reader.begin_message();
            nal_units(message).for_each(|unit| drop(reader.read(unit, &())));
            let _ = reader.parameter_sets();
        };
        let order = Order::Cycle { non_reference: -2, top_to_bottom: 1, references: vec![4, 6] };
        let streams = [Stream::default(), Stream { order, frames_only: false, ..Stream::default() }];
        for (n, unit) in units.iter().enumerate() {
            let stream = &streams[n % 2];
            // Broken parameter sets, and slices of pictures behind good ones.
            let mut sets = annex_b(&[stream.sps(), stream.pps(0)]);
            for (at, value) in &changes {
                if let Some(byte) = sets.get_mut(*at) {
                    *byte = *value;
                }
            }
            read(&sets);
            read(&stream.unit(&[Slice::idr()]));
            let header = [0x65, 0x41, 0x01, 0x67][usize::from(kinds.get(n).copied().unwrap_or(0))];
            read(&[&[0, 0, 1, header][..], unit].concat());
        }
        let _ = reader.finish();
    }
}
