//! A safe interface to the library: all `unsafe` of this crate is in this file.

use std::{
    os::raw::{c_int, c_void},
    ptr,
};

use encoder_core::Frame;
use openh264_sys2::{
    CAMERA_VIDEO_REAL_TIME, CONSTANT_ID, ENCODER_OPTION_SVC_ENCODE_PARAM_EXT,
    ENCODER_OPTION_TRACE_LEVEL, ISVCEncoder, ISVCEncoderVtbl, LOW_COMPLEXITY, MEDIUM_COMPLEXITY,
    PRO_BASELINE, PRO_HIGH, RC_BITRATE_MODE, RC_OFF_MODE, SEncParamExt, SFrameBSInfo,
    SM_SINGLE_SLICE, SSourcePicture, WELS_LOG_QUIET, source::APILoader, videoFormatI420,
    videoFrameTypeIDR, videoFrameTypeSkip,
};

/// How pictures get their quantisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// By [`RawEncoder::set_quantiser`]; this is the first one, 0 to 51.
    Quantiser(i32),
    /// By the library, for this bit rate in bits per second.
    BitRate(i32),
}

/// The parameters of an encoder.
pub struct Parameters {
    /// Coded width in pixels, even.
    pub width: i32,
    /// Coded height in pixels, even.
    pub height: i32,
    /// Frames per second.
    pub frame_rate: f32,
    /// How pictures get their quantisers.
    pub rate: Rate,
    /// Frames from one IDR picture to the next.
    pub gop_size: u32,
    /// Medium instead of low complexity.
    pub medium: bool,
    /// CABAC and High profile instead of CAVLC and Constrained Baseline.
    pub cabac: bool,
}

/// An encoder of the library, initialised.
pub struct RawEncoder {
    encoder: *mut ISVCEncoder,
    /// The parameters that were last set in the library.
    current: Box<SEncParamExt>,
    info: Box<SFrameBSInfo>,
}

// SAFETY: the library keeps no thread-local state for an encoder; the pointer is owned by this
// value alone and is used through `&mut self` only.
unsafe impl Send for RawEncoder {}

