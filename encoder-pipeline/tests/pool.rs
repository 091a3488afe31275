//! Many cameras within a given memory, by what the process really uses.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Condvar, Mutex};

use encoder_core::{EncoderType, Plan, Resolution, Settings};
use encoder_pipeline::{
    mux::{AccessUnit, Finished, Sink, SinkError},
    session::{
        Holder, OnBadFrame, Pool, PoolError, PoolLimits, Session, SessionConfig, SessionError,
    },
    source::{Payload, RawImage},
    timeline::{FrameTimes, Timeline},
};

/// The tests measure the memory of the process, so they run one at a time.
static TURN: Mutex<()> = Mutex::new(());

const SIZE: Resolution = Resolution::new(1920, 1080);
const CAMERAS: usize = 16;
const MEMORY: u64 = 512_000_000;

/// Frames that each encoder encodes before its sink blocks.
const FREE: u64 = 4;

/// A sink that blocks from the access unit after [`FREE`] on, until the gate is open.
struct Held(Arc<(Mutex<bool>, Condvar)>);

impl Sink for Held {
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        if unit.chunk.pts < FREE {
            return Ok(());
        }
        let (is_open, changed) = &*self.0;
        drop(changed.wait_while(is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
        Ok(())
    }
    fn finish(self: Box<Self>, _: &Timeline) -> Result<Finished, SinkError> {
        Ok(Finished::default())
    }
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

fn config(pool: &Pool, on_bad_frame: OnBadFrame) -> SessionConfig {
    let plan = Plan::new(vec![EncoderType::OPENH264], vec![]);
    let config = SessionConfig::new(Settings::default(), plan).with_pool(pool.clone());
    config.with_on_bad_frame(on_bad_frame)
}

/// Shades with edges and the noise of a sensor, as a camera sees them; in an encoding that is
/// converted into the ring.
fn picture() -> Payload {
    let mut random = 1u32;
    let mut noise = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 30) as u8
    };
    let sample = |at: u32| {
        let (x, y) = (at / 3 % SIZE.width, at / 3 / SIZE.width);
        let shade = if (x / 64 + y / 64) % 3 == 0 { 40 } else { 120 };
        shade + (x / 24) as u8 + (y / 24) as u8 / 2
    };
    let data: Vec<u8> =
        (0..SIZE.width * SIZE.height * 3).map(|at| sample(at).saturating_add(noise())).collect();
    Payload::Raw(RawImage {
        encoding: "rgb8".into(),
        width: SIZE.width,
        height: SIZE.height,
        step: SIZE.width * 3,
        is_bigendian: false,
        data: data.into(),
    })
}

#[test]
fn sixteen_cameras_of_1080p_stay_within_512_megabytes() {
    let _turn = TURN.lock();
    let pool = Pool::new(PoolLimits::new().with_memory(MEMORY).with_sessions(CAMERAS));
    // To repeat a picture in place of a bad frame takes a frame more for each camera.
    let (config, picture) = (config(&pool, OnBadFrame::Skip), picture());
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let before = resident();
    let mut sessions: Vec<_> = (0..CAMERAS)
        .map(|_| Session::open(SIZE, &config, Box::new(Held(Arc::clone(&gate)))).unwrap())
        .collect();
    let stats = pool.stats();
    let counted: u64 = stats.holders.iter().map(Holder::memory).sum();
    assert!(counted <= MEMORY, "{counted}");
    // No memory of a ring is used before its first picture.
    let opened = resident();
    let rings: u64 = stats.holders.iter().map(|it| it.ring_bytes).sum();
    assert!(opened - before < counted - rings, "{} of {counted}", opened - before);
    // Every encoder has encoded some frames, and every slot of every ring has a picture.
    for session in &mut sessions {
        for n in 0..FREE + session.stats().ring_slots as u64 {
            session.push(&picture, FrameTimes::at(n as i64 * 33_333_333)).unwrap();
        }
        let stats = session.stats();
        assert_eq!((stats.frames_encoded, stats.ring_used), (FREE, stats.ring_slots));
    }
    let full = resident();
    println!(
        "counted {counted} bytes, of which the rings {rings}; used by 16 sessions {} bytes, before \
         the first picture {}",
        full - before,
        opened - before
    );
    assert!(full - before <= MEMORY, "{} bytes are used", full - before);
    assert!(full - before > rings / 2, "the rings are used: {}", full - before);
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for session in sessions {
        let frames = FREE + session.stats().ring_slots as u64;
        assert_eq!(session.finish().unwrap().frames_encoded, frames);
    }
}

#[test]
fn where_less_than_that_is_given_the_error_says_what_is_needed() {
    let _turn = TURN.lock();
    // memory | what happens to bad frames | sessions that open | what each needs
    let table = [
        (MEMORY / 2, OnBadFrame::Skip, 8, "31.5 MB"),
        (MEMORY / 2, OnBadFrame::Repeat, 7, "34.6 MB"),
        (MEMORY, OnBadFrame::Repeat, 14, "34.6 MB"),
        (555_000_000, OnBadFrame::Repeat, CAMERAS, "34.6 MB"),
    ];
    for (memory, on_bad_frame, expected, each) in table {
        let pool = Pool::new(PoolLimits::new().with_memory(memory));
        let gate = Arc::new((Mutex::new(true), Condvar::new()));
        let mut config = config(&pool, on_bad_frame);
        // The smallest ring.
        config.settings.gpu.enable_ring_buffer = false;
        let mut sessions = Vec::new();
        let error = loop {
            match Session::open(SIZE, &config, Box::new(Held(Arc::clone(&gate)))) {
                Ok(session) => sessions.push(session),
                Err(error) => break error,
            }
        };
        assert_eq!(sessions.len(), expected, "{memory} {on_bad_frame}");
        let text = error.to_string();
        let SessionError::Pool(PoolError::Full { needed, free, holders, .. }) = error else {
            panic!("{text}")
        };
        assert_eq!((needed.slots, holders.len()), (3, expected));
        assert!(free.memory.unwrap() < needed.memory());
        assert!(text.contains(&format!("1920x1080 needs at least {each}")), "{text}");
    }
}
