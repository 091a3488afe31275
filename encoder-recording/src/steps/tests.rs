use super::*;

const MS: i64 = 1_000_000;

/// Number of the message, step back, and shift of each step of a topic, in ms.
fn steps(times_ms: impl IntoIterator<Item = i64>) -> Vec<(u64, i64, i64)> {
    let found = found(times_ms.into_iter().map(|time| ("/cam", time)));
    found.steps.iter().map(|step| (step.message, step.by / MS, step.shift / MS)).collect()
}

fn found(messages: impl IntoIterator<Item = (&'static str, i64)>) -> ClockSteps {
    let mut times = LogTimes::default();
    for (n, (topic, time)) in (0..).zip(messages) {
        times.push(origin(topic), (0, n), time * MS);
    }
    times.steps()
}

fn origin(topic: &str) -> Origin<'_> {
    Origin { topic, is_camera: topic.starts_with("/cam"), part: 0, channel: 0 }
}

fn period(first: i64, count: i64) -> impl Iterator<Item = i64> + Clone {
    (0..count).map(move |n| first + n * 50)
}

const NONE: [(u64, i64, i64); 0] = [];

#[test]
fn a_clock_that_is_set_is_told_from_messages_stored_in_another_order() {
    assert_eq!(steps(period(0, 200)), NONE);
    // Half a distance off, and a multiple of it.
    assert_eq!(steps(period(0, 120).chain(period(975, 80))), [(120, 4975, 5025)]);
    assert_eq!(steps(period(0, 120).chain(period(1000, 80))), [(120, 4950, 5000)]);
    // Twice, and the second step reaches behind the first.
    let twice = period(10_000, 60).chain(period(11_000, 60)).chain(period(9000, 60));
    assert_eq!(steps(twice), [(60, 1950, 2000), (120, 4950, 7000)]);
    // By more than the recording is long.
    let far = period(3_600_000, 40).chain(period(0, 40));
    assert_eq!(steps(far), [(40, 3_601_950, 3_602_000)]);
    // A pause is no step, and does not hide one.
    let pause = period(0, 40).chain(period(9000, 40));
    assert_eq!(steps(pause.clone()), NONE);
    assert_eq!(steps(pause.chain(period(8975, 40))), [(80, 1975, 2025)]);
    // By four distances, in a long recording.
    assert_eq!(steps(period(0, 1000).chain(period(49_780, 1000))), [(1000, 170, 220)]);
    // Late messages do not hide a step.
    let late = |n: i64| {
        if n % 50 == 7 {
            n + 1
        } else if n % 50 == 8 {
            n - 1
        } else {
            n
        }
    };
    let set = |n: i64| n * 50 - if n < 400 { 0 } else { 4975 };
    assert_eq!(steps((0..800).map(late).map(set)), [(400, 4925, 4975)]);
}

#[test]
fn messages_stored_in_another_order_are_no_steps() {
    // Blocks.
    assert_eq!(steps(period(2000, 40).chain(period(0, 40))), NONE);
    let swapped = period(1000, 20).chain(period(0, 20));
    let swapped = swapped.chain(period(3000, 20)).chain(period(2000, 20));
    assert_eq!(steps(swapped), NONE);
    for len in [5, 20, 200] {
        let blocks = (0..37).flat_map(|n| period((n * 11) % 37 * len * 50, len));
        assert_eq!(steps(blocks), NONE, "{len}");
        // A block that was stored late.
        let late = period(0, 300).chain(period((300 + len) * 50, 100)).chain(period(15_000, len));
        assert_eq!(steps(late.chain(period((400 + len) * 50, 300))), NONE, "{len}");
    }
    // Single messages that were stored late.
    let late = period(1000, 40).chain([0]).chain(period(3000, 40)).chain([50]);
    assert_eq!(steps(late), NONE);
    assert_eq!(steps(period(0, 40).chain([975]).chain(period(2000, 40))), NONE);
    let two = period(0, 40).chain([2050, 2000]).chain(period(2100, 40));
    assert_eq!(steps(two), NONE);
    let three = period(0, 40).chain([2050, 2100, 2000]).chain(period(2150, 40));
    assert_eq!(steps(three), NONE);
    // A message of the future.
    assert_eq!(steps(period(0, 40).chain([9000]).chain(period(2050, 40))), NONE);
    // Messages that were shuffled.
    assert_eq!(steps((0..200).map(|n| (n * 7919) % 200 * 50)), NONE);
    assert_eq!(steps((0..200).map(|n| (n ^ 1) * 50)), NONE);
    assert_eq!(steps([5, 4, 3]), NONE);
    assert_eq!(steps([]), NONE);
}

