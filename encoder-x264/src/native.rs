//! x264 in this process, on the system's libx264. All `unsafe` of this crate.

use std::{ffi::CString, ptr::NonNull};

use encoder_core::{
    Caps, ConfigError, EncodeError, EncodedChunk, EncoderConfig, EncoderType, FailureKind, Frame,
    OpenError, PixelFormat, ProbeResult, Refusal, RefusalKind, Resolution, VideoEncoder,
    probe_in_process,
};
use x264_sys::{
    X264_BUILD, X264_CSP_I420, X264_CSP_NV12, X264_LOG_NONE, X264_RC_ABR, X264_RC_CQP, X264_RC_CRF,
    X264_TYPE_AUTO, X264_TYPE_IDR, x264_encoder_close, x264_encoder_delayed_frames,
    x264_encoder_encode, x264_encoder_maximum_delayed_frames, x264_encoder_open, x264_nal_t,
    x264_param_cleanup, x264_param_default_preset, x264_param_t, x264_picture_init, x264_picture_t,
    x264_t,
};

use crate::{Plan, Rate, Tune};

/// An encoder on libx264.
struct NativeEncoder {
    x264: Handle,
    format: PixelFormat,
    /// The format, as libx264 names it.
    csp: i32,
    size: Resolution,
    max_delay: usize,
    base: Option<u64>,
    frames_in: u64,
    chunks_out: u64,
    ended: bool,
}

/// Owns the library's encoder.
struct Handle(NonNull<x264_t>);

// SAFETY: libx264 ties an encoder to no thread; two threads must not use it at the same time, and a
// `Handle` is used through `&mut` only.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the pointer came from x264_encoder_open and is closed once, here.
        unsafe { x264_encoder_close(self.0.as_ptr()) };
    }
}

/// The name in reports.
fn label() -> String {
    format!("libx264 {X264_BUILD} in process")
}

pub(crate) fn probe(plan: &Plan, config: &EncoderConfig) -> ProbeResult {
    let caps = Caps::new(label()).with_pixel_formats([config.pixel_format]);
    probe_in_process(EncoderType::X264, caps, config, |config| open(plan, config), None)
}

pub(crate) fn open(
    plan: &Plan,
    config: &EncoderConfig,
) -> Result<Box<dyn VideoEncoder>, OpenError> {
    let Some(size) = config.resolution.map(Resolution::even) else {
        let allowed = "WIDTHxHEIGHT";
        return Err(ConfigError::value("encoder.resolution", "none", allowed).into());
    };
    let refused = |what: &str| {
        OpenError::from(Refusal::new(
            EncoderType::X264,
            RefusalKind::Unsupported,
            format!("libx264 {X264_BUILD} {what}"),
            "use another size or preset, or set backend.x264.mode = \"ffmpeg\"",
        ))
    };
    let format = config.pixel_format;
    let csp = colour_space(format).ok_or_else(|| refused(&format!("does not take {format}")))?;
    let mut param =
        parameters(plan, config, csp, size).ok_or_else(|| refused("lacks the preset"))?;
    // SAFETY: `param` was filled by x264_param_default_preset and lives for the call, which
    // copies it; x264_param_cleanup frees what the library has put into it.
    let x264 = unsafe {
        let x264 = x264_encoder_open(&raw mut param);
        x264_param_cleanup(&raw mut param);
        x264
    };
    let x264 =
        Handle(NonNull::new(x264).ok_or_else(|| refused(&format!("does not open for {size}")))?);
    // SAFETY: the encoder is open.
    let delay = unsafe { x264_encoder_maximum_delayed_frames(x264.0.as_ptr()) };
    Ok(Box::new(NativeEncoder {
        x264,
        format,
        csp,
        size,
        max_delay: usize::try_from(delay).unwrap_or(0),
        base: None,
        frames_in: 0,
        chunks_out: 0,
        ended: false,
    }))
}

