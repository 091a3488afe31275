#![allow(clippy::unwrap_used)]

use encoder_core::Resolution;

use super::{
    CodedPicture, Content, StreamError, StreamReader,
    synthetic::{Order, Slice, Stream, annex_b},
};

fn picture(content: Content) -> CodedPicture {
    match content {
        Content::Picture(picture) => picture,
        Content::ParameterSets => panic!("no picture"),
    }
}

/// The result for each picture of a stream: in order, reordered, or after a gap.
fn read(stream: &Stream, slices: &[Slice]) -> String {
    let mut reader = StreamReader::new();
    let pictures = slices.iter().map(|slice| {
        let read = picture(reader.read(&stream.unit(std::slice::from_ref(slice))).unwrap());
        assert_eq!(read.is_keyframe, slice.is_idr);
        assert_eq!(read.size, Resolution::new(160, 128));
        match (read.is_reordered, read.gap) {
            (false, None) => '.',
            (true, None) => 'r',
            (false, Some(_)) => 'g',
            (true, Some(gap)) => panic!("{gap}"),
        }
    });
    pictures.collect()
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
    // frame_num 5 after 1; the low bits of the count decrease by that.
    assert_eq!(read(&stream, &[idr(), p(1, 30), p(5, 10), p(6, 12)]), "..g.");
    assert_eq!(read(&stream, &[idr(), p(1, 2), p(3, 12), b(4, 8)]), "..gr");
    // A key frame needs no earlier picture.
    assert_eq!(read(&stream, &[idr(), p(1, 2), p(2, 4), idr(), p(1, 2)]), ".....");
    let sparse = Stream { gaps_allowed: true, ..Stream::default() };
    assert_eq!(read(&sparse, &[idr(), p(1, 2), p(5, 10), p(6, 12), b(7, 14)]), ".....");
    // 16 pictures are missing: frame_num is continuous, the count of 4 bits is not. The stream
    // declares that it does not reorder.
    let declared = |reorder| Stream { order: Order::Lsb(5), reorder, ..Stream::default() };
    let slices = [idr(), p(1, 14), p(2, 30), p(3, 14), p(4, 12), p(5, 14)];
    assert_eq!(read(&declared(Some(0)), &slices), "....g.");
    assert_eq!(read(&declared(Some(1)), &slices), "....r.");
    assert_eq!(read(&declared(None), &slices), "....r.");
    // A B picture with a lower count is reordered whatever the stream declares.
    assert_eq!(read(&declared(Some(0)), &[idr(), p(1, 4), b(2, 2)]), "..r");
    // After a broken access unit the gap is expected.
    let mut reader = StreamReader::new();
    reader.read(&stream.unit(&[idr()])).unwrap();
    assert!(matches!(reader.read(&[0, 0, 1, 0x41]), Err(StreamError::Broken(_))));
    let behind = picture(reader.read(&stream.unit(&[p(5, 50)])).unwrap());
    assert_eq!((behind.is_reordered, behind.gap), (false, None));
}

#[test]
fn parameter_sets_apply_from_where_they_stand() {
    let small = Stream::default();
    let large = Stream { id: 1, size: (20, 16), ..Stream::default() };
    let idr = |pps| Slice { pps, ..Slice::idr() };
    let mut reader = StreamReader::new();
    // Alone, in an access unit of their own; slices that cannot be decoded without them do not
    // matter.
    assert!(reader.read(&small.unit(&[Slice::p(1, 2)])).is_err());
    let alone = annex_b(&[small.sps(), small.pps(0)]);
    assert_eq!(reader.read(&alone), Ok(Content::ParameterSets));
    assert!(picture(reader.read(&annex_b(&[small.slice(&idr(0))])).unwrap()).is_keyframe);
    // In a picture that is not a key frame, before and after the slice.
    let slice = small.slice(&Slice::p(1, 2));
    let read = reader.read(&annex_b(&[large.pps(7), slice, large.sps()]));
    assert_eq!(picture(read.unwrap()).size, Resolution::new(160, 128));
    let read = reader.read(&annex_b(&[large.slice(&idr(7))])).unwrap();
    assert_eq!(picture(read).size, Resolution::new(320, 256));
    assert_eq!(reader.keyframe_parameter_sets(), reader.parameter_sets());
    let all = annex_b(&[large.sps(), small.sps(), small.pps(0), large.pps(7)]);
    assert_eq!(reader.parameter_sets(), all);
    // The other parameter set cannot be used without a key frame.
    let error = reader.read(&annex_b(&[small.slice(&Slice::p(1, 2))])).unwrap_err();
    assert!(error.to_string().contains("without a key frame"), "{error}");
    // Sets are activated by a key frame; until then the same id means the same content.
    let changed = Stream { id: 1, order: Order::Decoding, ..Stream::default() };
    let p = Slice { pps: 7, ..Slice::p(1, 2) };
    let read = reader.read(&annex_b(&[changed.sps(), large.slice(&p)])).unwrap();
    assert_eq!(picture(read).size, Resolution::new(320, 256));
    let read = reader.read(&annex_b(&[changed.slice(&idr(7))])).unwrap();
    assert_eq!(picture(read).size, Resolution::new(160, 128));
}