#[test]
fn pauses_do_not_hide_a_step() {
    for len in [5, 20] {
        // Bursts with pauses of 10 s, and the clock is set back by 34 s.
        let burst = |n: i64| period(n * 11_000 - if n < 70 { 0 } else { 34_000 }, len);
        let found = steps((0..140).flat_map(burst));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0, found[0].1), (70 * len as u64, 23_000 + (len - 1) * 50));
    }
}

#[test]
fn the_clock_is_that_of_all_topics() {
    let clock = |time: i64, by: i64| if time < 20_000 { time } else { time - by };
    // At these distances, by this much.
    for (distances, by) in [
        (&[("/cam/slow", 2000)][..], 7000),
        (&[("/cam/slow", 2000), ("/cam", 50)], 5000),
        (&[("/cam/slow", 2000), ("/cam", 50)], 3000),
        (&[("/cam/slow", 2000), ("/imu", 20)], 3000),
        // Each of them has one message twice.
        (&[("/cam/1", 2000), ("/cam/2", 2000), ("/cam/3", 2000), ("/cam/4", 2000)], 2700),
    ] {
        let mut messages: Vec<(i64, &str)> = Vec::new();
        for (n, (topic, distance)) in (0..).zip(distances) {
            messages.extend((0..40_000 / distance).map(|m| (m * distance + n * 131, *topic)));
        }
        messages.sort_unstable();
        let found = found(messages.iter().map(|(time, topic)| (*topic, clock(*time, by))));
        let first = messages.partition_point(|(time, _)| *time < 20_000) as u64;
        assert_eq!(found.steps.len(), 1, "{distances:?} {found:?}");
        assert!(found.doubts.is_empty(), "{found:?}");
        // All topics are in the order of the recording.
        for topic in distances.iter().map(|(topic, _)| *topic) {
            let of_topic = (0..).zip(&messages).filter(|(_, message)| message.1 == topic);
            let times: Vec<_> =
                of_topic.map(|(n, m)| clock(m.0, by) * MS + found.shift((0, n))).collect();
            assert!(times.is_sorted(), "{topic} {distances:?} {found:?}");
        }
        assert!(found.steps[0].place.1 >= first && found.steps[0].place.1 < first + 3);
    }
}

#[test]
fn a_topic_whose_log_times_do_not_step_is_heard() {
    // The messages of a slow topic were stored late.
    let messages = (0..400).flat_map(|n| {
        let late = [(200, 3), (203, 5), (206, 7), (209, 9)];
        let late = late.iter().find(|(at, _)| *at == n).map(|(_, m)| ("/cam/slow", m * 900));
        let slow = (n % 40 == 0).then_some(("/cam/slow", n * 50));
        [Some(("/cam", n * 50)), slow, late].into_iter().flatten().collect::<Vec<_>>()
    });
    let found = found(messages);
    assert!(found.is_empty() && found.doubts.is_empty(), "{found:?}");
}

#[test]
fn a_step_that_cannot_be_told_is_said() {
    // The second of two messages may have been stored late.
    let found = found([0, 2000, 4000, 6000, 8000, 10_000, 7500, 9500, 11_500].map(|t| ("/cam", t)));
    assert!(found.is_empty());
    let said: Vec<_> = found.warnings().collect();
    assert!(said.len() == 1 && said[0].contains("it is not known"), "{said:?}");
}