/// The same as the arguments of the hosted mode; `None` when the library does not know a name.
fn parameters(
    plan: &Plan,
    config: &EncoderConfig,
    csp: i32,
    size: Resolution,
) -> Option<x264_param_t> {
    let preset = CString::new(plan.preset.as_str()).ok()?;
    let tune = match plan.tune {
        Some(tune) => Some(CString::new(tune.as_str()).ok()?),
        None => None,
    };
    let tune = tune.as_ref().map_or(std::ptr::null(), |tune| tune.as_ptr());
    let mut param = std::mem::MaybeUninit::<x264_param_t>::zeroed();
    // SAFETY: the call fills the whole struct; both strings end in zero and outlive the call.
    let mut p = unsafe {
        if x264_param_default_preset(param.as_mut_ptr(), preset.as_ptr(), tune) < 0 {
            return None;
        }
        param.assume_init()
    };
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    p.i_width = number(size.width);
    p.i_height = number(size.height);
    p.i_csp = csp;
    p.i_fps_num = config.frame_rate.numerator();
    p.i_fps_den = config.frame_rate.denominator();
    p.i_timebase_num = p.i_fps_den;
    p.i_timebase_den = p.i_fps_num;
    p.b_vfr_input = 0;
    p.i_threads = number(plan.threads as u32);
    p.i_keyint_max = number(plan.gop_size);
    p.i_keyint_min = number(plan.gop_size);
    p.i_scenecut_threshold = 0;
    p.b_open_gop = 0;
    p.i_bframe = i32::from(plan.b_frames);
    match plan.rate {
        Rate::Crf(crf) => {
            p.rc.i_rc_method = X264_RC_CRF as i32;
            p.rc.f_rf_constant = f32::from(crf);
        }
        Rate::Cqp(qp) => {
            p.rc.i_rc_method = X264_RC_CQP as i32;
            p.rc.i_qp_constant = i32::from(qp);
            // The same quantiser for I, P and B pictures.
            (p.rc.f_ip_factor, p.rc.f_pb_factor) = (1.0, 1.0);
        }
        Rate::Abr(kbps, max_kbps) => {
            p.rc.i_rc_method = X264_RC_ABR as i32;
            p.rc.i_bitrate = number(kbps);
            if let Some(max) = max_kbps {
                (p.rc.i_vbv_max_bitrate, p.rc.i_vbv_buffer_size) = (number(max), number(max));
            }
        }
    }
    p.rc.i_lookahead = number(plan.lookahead);
    p.b_annexb = 1;
    p.b_repeat_headers = 1;
    p.b_aud = 0;
    p.i_log_level = X264_LOG_NONE;
    // Limited range, primaries of BT.709, transfer of sRGB, matrix of BT.601 (H.264, table E-3).
    p.vui.b_fullrange = 0;
    p.vui.i_colorprim = 1;
    p.vui.i_transfer = 13;
    p.vui.i_colmatrix = 6;
    if plan.tune == Some(Tune::Zerolatency) {
        p.i_sync_lookahead = 0;
    }
    Some(p)
}

fn colour_space(format: PixelFormat) -> Option<i32> {
    match format {
        PixelFormat::Yuv420p => Some(X264_CSP_I420 as i32),
        PixelFormat::Nv12 => Some(X264_CSP_NV12 as i32),
        _ => None,
    }
}

impl NativeEncoder {
    fn error(&mut self, message: String) -> EncodeError {
        self.ended = true;
        EncodeError::Failed {
            encoder: EncoderType::X264,
            index: self.frames_in,
            kind: FailureKind::Failed,
            message,
        }
    }

