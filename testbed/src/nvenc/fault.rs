//! The faults of the device.

use std::time::Duration;

/// The place of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `cuInit`.
    CudaInit,
    /// `cuCtxCreate`.
    Context,
    /// `NvEncodeAPICreateInstance`.
    Load,
    /// `OpenEncodeSessionEx`.
    Open,
    /// `GetEncodePresetConfigEx`.
    Preset,
    /// `InitializeEncoder`.
    Initialize,
    /// `CreateInputBuffer`, `RegisterResource`.
    Buffer,
    /// `EncodePicture`; has the number of the frame.
    Encode,
    /// `LockBitstream`, which waits for a coded picture; has the number of the frame.
    Lock,
    /// `EncodePicture` with the end of the stream.
    End,
    /// `DestroyEncoder`.
    Close,
    /// `nvmlInit`.
    NvmlInit,
}

/// The action of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The call fails with this code of its library.
    Error(i32),
    /// The call never returns.
    Hang,
    /// The process aborts.
    Abort,
    /// The process dies of a segmentation fault.
    Segfault,
    /// The process ends silently, with this status.
    Exit(i32),
    /// The call takes this much longer.
    Sleep(Duration),
}

/// A wrong coded picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// One luma sample, in the middle, is off by one.
    Sample,
    /// The picture is black.
    Black,
    /// The picture before is returned again.
    Stale,
    /// Luma is one line too high.
    Shifted,
    /// The chroma planes are exchanged.
    Swapped,
    /// Random bytes.
    Garbage,
    /// The first half.
    Truncated,
    /// No bytes.
    Empty,
    /// The time is a thousand ticks too late.
    Timestamp,
}

/// A fault: permanent, unless [`times`](Self::times) limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    place: &'static str,
    action: &'static str,
    code: i64,
    frame: u64,
    times: u64,
    processes: u64,
}

impl Fault {
    /// `cuInit`: no device.
    pub const NO_DEVICE: Self = Self::new(Stage::CudaInit, Action::Error(100));
    /// `cuInit`: kernel module and library are of different versions.
    pub const DRIVER_MISMATCH: Self = Self::new(Stage::CudaInit, Action::Error(803));
    /// The GPU is busy or unavailable.
    pub const GPU_BUSY: Self = Self::new(Stage::Context, Action::Error(46));
    /// The GPU's memory is full.
    pub const GPU_MEMORY: Self = Self::new(Stage::Context, Action::Error(2));
    /// The driver refuses the version of the function list.
    pub const VERSION: Self = Self::new(Stage::Load, Action::Error(15));
    /// No session is free, as most drivers report it.
    pub const SESSIONS: Self = Self::new(Stage::Open, Action::Error(10));
    /// No session is free, as some drivers report it.
    pub const CLIENT_KEY: Self = Self::new(Stage::Open, Action::Error(21));
    /// The preset is not known.
    pub const PRESET: Self = Self::new(Stage::Preset, Action::Error(12));
    /// No memory for buffers.
    pub const BUFFERS: Self = Self::new(Stage::Buffer, Action::Error(10));
    /// An error without a reason.
    pub const ENCODE: Self = Self::new(Stage::Encode, Action::Error(20));
    /// The device is gone.
    pub const DEVICE_LOST: Self = Self::new(Stage::Encode, Action::Error(5));
    /// The encoder is busy, once.
    pub const BUSY: Self = Self::new(Stage::Encode, Action::Error(18)).times(1);
    /// The output is busy, once: FFmpeg loses a picture and reports it in one line.
    pub const LOCK_BUSY: Self = Self::new(Stage::Lock, Action::Error(13)).times(1);

    /// This action at this place.
    pub const fn new(place: Stage, action: Action) -> Self {
        let place = match place {
            Stage::CudaInit => "cuda-init",
            Stage::Context => "context",
            Stage::Load => "load",
            Stage::Open => "open",
            Stage::Preset => "preset",
            Stage::Initialize => "initialize",
            Stage::Buffer => "buffer",
            Stage::Encode => "encode",
            Stage::Lock => "lock",
            Stage::End => "end",
            Stage::Close => "close",
            Stage::NvmlInit => "nvml-init",
        };
        let (action, code) = match action {
            Action::Error(code) => ("error", code as i64),
            Action::Hang => ("hang", 0),
            Action::Abort => ("abort", 0),
            Action::Segfault => ("segfault", 0),
            Action::Exit(status) => ("exit", status as i64),
            Action::Sleep(time) => ("sleep", time.as_millis() as i64),
        };
        Self { place, action, code, frame: 0, times: 0, processes: 0 }
    }

    /// One wrong picture in the output.
    pub const fn output(wrong: Wrong) -> Self {
        let action = match wrong {
            Wrong::Sample => "sample",
            Wrong::Black => "black",
            Wrong::Stale => "stale",
            Wrong::Shifted => "shifted",
            Wrong::Swapped => "swapped",
            Wrong::Garbage => "garbage",
            Wrong::Truncated => "truncated",
            Wrong::Empty => "empty",
            Wrong::Timestamp => "timestamp",
        };
        Self { place: "output", action, code: 0, frame: 0, times: 1, processes: 0 }
    }

    /// From which frame on, counted from 0. At places without a frame it must be 0.
    #[must_use]
    pub const fn frame(self, frame: u64) -> Self {
        Self { frame, ..self }
    }

    /// Sets how often it happens in each process.
    #[must_use]
    pub const fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// Limits the fault to the first `processes` processes that reach its place.
    #[must_use]
    pub const fn processes(self, processes: u64) -> Self {
        Self { processes, ..self }
    }

    pub(super) fn pairs(self) -> [(&'static str, String); 6] {
        [
            ("fault_place", self.place.into()),
            ("fault_action", self.action.into()),
            ("fault_code", self.code.to_string()),
            ("fault_frame", self.frame.to_string()),
            ("fault_times", self.times.to_string()),
            ("fault_processes", self.processes.to_string()),
        ]
    }
}