impl RawEncoder {
    /// Creates and initialises an encoder.
    pub fn new(parameters: &Parameters) -> Result<Self, String> {
        let mut encoder: *mut ISVCEncoder = ptr::null_mut();
        // SAFETY: the out pointer is valid; on success the library owns what it points to until
        // `WelsDestroySVCEncoder`, which `Drop` calls.
        let code = unsafe { APILoader::WelsCreateSVCEncoder(&mut encoder) };
        if code != 0 || encoder.is_null() {
            return Err(format!("WelsCreateSVCEncoder gave {code}"));
        }
        // From here on `Drop` frees it.
        let mut this = Self { encoder, current: Box::default(), info: Box::default() };
        let mut level: c_int = WELS_LOG_QUIET;
        let call = this.table()?.SetOption.ok_or("no SetOption")?;
        // SAFETY: `encoder` is live; the option is an int, as TRACE_LEVEL wants.
        unsafe {
            call(this.encoder, ENCODER_OPTION_TRACE_LEVEL, (&raw mut level).cast::<c_void>())
        };

        let mut p = SEncParamExt::default();
        let defaults = this.table()?.GetDefaultParams.ok_or("no GetDefaultParams")?;
        // SAFETY: `encoder` is live and `p` is a whole SEncParamExt.
        check("GetDefaultParams", unsafe { defaults(this.encoder, &mut p) })?;
        p.iUsageType = CAMERA_VIDEO_REAL_TIME;
        p.iPicWidth = parameters.width;
        p.iPicHeight = parameters.height;
        p.fMaxFrameRate = parameters.frame_rate;
        p.uiIntraPeriod = parameters.gop_size;
        p.iComplexityMode = if parameters.medium { MEDIUM_COMPLEXITY } else { LOW_COMPLEXITY };
        p.iEntropyCodingModeFlag = c_int::from(parameters.cabac);
        p.eSpsPpsIdStrategy = CONSTANT_ID;
        p.iMultipleThreadIdc = 1;
        // Every frame is coded, and IDR pictures follow only from the GOP.
        p.bEnableFrameSkip = false;
        p.bEnableSceneChangeDetect = false;
        p.bEnableBackgroundDetection = false;
        p.bEnableAdaptiveQuant = false;
        p.bEnableDenoise = false;
        p.bEnableLongTermReference = false;
        let layer = &mut p.sSpatialLayers[0];
        layer.iVideoWidth = parameters.width;
        layer.iVideoHeight = parameters.height;
        layer.fFrameRate = parameters.frame_rate;
        layer.uiProfileIdc = if parameters.cabac { PRO_HIGH } else { PRO_BASELINE };
        layer.sSliceArgument.uiSliceMode = SM_SINGLE_SLICE;
        match parameters.rate {
            Rate::Quantiser(quantiser) => {
                p.iRCMode = RC_OFF_MODE;
                layer.iDLayerQp = quantiser;
            }
            Rate::BitRate(bits) => {
                p.iRCMode = RC_BITRATE_MODE;
                p.iTargetBitrate = bits;
                layer.iSpatialBitrate = bits;
                (p.iMinQp, p.iMaxQp) = (0, 51);
            }
        }
        // Limited range, BT.709 primaries, sRGB transfer, BT.601 matrix: the colours of the frames.
        layer.bVideoSignalTypePresent = true;
        layer.uiVideoFormat = 5;
        layer.bFullRange = false;
        layer.bColorDescriptionPresent = true;
        layer.uiColorPrimaries = 1;
        layer.uiTransferCharacteristics = 13;
        layer.uiColorMatrix = 6;
        let initialise = this.table()?.InitializeExt.ok_or("no InitializeExt")?;
        // SAFETY: `encoder` is live and `p` is a whole SEncParamExt, which the library copies.
        check("InitializeExt", unsafe { initialise(this.encoder, &p) })?;
        *this.current = p;
        Ok(this)
    }

    fn table(&self) -> Result<&ISVCEncoderVtbl, String> {
        // SAFETY: `encoder` is live, and points to a pointer to the library's static table.
        unsafe { self.encoder.as_ref().and_then(|table| table.as_ref()) }
            .ok_or_else(|| "no function table".into())
    }

    /// The quantiser of the pictures from the next one on, 0 to 51.
    pub fn set_quantiser(&mut self, quantiser: i32) -> Result<(), String> {
        if self.current.sSpatialLayers[0].iDLayerQp == quantiser {
            return Ok(());
        }
        self.current.sSpatialLayers[0].iDLayerQp = quantiser;
        let call = self.table()?.SetOption.ok_or("no SetOption")?;
        let current = (&raw mut *self.current).cast::<c_void>();
        // SAFETY: `encoder` is live and initialised; `current` is a whole SEncParamExt, as this
        // option wants it, and the library copies it. The stream continues, because only the
        // quantiser changes.
        check("SetOption", unsafe {
            call(self.encoder, ENCODER_OPTION_SVC_ENCODE_PARAM_EXT, current)
        })
    }

    /// Makes the next picture an IDR picture.
    pub fn force_idr(&mut self) -> Result<(), String> {
        let call = self.table()?.ForceIntraFrame.ok_or("no ForceIntraFrame")?;
        // SAFETY: `encoder` is live and initialised.
        check("ForceIntraFrame", unsafe { call(self.encoder, true) })
    }

