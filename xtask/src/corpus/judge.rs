//! Compares a conversion with the expected contents. Accesses no files.

use super::{
    expected::{Outcome, Topic},
    recorded::Times,
    video::{Picture, Video},
};

/// The largest deviation of a mean colour after 4:2:0 and H.264.
const COLOUR: f64 = 10.0;

/// The report's entries for the videos of one topic, in order: several if the size of the pictures
/// changes.
pub struct Made {
    pub videos: Vec<Video>,
    /// The recorded time of the first frame of each video, in nanoseconds.
    pub starts_ns: Vec<i64>,
    pub frames_encoded: usize,
    pub frames_repeated: usize,
}

/// Whether the exit code is correct. `videos` is the number of video files.
pub fn exit(outcome: Outcome, code: i32, warned: bool, videos: usize) -> Result<(), String> {
    let fits = match outcome {
        Outcome::Ok => code == 0,
        Outcome::OkWithWarnings => code == 3 || (code == 0 && warned),
        Outcome::Error => code == 1 && videos == 0,
        Outcome::Policy => matches!(code, 0 | 1 | 3),
    };
    if fits {
        return Ok(());
    }
    Err(format!("exit code {code} with {videos} videos where {} was expected", outcome.as_str()))
}

/// The faults in the videos of one topic. `skip`: broken frames were left out, instead of being
/// replaced by a repetition.
pub fn topic(expected: &Topic, made: &Made, skip: bool) -> Vec<String> {
    let mut faults = Vec::new();
    for video in &made.videos {
        if video.times_ns.len() != video.pictures.len() {
            faults.push(format!(
                "{} packets but {} pictures",
                video.times_ns.len(),
                video.pictures.len()
            ));
        }
        if !video.times_ns.windows(2).all(|w| w[0] < w[1]) {
            faults.push("presentation times do not increase".into());
        }
    }
    let shown = in_order(made);
    if shown.len() != made.frames_encoded {
        faults.push(format!("{} pictures, {} reported", shown.len(), made.frames_encoded));
    }
    let repeats = if skip { 0 } else { made.frames_repeated };
    if shown.len() != expected.usable_frames + repeats {
        faults.push(format!(
            "{} pictures for {} usable frames and {repeats} repeats",
            shown.len(),
            expected.usable_frames
        ));
    }
    match originals(expected, &shown, repeats) {
        Ok(originals) => faults.extend(colours(expected, &originals)),
        Err(fault) => faults.push(fault),
    }
    faults
}

/// The pictures of all videos by their recorded times: a size that returns continues its video.
fn in_order(made: &Made) -> Vec<Picture> {
    let mut shown = Vec::new();
    for (n, video) in made.videos.iter().enumerate() {
        // Without recorded times, in the order of the videos.
        let start = made.starts_ns.get(n).copied().unwrap_or(n as i64);
        let times = video.times_ns.iter().map(|time| start + time);
        shown.extend(times.zip(&video.pictures).map(|(time, picture)| (time, *picture)));
    }
    shown.sort_by_key(|(time, _)| *time);
    shown.into_iter().map(|(_, picture)| picture).collect()
}

/// Removes the repetitions and compares the bar codes, if there are any.
fn originals(expected: &Topic, shown: &[Picture], repeats: usize) -> Result<Vec<Picture>, String> {
    let orders = [Some(&expected.bars_by_log), expected.bars_by_stamp.as_ref()];
    let orders: Vec<_> =
        orders.into_iter().flatten().filter(|o| o.first().is_some_and(Option::is_some)).collect();
    if orders.is_empty() {
        return Ok(shown.to_vec());
    }
    let mut originals: Vec<Picture> = shown.to_vec();
    if repeats > 0 {
        originals.dedup_by_key(|picture| picture.bar);
    }
    let bars: Vec<_> = originals.iter().map(|picture| picture.bar).collect();
    if orders.iter().any(|order| **order == bars) {
        return Ok(originals);
    }
    let order = orders[0];
    let at = bars.iter().zip(order).position(|(a, b)| a != b);
    let at = at.unwrap_or(bars.len().min(order.len()));
    let name = |bar: Option<&Option<u32>>| match bar {
        Some(Some(number)) => format!("frame {number}"),
        Some(None) => "an unreadable bar code".into(),
        None => "the end".into(),
    };
    Err(format!("picture {at} shows {} where {} belongs", name(bars.get(at)), name(order.get(at))))
}

/// Precision of times in a video: a long gap makes them coarser than a nanosecond.
const PRECISION_NS: i64 = 1_000;

/// Compares the times of the frames with the recorded times, in the order of log times: each frame
/// of the videos has the time of a message, all by the same clock. If no frame is repeated or left
/// out, it is the time of its own message. Without a warning the clock is that of the header stamps
/// if the messages have stamps; with a warning either clock is right, and times may be repaired.
pub fn times(recorded: &[Times], made: &Made, is_silent: bool) -> Result<(), String> {
    let mut shown = Vec::new();
    for (video, start) in made.videos.iter().zip(&made.starts_ns) {
        shown.extend(video.times_ns.iter().map(|time| start + time));
    }
    shown.sort_unstable();
    if shown.len() != made.frames_encoded {
        return Err(format!("{} frames have a known time", shown.len()));
    }
    let stamps: Option<Vec<i64>> = recorded.iter().map(|(_, stamp)| *stamp).collect();
    let logs: Vec<i64> = recorded.iter().map(|(log, _)| *log).collect();
    let clocks = match (stamps, is_silent) {
        (Some(stamps), true) => vec![stamps],
        (Some(stamps), false) => vec![stamps, logs],
        (None, _) => vec![logs],
    };
    let mut fault = String::new();
    for mut clock in clocks {
        clock.sort_unstable();
        match unmatched(&shown, &clock) {
            None => return Ok(()),
            Some(n) => fault = format!("frame {n} has a time that no message has"),
        }
    }
    // What was repaired was reported.
    if is_silent { Err(format!("{fault}, without a warning")) } else { Ok(()) }
}