    /// Passes a picture to the library; without a picture, fetches one that the library holds.
    fn step(
        &mut self,
        picture: Option<&mut x264_picture_t>,
    ) -> Result<Option<EncodedChunk>, EncodeError> {
        let mut nals: *mut x264_nal_t = std::ptr::null_mut();
        let mut count = 0;
        let input = picture.map_or(std::ptr::null_mut(), |picture| &raw mut *picture);
        // SAFETY: an all-zero x264_picture_t is valid, and the call only writes to it.
        let mut shown: x264_picture_t = unsafe { std::mem::zeroed() };
        let handle = self.x264.0.as_ptr();
        // SAFETY: the encoder is open; the picture's planes are as large as its strides and the
        // opened size require (checked by the caller) and are only read, during this call.
        let size = unsafe {
            x264_encoder_encode(handle, &raw mut nals, &raw mut count, input, &raw mut shown)
        };
        if size < 0 {
            return Err(self.error(format!("libx264 returned {size}")));
        }
        if size == 0 || nals.is_null() {
            return Ok(None);
        }
        let mut data = Vec::with_capacity(size as usize + count.max(0) as usize);
        // SAFETY: the library returns `count` units, valid until its next call.
        let nals = unsafe { std::slice::from_raw_parts(nals, count.max(0) as usize) };
        for nal in nals {
            // SAFETY: each unit has `i_payload` bytes, valid until the library's next call.
            let unit =
                unsafe { std::slice::from_raw_parts(nal.p_payload, nal.i_payload.max(0) as usize) };
            // Start codes are of three or four bytes here, and always of four in a chunk.
            let start = if nal.b_long_startcode != 0 { 4 } else { 3 };
            data.extend_from_slice(&[0, 0, 0, 1]);
            data.extend_from_slice(unit.get(start..).unwrap_or_default());
        }
        let pts = self.base.unwrap_or(0) + u64::try_from(shown.i_pts).unwrap_or(0);
        let dts = self.chunks_out;
        self.chunks_out += 1;
        Ok(Some(EncodedChunk { data, pts, dts, keyframe: shown.i_type == X264_TYPE_IDR as i32 }))
    }
}

impl VideoEncoder for NativeEncoder {
    fn encode_frame(&mut self, frame: &Frame<'_>) -> Result<Option<EncodedChunk>, EncodeError> {
        if self.ended {
            return Err(self.error("it has ended and takes no more frames".into()));
        }
        frame.check(self.format, self.size)?;
        let expected = *self.base.get_or_insert(frame.index) + self.frames_in;
        if frame.index != expected {
            return Err(self.error(format!("frame {} came instead of {expected}", frame.index)));
        }
        // SAFETY: an all-zero x264_picture_t is valid; x264_picture_init sets its defaults.
        let mut picture: x264_picture_t = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        unsafe { x264_picture_init(&raw mut picture) };
        picture.i_type = if frame.force_idr { X264_TYPE_IDR as i32 } else { X264_TYPE_AUTO as i32 };
        picture.i_pts = self.frames_in as i64;
        picture.img.i_csp = self.csp;
        picture.img.i_plane = frame.planes().len() as i32;
        for (n, plane) in frame.planes().iter().enumerate() {
            // Checks that the planes are as large as the library reads.
            if plane.data.len() < plane.stride * plane.rows || plane.stride < plane.row_bytes {
                return Err(self.error(format!("plane {n} is shorter than its rows")));
            }
            picture.img.i_stride[n] = plane.stride as i32;
            picture.img.plane[n] = plane.data.as_ptr().cast_mut();
        }
        let chunk = self.step(Some(&mut picture))?;
        self.frames_in += 1;
        Ok(chunk)
    }

    fn flush(&mut self) -> Result<Vec<EncodedChunk>, EncodeError> {
        let mut rest = Vec::new();
        if self.ended {
            return Ok(rest);
        }
        // SAFETY: the encoder is open.
        while unsafe { x264_encoder_delayed_frames(self.x264.0.as_ptr()) } > 0 {
            rest.extend(self.step(None)?);
        }
        self.ended = true;
        if self.chunks_out != self.frames_in {
            let (out, frames) = (self.chunks_out, self.frames_in);
            return Err(self.error(format!("{frames} frames went in, {out} came out")));
        }
        Ok(rest)
    }

    fn encoder_type(&self) -> EncoderType {
        EncoderType::X264
    }

    fn description(&self) -> String {
        label()
    }

    fn pixel_format(&self) -> PixelFormat {
        self.format
    }

    fn max_delay(&self) -> usize {
        self.max_delay
    }

    fn can_force_idr(&self) -> bool {
        true
    }
}
