use yuv::{
    BufferStoreMut, YuvBiPlanarImageMut, YuvConversionMode, YuvError, YuvPlanarImageMut, YuvRange,
    YuvStandardMatrix,
};

use super::{
    PictureError, broken,
    target::{Chroma, Target},
};

/// The order of the bytes of a pixel. Alpha is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Rgb,
    Bgr,
    Rgba,
    Bgra,
}

impl Order {
    /// Bytes of a pixel.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Rgba | Self::Bgra => 4,
        }
    }
}

/// Converts a picture of the target's size with rows `stride` bytes apart; the last row may go
/// without its padding.
pub(super) fn write(
    order: Order,
    data: &[u8],
    stride: usize,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    // The converter takes whole strides only, and silently leaves out the rest: the last rows go
    // through a copy if their padding is missing.
    let height = target.height;
    if data.len() >= stride * height {
        convert(order, data, stride, target)?;
    } else {
        let whole = (height - 1) / 2 * 2;
        if whole > 0 {
            convert(order, data, stride, &mut target.band(0, whole))?;
        }
        let mut rest = data.get(whole * stride..).unwrap_or_default().to_vec();
        rest.resize((height - whole) * stride, 0);
        convert(order, &rest, stride, &mut target.band(whole, height - whole))?;
    }
    target.repeat_edges();
    Ok(())
}

fn convert(
    order: Order,
    data: &[u8],
    stride: usize,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    let (width, height) = (target.width as u32, target.height as u32);
    let (y_stride, chroma_stride) = (target.stride as u32, target.chroma_stride as u32);
    // Exactly the picture's rows: for an odd height, the converter looks for the last row at the
    // end of the slices.
    let y_plane = BufferStoreMut::Borrowed(&mut target.luma[..target.stride * target.height]);
    let data = &data[..stride * target.height];
    let stride = stride as u32;
    let (limited, bt601) = (YuvRange::Limited, YuvStandardMatrix::Bt601);
    let mode = YuvConversionMode::Balanced;
    let done: Result<(), YuvError> = match &mut target.chroma {
        Chroma::Planar(u, v) => {
            let image = &mut YuvPlanarImageMut {
                y_plane,
                y_stride,
                u_plane: BufferStoreMut::Borrowed(u),
                u_stride: chroma_stride,
                v_plane: BufferStoreMut::Borrowed(v),
                v_stride: chroma_stride,
                width,
                height,
            };
            let convert = match order {
                Order::Rgb => yuv::rgb_to_yuv420,
                Order::Bgr => yuv::bgr_to_yuv420,
                Order::Rgba => yuv::rgba_to_yuv420,
                Order::Bgra => yuv::bgra_to_yuv420,
            };
            convert(image, data, stride, limited, bt601, mode)
        }
        Chroma::Interleaved(uv) => {
            let image = &mut YuvBiPlanarImageMut {
                y_plane,
                y_stride,
                uv_plane: BufferStoreMut::Borrowed(uv),
                uv_stride: chroma_stride,
                width,
                height,
            };
            let convert = match order {
                Order::Rgb => yuv::rgb_to_yuv_nv12,
                Order::Bgr => yuv::bgr_to_yuv_nv12,
                Order::Rgba => yuv::rgba_to_yuv_nv12,
                Order::Bgra => yuv::bgra_to_yuv_nv12,
            };
            convert(image, data, stride, limited, bt601, mode)
        }
    };
    done.map_err(|error| broken(format!("the colours cannot be converted: {error}")))
}