#[test]
fn one_frame_in_each_access_unit() {
    let stream = Stream { frames_only: false, ..Stream::default() };
    let slice = |first, frame_num, lsb| Slice { first, ..Slice::p(frame_num, lsb) };
    let field = |is_bottom, lsb| Slice { field: Some(is_bottom), ..Slice::p(1, lsb) };
    let cases: &[(&str, &[&[Slice]], &str)] = &[
        ("slices of a frame", &[&[slice(0, 1, 2), slice(40, 1, 2)]], ""),
        ("in any order", &[&[slice(40, 1, 2), slice(0, 1, 2)], &[slice(40, 2, 4)]], ""),
        ("fields of a frame", &[&[field(false, 2), field(true, 3)], &[slice(0, 2, 4)]], ""),
        ("fields apart", &[&[field(false, 2)]], "fields"),
        ("two frames", &[&[slice(0, 1, 2), slice(0, 2, 4)]], "holds 2 pictures"),
        ("a frame twice", &[&[slice(0, 1, 2), slice(0, 1, 2)]], "holds 2 pictures"),
        ("a frame in pieces", &[&[slice(0, 1, 2)], &[slice(40, 1, 2)]], "spread"),
        ("a frame again", &[&[slice(0, 1, 2)], &[slice(0, 1, 2)]], ""),
    ];
    for (name, units, expected) in cases {
        let mut reader = StreamReader::new();
        reader.read(&stream.unit(&[Slice::idr()])).unwrap();
        let last = units.iter().map(|unit| reader.read(&stream.unit(unit))).last().unwrap();
        match last {
            Ok(read) => assert!(expected.is_empty() && !picture(read).is_reordered, "{name}"),
            Err(StreamError::Framing(text)) => {
                assert!(!expected.is_empty() && text.contains(expected), "{name}: {text}");
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn broken_access_units_are_named() {
    let stream = Stream::default();
    let slice = |slice: &Slice| annex_b(&[stream.slice(slice)]);
    let mut reader = StreamReader::new();
    for (unit, text) in [
        (vec![], "no picture"),
        (vec![0, 0, 1, 0x06, 0x05], "no picture"),
        (vec![0, 0, 1, 0x67, 0xff], "SPS"),
        (vec![0, 0, 1, 0x68, 0], "PPS"),
        (slice(&Slice::p(1, 2)), "before the first key frame"),
        (slice(&Slice::idr()), "PPS 0"),
        (annex_b(&[[&[0x67], &[0x42; 70_000][..]].concat()]), "70001 bytes"),
    ] {
        let error = reader.read(&unit).unwrap_err();
        assert!(matches!(&error, StreamError::Broken(t) if t.contains(text)), "{text}: {error:?}");
    }
    reader.read(&stream.unit(&[Slice::idr()])).unwrap();
    let cut = reader.read(&[0, 0, 1, 0x41, 0x80]).unwrap_err();
    assert!(cut.to_string().contains("cannot be read"), "{cut}");
    // Nothing can be predicted from a broken key frame.
    assert!(reader.read(&slice(&Slice::p(1, 2))).is_ok());
    let cut = annex_b(&[stream.slice(&Slice::idr()), vec![0x65, 0x80]]);
    assert!(reader.read(&cut).unwrap_err().to_string().contains("cannot be read"));
    let error = reader.read(&slice(&Slice::p(1, 2))).unwrap_err();
    assert!(error.to_string().contains("the key frame before it is broken"), "{error}");
    reader.read(&slice(&Slice::idr())).unwrap();
    assert!(reader.read(&slice(&Slice::p(1, 2))).is_ok());
}

proptest::proptest! {
    #[test]
    fn nothing_in_a_stream_panics(
        units in proptest::collection::vec(proptest::collection::vec(0..=255u8, 0..60), 0..6),
        changes in proptest::collection::vec((0..200usize, 0..=255u8), 0..12),
        kinds in proptest::collection::vec(0..4u8, 0..6),
    ) {
        let mut reader = StreamReader::new();
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
            let _ = reader.read(&sets);
            let _ = reader.read(&stream.unit(&[Slice::idr()]));
            let header = [0x65, 0x41, 0x01, 0x67][usize::from(kinds.get(n).copied().unwrap_or(0))];
            let _ = reader.read(&[&[0, 0, 1, header][..], unit].concat());
            let _ = reader.parameter_sets();
        }
    }
}
