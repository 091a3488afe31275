//! Videos that accept no more frames, until they are complete.

use std::collections::VecDeque;

use encoder_media::StreamId;

use crate::{
    error::RunError,
    part::{ClosedPart, Notes, Pending},
    report::Output,
    session::{SessionError, VideoReport},
};

/// The most closing videos of one camera. Each still has its encoder.
const MOST_OF_CAMERA: usize = 2;
/// The most closing videos of a run.
const MOST: usize = 4;

/// The videos of a run that accept no more frames. Their encoders run until everything is written.
/// At most [`MOST`] videos are closing at once, so that the number of encoders stays bounded
/// however often the size of the pictures changes. Dropping the list leaves no file of a video that
/// is not complete.
#[derive(Default)]
pub(crate) struct Closings {
    /// In the order in which they were closed.
    running: VecDeque<ClosedPart>,
    ended: Vec<((StreamId, usize), Output)>,
}

impl Closings {
    /// Adds a video. Waits for the oldest videos while there are too many.
    pub fn push(&mut self, part: ClosedPart) {
        let camera = part.camera;
        self.push_without_waiting(part);
        while self.running.iter().filter(|part| part.camera == camera).count() > MOST_OF_CAMERA {
            let oldest = self.running.iter().position(|part| part.camera == camera);
            self.join(oldest.unwrap_or(0));
        }
        while self.running.len() > MOST {
            self.join(0);
        }
    }

    /// Adds a video at the end of a run, when all encoders end in parallel.
    pub fn push_without_waiting(&mut self, part: ClosedPart) {
        match part.result {
            Ok(Pending::Session(_)) => self.running.push_back(part),
            _ => self.ended.push((part.camera, output(part))),
        }
    }

    fn join(&mut self, n: usize) {
        if let Some(part) = self.running.remove(n) {
            self.ended.push((part.camera, output(part)));
        }
    }

    /// Waits for all videos. Returns their outputs, by topic and number, each with the topic and
    /// the number of its publisher.
    pub fn finish(&mut self) -> Vec<((StreamId, usize), Output)> {
        while !self.running.is_empty() {
            self.join(0);
        }
        let mut ended = std::mem::take(&mut self.ended);
        ended.sort_by_key(|((stream, _), output)| (*stream, output.part));
        ended
    }
}

/// Waits for the end of a video and reports it.
fn output(part: ClosedPart) -> Output {
    let ClosedPart { topic, number, notes, result, .. } = part;
    let Notes { lost, left_out, times_guessed, remarks } = notes;
    let mut failed = VideoReport::default();
    let result = result.and_then(|pending| match pending {
        Pending::Session(closing) => {
            let stats = closing.stats_handle();
            closing.join().inspect_err(|_| {
                let stats = stats.get();
                failed.frames_in = stats.frames_in;
                failed.frames_failed = stats.frames_failed;
                failed.frames_dropped = stats.frames_dropped;
            })
        }
        Pending::Done(report) => Ok(*report),
    });
    let mut output = Output { topic, part: number, frames_left_out: left_out, ..Output::default() };
    output.video = match result {
        Ok(report) => {
            output.error = (report.frames_encoded == 0).then_some(RunError::NoPicture);
            report
        }
        Err(SessionError::Empty(report)) => {
            output.error = Some(RunError::NoPicture);
            *report
        }
        Err(error) => {
            let error = RunError::from(error);
            output.partial = error.kept().cloned();
            output.error = Some(error);
            failed
        }
    };
    let video = &mut output.video;
    video.frames_in += lost.frames + left_out;
    video.frames_failed += lost.frames;
    video.times_guessed += times_guessed;
    let mut warnings = lost.warnings();
    warnings.extend(remarks.warnings());
    warnings.extend(video.failures.iter().map(|(n, reason)| format!("frame {n}: {reason}")));
    warnings.append(&mut video.warnings);
    video.warnings = warnings;
    output
}