#[test]
fn a_long_recording_is_thinned_out() {
    let mut times = LogTimes::default();
    let (count, set) = (400_000, 300_001);
    for n in 0..count {
        let time = n * 50 - if n < set { 0 } else { 9975 };
        times.push(origin("/cam"), (n as u64, 0), time * MS);
    }
    let found = times.steps();
    assert_eq!(found.steps.len(), 1, "{found:?}");
    assert_eq!((found.steps[0].message, found.steps[0].by / MS), (set as u64, 9925));
    assert!(times.topics["/cam"].tracks()[0].times().len() <= 1 << 17);
}

#[test]
fn distances_may_vary() {
    // Distances from 35 to 65 ms, by a generator of random numbers.
    let mut state = 7u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    for round in 0..30 {
        let mut time = 1_000_000;
        let mut next = || {
            time += 35 + random(30) as i64;
            time
        };
        let times: Vec<_> = (0..400).map(|_| next()).collect();
        let mut late = times.clone();
        for _ in 0..5 {
            let message = late.remove(random(360) as usize);
            late.insert(random(399) as usize, message);
        }
        assert!(steps(late).is_empty(), "{round}");
        let mut blocks: Vec<_> = times.chunks(10 + random(40) as usize).collect();
        let count = blocks.len() as u64;
        (0..count).for_each(|n| blocks.swap(n as usize, random(count) as usize));
        assert_eq!(steps(blocks.concat()), NONE, "{round}");
        let (at, by) = (100 + random(200) as usize, 300 + random(4000) as i64);
        let set = (0..).zip(&times).map(|(n, time)| time - if n < at { 0 } else { by });
        let found = steps(set.collect::<Vec<_>>());
        assert!(matches!(found[..], [(message, ..)] if message == at as u64), "{round}: {found:?}");
    }
}

#[test]
fn a_step_at_the_beginning_of_a_long_recording() {
    let hour = 3_600_000;
    for by in [hour / 6, hour, 3 * hour] {
        let set = period(by, 150).chain(period(150 * 50, 1650));
        assert_eq!(steps(set), [(150, by - 50, by)], "{by}");
    }
    // The clock is wrong for a while.
    for count in [60, 9] {
        let wrong = period(0, 200).chain(period(hour, count));
        assert_eq!(steps(wrong.chain(period((200 + count) * 50, 400))).len(), 1, "{count}");
    }
    // For a short one, it may also be that the messages are of another time.
    for count in [1, 5] {
        let wrong = period(0, 200).chain(period(hour, count));
        let wrong = wrong.chain(period((200 + count) * 50, 400));
        let found = found(wrong.map(|time| ("/cam", time)));
        assert!(found.is_empty() && found.doubts.len() == 1, "{count} {found:?}");
    }
}

#[test]
fn blocks_that_continue_each_other_are_a_doubt() {
    // The second block is longer than what is compared.
    for (start, second) in [(2000, 40), (82_500, 1650)] {
        let blocks = period(start, 40).chain(period(0, second));
        let found = found(blocks.map(|time| ("/cam", time)));
        let said: Vec<_> = found.warnings().collect();
        assert!(said.len() == 1 && said[0].contains("are mixed up"), "{said:?}");
    }
}

/// The steps of messages of `/cam`: part, channel, log time.
fn steps_of(messages: impl IntoIterator<Item = (usize, u64, i64)>) -> ClockSteps {
    let mut times = LogTimes::default();
    for (n, (part, channel, time)) in (0..).zip(messages) {
        times.push(Origin { part, channel, ..origin("/cam") }, (part as u64, n), time * MS);
    }
    times.steps()
}