/// The first time that is not in `clock`, of which each entry may be used once. Both are sorted.
fn unmatched(shown: &[i64], clock: &[i64]) -> Option<usize> {
    let mut rest = clock.iter();
    shown.iter().position(|time| !rest.any(|known| (known - time).abs() <= PRECISION_NS))
}

fn colours(expected: &Topic, originals: &[Picture]) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, mean) in &expected.mean_rgb {
        let (Some(mean), Some(picture)) = (mean, originals.get(*index)) else { continue };
        let differences = picture.mean_rgb.iter().zip(mean).map(|(a, b)| (a - b).abs());
        let off = differences.fold(0.0, f64::max);
        if off >= COLOUR {
            let got = picture.mean_rgb.map(f64::round);
            faults.push(format!("picture {index}: mean colour {got:?}, expected {mean:?}"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(bars: &[u32], repeated: usize) -> Made {
        let pictures: Vec<_> =
            bars.iter().map(|&bar| Picture { bar: Some(bar), mean_rgb: [10.0; 3] }).collect();
        let times_ns = (0..bars.len() as i64).collect();
        Made {
            frames_encoded: bars.len(),
            frames_repeated: repeated,
            videos: vec![Video { times_ns, pictures }],
            starts_ns: vec![0],
        }
    }

    fn expected(bars: &[u32], messages: usize) -> Topic {
        Topic {
            messages,
            usable_frames: bars.len(),
            bars_by_log: bars.iter().copied().map(Some).collect(),
            ..Topic::default()
        }
    }

    #[test]
    fn exit_codes() {
        use Outcome::{Error, Ok as Fine, OkWithWarnings, Policy};
        for (outcome, code, warned, videos, fits) in [
            (Fine, 0, false, 1, true),
            (Fine, 3, false, 1, false),
            (OkWithWarnings, 3, false, 1, true),
            (OkWithWarnings, 0, true, 1, true),
            (OkWithWarnings, 0, false, 1, false),
            (Error, 1, false, 0, true),
            (Error, 1, false, 1, false),
            (Error, 0, false, 0, false),
            (Policy, 1, false, 0, true),
            (Policy, 101, false, 0, false),
        ] {
            assert_eq!(exit(outcome, code, warned, videos).is_ok(), fits, "{outcome:?} {code}");
        }
    }

    #[test]
    fn every_picture_must_be_the_right_one() {
        for (bars, repeated, skip, sound) in [
            (&[0, 1, 3][..], 0, true, true),
            (&[0, 1, 1, 3], 1, false, true),
            (&[0, 1, 1, 3], 1, true, false),
            (&[0, 1, 1, 3], 0, false, false),
            (&[0, 3, 1], 0, false, false),
            (&[0, 1], 0, false, false),
            (&[0, 1, 3, 4], 0, false, false),
        ] {
            let faults = topic(&expected(&[0, 1, 3], 4), &made(bars, repeated), skip);
            assert_eq!(faults.is_empty(), sound, "{bars:?}: {faults:?}");
        }
        let mut either = expected(&[0, 1, 2], 3);
        either.bars_by_stamp = Some([2, 1, 0].map(Some).to_vec());
        assert!(topic(&either, &made(&[2, 1, 0], 0), false).is_empty());
    }

    #[test]
    fn every_frame_must_have_the_time_of_a_message() {
        const S: i64 = 1_000_000_000;
        let video = |times: &[i64]| {
            let mut made = made(&vec![0; times.len()], 0);
            made.starts_ns = vec![times[0]];
            made.videos[0].times_ns = times.iter().map(|time| time - times[0]).collect();
            made
        };
        let recorded = [(10 * S, Some(S)), (11 * S, Some(2 * S)), (12 * S, Some(4 * S))];
        for (times, is_silent, is_right) in [
            (&[S, 2 * S, 4 * S][..], true, true),
            (&[S, 2 * S + 900, 4 * S], true, true),
            // A frame was left out, or has the time of another clock or of no message.
            (&[S, 4 * S], true, true),
            (&[10 * S, 11 * S, 12 * S], true, false),
            (&[10 * S, 11 * S, 12 * S], false, true),
            (&[S, 3 * S, 4 * S], true, false),
            (&[S, S, 4 * S], true, false),
            (&[S, 3 * S, 4 * S], false, true),
        ] {
            let judged = super::times(&recorded, &video(times), is_silent);
            assert_eq!(judged.is_ok(), is_right, "{times:?} {is_silent}: {judged:?}");
        }
        let unstamped = recorded.map(|(log, _)| (log, None));
        assert!(super::times(&unstamped, &video(&[10 * S, 11 * S]), true).is_ok());
    }

    #[test]
    fn times_counts_and_colours_are_looked_at() {
        let mut stuck = made(&[0, 1], 0);
        stuck.videos[0].times_ns = vec![5, 5];
        assert!(topic(&expected(&[0, 1], 2), &stuck, false)[0].contains("times"));
        let mut boastful = made(&[0, 1], 0);
        boastful.frames_encoded = 3;
        assert!(topic(&expected(&[0, 1], 2), &boastful, false)[0].contains("3 reported"));
        let mut tinted = expected(&[0, 1], 2);
        tinted.mean_rgb.insert(1, Some([10.0, 30.0, 10.0]));
        assert!(topic(&tinted, &made(&[0, 1], 0), false)[0].contains("mean colour"));
    }
}
