//! Tests of times in names.
#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn one_name() {
    let date = |fraction: i64| Some(1_700_067_870_000_000_000 + fraction);
    let seconds = |fraction: i64| Some(1_700_000_000_000_000_000 + fraction);
    for (name, expected) in [
        ("1759999999999773295", Some(1_759_999_999_999_773_295)),
        ("left-1759999999999773", Some(1_759_999_999_999_773_000)),
        ("1700000000250", seconds(250_000_000)),
        ("frame_1700000000", seconds(0)),
        ("1700000000.5", seconds(500_000_000)),
        ("1700000000.05", seconds(50_000_000)),
        ("1700000000.123456789012", seconds(123_456_789)),
        ("1700000000_050000000", seconds(50_000_000)),
        ("1700000000-250000", seconds(250_000_000)),
        ("1700000000_250", seconds(250_000_000)),
        ("cam0_1700000000250", seconds(250_000_000)),
        ("1700000000250_left", seconds(250_000_000)),
        ("frame_0010_1700000000.123", seconds(123_000_000)),
        ("1700000000.1.left", seconds(100_000_000)),
        ("2023-11-15T17:04:30Z", date(0)),
        ("2023-11-15T17:04:30.25Z", date(250_000_000)),
        ("2023-11-15T18-04-30.25+01:00", date(250_000_000)),
        ("2023-11-15T18-04-30+01_00", date(0)),
        ("2023-11-15T15-34-30-0130", date(0)),
        ("2023-11-15 17.04.30,5", date(500_000_000)),
        ("IMG_20231115_170430", date(0)),
        ("cam20231115T170430.250Z", date(250_000_000)),
        ("20231115_170430_250", date(250_000_000)),
        ("2023-11-15_17-04-30-250", date(250_000_000)),
        ("20231115170430250", date(250_000_000)),
        // A counter is no fraction, and no time zone.
        ("1700000000_0012", seconds(0)),
        ("2023-11-15_17-04-30_0001", date(0)),
        ("2023-11-15_17-04-30-0001", date(0)),
        ("2023-11-15_17-04-30-1530", date(0)),
        ("IMG_20231115_170430 (1)", date(0)),
        ("9999999999999999999", None),
        ("175999999999977", None),
        ("0000000012", None),
        ("0000000000000001", None),
        ("2023-13-15T17:04:30Z", None),
        ("2023-11-15T17:64:30Z", None),
        ("202311151704302", None),
        ("2023-11-15", None),
        ("img12", None),
        ("é", None),
        ("", None),
    ] {
        let found = times(&[format!("{name}.jpg")]).unwrap();
        assert_eq!(found.map(|times| times[0]), expected, "{name}");
    }
}