#[test]
fn recordings_one_behind_the_other_are_no_step_unless_they_mix() {
    let parts = |first: i64, second: i64| {
        // The channels have other numbers in the second part.
        let part = move |part, start| period(start, 100).map(move |time| (part, part as u64, time));
        steps_of(part(0, first).chain(part(1, second)))
    };
    for (first, second) in [(70_000, 0), (5000, 0), (0, 70_000)] {
        let found = parts(first, second);
        assert!(found.is_empty() && found.doubts.is_empty(), "{first} {found:?}");
    }
    assert_eq!(parts(0, 2025).steps.len(), 1);
    // The clock was set within the first.
    let set = period(900_000, 200).chain(period(880_015, 100));
    let found = steps_of(set.map(|t| (0, 0, t)).chain(period(0, 400).map(|t| (1, 0, t))));
    assert_eq!(found.steps.len(), 1, "{found:?}");
}

#[test]
fn publishers_that_are_stored_in_runs_are_no_step() {
    let runs = |by: i64| {
        let run = move |run: i64, channel: i64| {
            let start = run * 1000 + channel * 33 - if run < 6 { 0 } else { by };
            (0..15).map(move |n| (0, channel as u64, start + n * 66))
        };
        steps_of((0..12).flat_map(move |n| run(n, 0).chain(run(n, 1))))
    };
    let found = runs(0);
    assert!(found.is_empty() && found.doubts.is_empty(), "{found:?}");
    // The clock is that of both.
    let found = runs(3_600_000);
    assert_eq!(found.steps.len(), 1, "{found:?}");
}

#[test]
fn a_step_between_blocks_is_found_in_any_order() {
    let block = |start: i64| {
        let mut times = LogTimes::default();
        for (n, time) in (0..).zip(period(start, 10)) {
            times.push(origin("/cam"), (0, n), time * MS);
            times.push(origin("/tf"), (0, n), -time * MS);
        }
        times
    };
    let added = |order: [usize; 3], starts: [i64; 3]| {
        let mut blocks = BlockTimes::default();
        let text = order.map(|n| blocks.add(n as u64, &format!("block {n}"), &block(starts[n])));
        text.into_iter().flatten().collect::<Vec<_>>()
    };
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        assert_eq!(added(order, [0, 500, 1000]), [""; 0]);
        let said = added(order, [0, 500, 250]);
        assert!(said.iter().any(|text| text.contains("/cam: the log times step back")), "{said:?}");
    }
}

#[test]
fn any_log_times_are_examined() {
    let m = i64::MAX / MS;
    let _ = steps([0, m, 5, m, m, m, m, m]);
    let _ = steps([m, 0, m, 0, -m, m, m, 1]);
}

#[test]
fn another_topic_does_not_outweigh_cameras() {
    // 15 messages of each of two publishers were stored in blocks, in one topic.
    let mut messages: Vec<(i64, &str)> = Vec::new();
    for (n, (topic, distance)) in (0..).zip([("/cam/1", 33), ("/cam/2", 33), ("/imu", 5)]) {
        messages.extend((0..10_000 / distance).map(|m| (m * distance + n, topic)));
    }
    let is_late = |time: i64| (5000..5150).contains(&time);
    let tf = |offset: i64| (0..1000).map(move |n| (n * 10 + offset, "/tf"));
    messages.extend(tf(3).chain(tf(4)).filter(|(time, _)| !is_late(*time)));
    messages.sort_unstable();
    let late = tf(4).chain(tf(3)).filter(|(time, _)| is_late(*time));
    let at = messages.partition_point(|(time, _)| *time < 5150);
    messages.splice(at..at, late);
    let found = found(messages.into_iter().map(|(time, topic)| (topic, time)));
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn steps_beyond_those_that_are_listed_are_counted() {
    let found = found((0..6).flat_map(|n| period(-n * 1025, 100)).map(|time| ("/cam", time)));
    let said: Vec<_> = found.warnings().collect();
    assert!(said.len() == 3 && said[2].ends_with("and 2 more steps like this"), "{said:?}");
}