    /// Encodes one yuv420p frame of the opened size: the access unit, and whether it is an IDR
    /// picture.
    pub fn encode(&mut self, frame: &Frame<'_>) -> Result<(Vec<u8>, bool), String> {
        let [y, u, v] = frame.planes() else { return Err("not three planes".into()) };
        let source = SSourcePicture {
            iColorFormat: videoFormatI420,
            iStride: [y.stride as c_int, u.stride as c_int, v.stride as c_int, 0],
            pData: [
                y.data.as_ptr().cast_mut(),
                u.data.as_ptr().cast_mut(),
                v.data.as_ptr().cast_mut(),
                ptr::null_mut(),
            ],
            iPicWidth: frame.width as c_int,
            iPicHeight: frame.height as c_int,
            uiTimeStamp: frame.index as i64,
            bPsnrY: false,
            bPsnrU: false,
            bPsnrV: false,
        };
        let call = self.table()?.EncodeFrame.ok_or("no EncodeFrame")?;
        // SAFETY: `encoder` is live and initialised; `source` points to planes of the opened size
        // that live through the call, and the library only reads them (it copies them into its
        // own picture first); `info` is a whole SFrameBSInfo.
        check("EncodeFrame", unsafe { call(self.encoder, &source, &mut *self.info) })?;
        if self.info.eFrameType == videoFrameTypeSkip {
            return Err("it skipped a picture".into());
        }
        let mut data = Vec::with_capacity(self.info.iFrameSizeInBytes.max(0) as usize);
        for layer in self.info.sLayerInfo.iter().take(self.info.iLayerNum.max(0) as usize) {
            let mut at = 0;
            for nal in 0..layer.iNalCount.max(0) as usize {
                // SAFETY: the library filled `iNalCount` lengths, and `pBsBuf` holds as many bytes
                // as they sum up to; both live until the next call.
                let unit = unsafe {
                    let length = *layer.pNalLengthInByte.add(nal) as usize;
                    std::slice::from_raw_parts(layer.pBsBuf.add(at), length)
                };
                at += unit.len();
                // Each unit begins with the four-byte start code.
                data.extend_from_slice(unit);
            }
        }
        if data.is_empty() {
            return Err("it gave an empty picture".into());
        }
        Ok((data, self.info.eFrameType == videoFrameTypeIDR))
    }
}

impl Drop for RawEncoder {
    fn drop(&mut self) {
        // SAFETY: `encoder` came from `WelsCreateSVCEncoder` and is destroyed once; destroying
        // uninitialises it.
        unsafe { APILoader::WelsDestroySVCEncoder(self.encoder) };
    }
}

fn check(what: &str, code: c_int) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("{what} gave {code}")) }
}

/// Name and version of the library.
pub fn version() -> String {
    // SAFETY: takes nothing and returns a plain struct.
    let v = unsafe { APILoader::WelsGetCodecVersion() };
    format!("OpenH264 {}.{}.{}", v.uMajor, v.uMinor, v.uRevision)
}

/// Whether the library was built with its assembly: without, it knows of no processor feature.
pub fn has_assembly() -> bool {
    unsafe extern "C" {
        fn WelsCPUFeatureDetect(logical_processors: *mut i32) -> u32;
    }
    let mut processors = 0;
    // SAFETY: a C function of the library that is linked in; it writes one int.
    unsafe { WelsCPUFeatureDetect(&mut processors) != 0 }
}

/// Decodes an Annex B stream with the library's own decoder: the packed luma planes, in order.
pub fn decode_luma(stream: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    use openh264::formats::YUVSource;
    let luma = |picture: &openh264::decoder::DecodedYUV<'_>| -> Vec<u8> {
        let (width, height) = picture.dimensions();
        let stride = picture.strides().0;
        picture.y().chunks(stride).take(height).flat_map(|row| &row[..width]).copied().collect()
    };
    let mut decoder = openh264::decoder::Decoder::new().map_err(|e| e.to_string())?;
    let mut pictures = Vec::new();
    for unit in openh264::nal_units(stream) {
        if let Some(picture) = decoder.decode(unit).map_err(|e| e.to_string())? {
            pictures.push(luma(&picture));
        }
    }
    for picture in decoder.flush_remaining().map_err(|e| e.to_string())? {
        pictures.push(luma(&picture));
    }
    Ok(pictures)
}