#[test]
fn a_directory() {
    // The names; their times in ms from the first, or a part of the reason and whether the
    // order is unsure as well.
    type Row<'a> = (&'a [&'a str], Result<&'a [i64], (&'a str, bool)>);
    let table: &[Row<'_>] = &[
        (&["cam0_1700000010123", "cam0_1700000010150"], Ok(&[0, 27])),
        (&["1700000010123_left", "1700000010156_left"], Ok(&[0, 33])),
        (&["frame_0009_1700000010.123", "frame_0010_1700000010.15"], Ok(&[0, 27])),
        (&["1700000010.1.left", "1700000010.15.left"], Ok(&[0, 50])),
        (&["20231115_170430_1700067870123", "20231115_170430_1700067870223"], Ok(&[0, 100])),
        (&["2023-11-15_17-04-30_0001", "2023-11-15_17-04-32_0002"], Ok(&[0, 2000])),
        (&["2023-11-15_17-04-30_000", "2023-11-15_17-04-30_033"], Ok(&[0, 33])),
        (&["1700000000", "1700000000.25", "1700000001"], Ok(&[0, 250, 1000])),
        // Once in a second.
        (&["20231115_170430", "20231115_170431", "20231115_170432"], Ok(&[0, 1000, 2000])),
        // Digits after the seconds that count up, whatever the seconds.
        (
            &["20231115_170430_001", "20231115_170435_002", "20231115_170440_003"],
            Ok(&[0, 5000, 10_000]),
        ),
        (
            &["1700000000-000", "1700000001-001", "1700000002-003", "1700000003-004"],
            Ok(&[0, 1000, 2000, 3000]),
        ),
        (
            &[
                "20231115_170430_001",
                "20231115_170430_002",
                "20231115_170431_003",
                "20231115_170432_004",
            ],
            Err(("count up one by one", false)),
        ),
        // A counter of a burst that goes on, or a camera with a period of 1.001 s.
        (
            &["20231115_170430_123", "20231115_170431_124", "20231115_170432_125"],
            Err(("count up one by one", false)),
        ),
        (
            &["20231115_170430_998", "20231115_170431_999", "20231115_170432_000"],
            Err(("count up one by one", false)),
        ),
        (
            &["20231115_170430_200", "20231115_170431_199", "20231115_170432_201"],
            Ok(&[0, 999, 2001]),
        ),
        // Seconds and nanoseconds without leading zeros: the order by decimals is another one.
        (
            &["1700000000.62345678", "1700000000.612345678", "1700000000.662345678"],
            Err(("without leading zeros", true)),
        ),
        (
            &["1700000000.2345", "1700000000.52345", "1700000000.102345"],
            Err(("without leading zeros", true)),
        ),
        (&["1700000000.0", "1700000000.50000000"], Err(("without leading zeros", false))),
        // Another number, equal decimals, or a leading zero decide.
        (&["f1_1700000000.62345678", "f2_1700000000.112345678"], Ok(&[0, 50])),
        (&["1700000000.5", "1700000000.50", "1700000000.500"], Ok(&[0, 45, 495])),
        (&["1700000000.05", "1700000000.1", "1700000000.125"], Ok(&[0, 50, 75])),
        (&["1700000000", "1700000000.125", "1700000000.25"], Ok(&[0, 125, 250])),
        (&["1700000000.1234567", "1700000000.25"], Ok(&[0, 126])),
        // One moment in two forms, also with the time of another zone or a counter.
        (
            &["2023-11-14_22-13-20_1700000000900", "2023-11-14_22-13-21_1700000001000"],
            Ok(&[0, 100]),
        ),
        (
            &[
                "1700000000900_20231114_231320",
                "1700000000999_20231114_231320",
                "1700000001000_20231114_231321",
            ],
            Ok(&[0, 99, 100]),
        ),
        (
            &["20231114_221320_001_1700000000900", "20231114_221321_002_1700000001000"],
            Ok(&[0, 100]),
        ),
        (
            &["2023-11-14_22-13-20_1700000000900", "2023-11-14_22-13-22_1700000001000"],
            Err(("more than one each", true)),
        ),
        // Counters.
        (
            &["2023-11-15_17-04-30_0001", "2023-11-15_17-04-30_0002"],
            Err(("2 of 2 names state times, but some of them the same", false)),
        ),
        (
            &["1700000000_000001", "1700000000_000002", "1700000000_000003"],
            Err(("count up one by one", false)),
        ),
        (
            &["20231115_170430_001", "20231115_170430_002", "20231115_170431_003"],
            Err(("count up one by one", false)),
        ),
        (&["20231115170430001", "20231115170430002"], Err(("count up one by one", false))),
        (&["1700000000_000001", "1700000000_000003"], Err(("less than 0.5 ms", false))),
        (&["1700000000000000001", "1700000000000000002"], Err(("less than 0.5 ms", false))),
        (&["20231115_170430-0100", "20231115_170430-0115"], Err(("in different forms", true))),
        (&["20231115_170430", "20231115_170430_001"], Err(("in different forms", true))),
        // Two cameras in one directory, or two times in a name.
        (
            &["cam0_1700000010100", "cam0_1700000010200", "cam1_1700000010150"],
            Err(("another number in them differs", true)),
        ),
        (&["a_1700000010123", "b_1700000010150"], Err(("in different forms", true))),
        (
            &["1700000010123_1700000010125", "1700000010223_1700000010224"],
            Err(("more than one each", true)),
        ),
        (&["1700000010123", "1700000010125_1700000010124"], Err(("different forms", true))),
        (&["1700000010123", "cover"], Err(("1 of 2 name states a time, but not cover", true))),
    ];
    for (stems, expected) in table {
        let names: Vec<_> = stems.iter().map(|stem| format!("{stem}.png")).collect();
        match (times(&names), expected) {
            (Ok(Some(found)), Ok(expected)) => {
                let from_first = found.iter().map(|ns| (ns - found[0]) / 1_000_000);
                assert_eq!(from_first.collect::<Vec<_>>(), *expected, "{names:?}");
            }
            (Err(unsure), Err((part, is_order_unsure))) => {
                assert!(unsure.reason.contains(part), "{unsure:?}");
                assert_eq!(unsure.is_order_unsure, *is_order_unsure, "{unsure:?}");
            }
            (found, _) => panic!("{names:?}: {found:?}"),
        }
    }
    assert_eq!(times(&["a1.jpg".into(), "a2.jpg".into()]), Ok(None));
    assert_eq!(times(&[]), Ok(None));
}

proptest::proptest! {
    #[test]
    fn any_names(names in proptest::collection::vec("[-0-9._ éTZ+]{0,30}", 0..4)) {
        let _ = times(&names);
    }
}

#[test]
fn days_since_the_epoch() {
    for (date, expected) in [
        ((1970, 1, 1), 0),
        ((2000, 2, 29), 11_016),
        ((2000, 3, 1), 11_017),
        ((2023, 11, 15), 19_676),
        ((2099, 12, 31), 47_481),
    ] {
        assert_eq!(days(date.0, date.1, date.2), expected, "{date:?}");
    }
}
