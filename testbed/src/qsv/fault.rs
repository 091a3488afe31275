//! The faults of the device.

/// The place of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Opening the render node; the code of an error is an `errno`.
    Node,
    /// Opening a session: `MFXInitEx`, `MFXInitialize`.
    Session,
    /// `MFXVideoENCODE_Init`.
    Init,
    /// `MFXVideoENCODE_EncodeFrameAsync`; has the number of the frame.
    Encode,
    /// `MFXVideoCORE_SyncOperation`, which waits for a coded picture; has the number of the frame.
    Sync,
}

/// The action of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The call fails with this code, a `mfxStatus` except for the render node.
    Error(i32),
    /// The call never returns.
    Hang,
    /// The process dies of a segmentation fault.
    Segfault,
}

/// A permanent fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    place: &'static str,
    action: &'static str,
    code: i32,
    frame: u64,
}

impl Fault {
    /// This user may not open the render node.
    pub const NODE_DENIED: Self = Self::new(Stage::Node, Action::Error(13));
    /// No session: unsupported.
    pub const NO_SESSION: Self = Self::new(Stage::Session, Action::Error(-3));
    /// The encoder does not support the configuration.
    pub const UNSUPPORTED: Self = Self::new(Stage::Init, Action::Error(-3));
    /// The encoder refuses a parameter.
    pub const INVALID_PARAM: Self = Self::new(Stage::Init, Action::Error(-15));
    /// "Device failed".
    pub const DEVICE_FAILED: Self = Self::new(Stage::Encode, Action::Error(-17));

    /// This action at this place.
    pub const fn new(place: Stage, action: Action) -> Self {
        let place = match place {
            Stage::Node => "node",
            Stage::Session => "session",
            Stage::Init => "init",
            Stage::Encode => "encode",
            Stage::Sync => "sync",
        };
        let (action, code) = match action {
            Action::Error(code) => ("error", code),
            Action::Hang => ("hang", 0),
            Action::Segfault => ("segfault", 0),
        };
        Self { place, action, code, frame: 0 }
    }

    /// From which frame on, counted from 0 in display order. At places without a frame it must be
    /// 0.
    #[must_use]
    pub const fn frame(self, frame: u64) -> Self {
        Self { frame, ..self }
    }

    pub(super) fn pairs(self) -> [(&'static str, String); 4] {
        [
            ("fault_place", self.place.into()),
            ("fault_action", self.action.into()),
            ("fault_code", self.code.to_string()),
            ("fault_frame", self.frame.to_string()),
        ]
    }
}
