#![allow(clippy::unwrap_used)]

use base64::Engine;
use proptest::prelude::*;

use super::*;
use crate::RawImage;

const SCHEMAS: [CameraSchema; 5] = [
    CameraSchema::RosImage,
    CameraSchema::RosCompressedImage,
    CameraSchema::FoxgloveRawImage,
    CameraSchema::FoxgloveCompressedImage,
    CameraSchema::FoxgloveCompressedVideo,
];
const SERIALIZATIONS: [Serialization; 4] =
    [Serialization::Cdr, Serialization::Ros1, Serialization::Protobuf, Serialization::Json];

#[test]
fn names() {
    use CameraSchema::*;
    let table = [
        ("sensor_msgs/msg/Image", Some(RosImage)),
        ("sensor_msgs/Image", Some(RosImage)),
        ("sensor_msgs::msg::dds_::Image_", Some(RosImage)),
        ("sensor_msgs::msg::CompressedImage", Some(RosCompressedImage)),
        ("sensor_msgs/CompressedImage", Some(RosCompressedImage)),
        ("foxglove.RawImage", Some(FoxgloveRawImage)),
        ("foxglove_msgs/msg/RawImage", Some(FoxgloveRawImage)),
        ("foxglove_msgs/RawImage", Some(FoxgloveRawImage)),
        ("foxglove::RawImage", Some(FoxgloveRawImage)),
        ("foxglove.CompressedImage", Some(FoxgloveCompressedImage)),
        ("foxglove_msgs/msg/CompressedVideo", Some(FoxgloveCompressedVideo)),
        ("ffmpeg_image_transport_msgs/msg/FFMPEGPacket", Some(FfmpegPacket)),
        ("theora_image_transport/Packet", Some(OtherVideo)),
        ("theora_image_transport/msg/Packet", Some(OtherVideo)),
        ("h264_msgs/msg/Packet", Some(OtherVideo)),
        ("x265_image_transport/x265Packet", Some(OtherVideo)),
        ("my_msgs/msg/EncodedVideo", Some(OtherVideo)),
        ("my.VideoFrame", Some(OtherVideo)),
        ("theora_image_transport/Config", None),
        ("h264_msgs/msg/EncoderState", None),
        ("visualization_msgs/msg/ImageMarker", None),
        ("foxglove.ImageAnnotations", None),
        ("stereo_msgs/msg/DisparityImage", None),
        ("sensor_msgs/msg/CameraInfo", None),
        ("sensor_msgs/RawImage", None),
        ("foxglove.Image", None),
        ("my/sensor_msgs/Image", None),
        ("Image", None),
        ("", None),
    ];
    for (name, schema) in table {
        assert_eq!(CameraSchema::from_name(name), schema, "{name}");
    }
}

#[test]
fn videos_in_other_types() {
    let jpeg: &[u8] = b"\xff\xd8\xff\xe0";
    for (format, data, codec) in [
        ("h264", &[0, 0, 0, 1][..], Some("h264")),
        ("H.264", &[0, 0, 1], Some("h264")),
        ("bgr8; h265 compressed", &[], Some("h265")),
        ("video/HEVC", &[], Some("h265")),
        ("jpeg", &[0, 0, 0, 1], None),
        ("mjpeg", jpeg, None),
        ("bgr8; jpeg compressed bgr8", jpeg, None),
        // The data is what it is.
        ("h264", jpeg, None),
        ("", &[], None),
    ] {
        let mut w = Writer::new(Serialization::Cdr, false);
        w.u32(1);
        w.u32(2);
        w.string("camera");
        w.string(format);
        w.bytes(data);
        let message = w.out.into();
        let decoded = decode(CameraSchema::RosCompressedImage, Serialization::Cdr, &message);
        let found = match decoded.unwrap().payload {
            Payload::Video { format, data: found } => {
                assert_eq!(found, data);
                Some(format)
            }
            _ => None,
        };
        assert_eq!(found.as_deref(), codec, "{format}");
    }
    for serialization in [Serialization::Cdr, Serialization::Ros1] {
        let mut w = Writer::new(serialization, false);
        if serialization == Serialization::Ros1 {
            w.u32(1);
        }
        (0..2).for_each(|n| w.u32(n));
        w.string("left");
        (0..2).for_each(|n| w.u32(n));
        w.string("hevc;yuv420p;bgr8;bgr8");
        let decoded = decode(CameraSchema::FfmpegPacket, serialization, &w.out.into()).unwrap();
        assert_eq!(decoded.frame_id.as_deref(), Some("left"));
        let Payload::Video { format, .. } = decoded.payload else { panic!() };
        assert_eq!(format, "hevc in FFMPEGPacket");
    }
    let decoded = decode(CameraSchema::OtherVideo, Serialization::Json, &Bytes::new()).unwrap();
    assert!(matches!(decoded.payload, Payload::Video { format, .. } if format.is_empty()));
}

/// Writes messages field by field, from the format descriptions.
struct Writer {
    serialization: Serialization,
    big: bool,
    out: Vec<u8>,
}

impl Writer {
    fn new(serialization: Serialization, big: bool) -> Self {
        let out = match (serialization, big) {
            (Serialization::Cdr, true) => vec![0, 0, 0, 0],
            (Serialization::Cdr, false) => vec![0, 1, 0, 0],
            _ => vec![],
        };
        Self { serialization, big, out }
    }

    fn u32(&mut self, value: u32) {
        while self.serialization == Serialization::Cdr && !self.out.len().is_multiple_of(4) {
            self.out.push(0xAA);
        }
        self.out.extend(if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn bytes(&mut self, value: &[u8]) {
        self.u32(value.len() as u32);
        self.out.extend(value);
    }

    fn string(&mut self, value: &str) {
        if self.serialization == Serialization::Cdr {
            self.bytes(format!("{value}\0").as_bytes());
        } else {
            self.bytes(value.as_bytes());
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value > 127 {
            self.out.push(value as u8 | 128);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn pb_bytes(&mut self, tag: u64, value: &[u8]) {
        self.varint(tag << 3 | 2);
        self.varint(value.len() as u64);
        self.out.extend(value);
    }

    fn pb_fixed(&mut self, tag: u64, value: u32) {
        self.varint(tag << 3 | 5);
        self.out.extend(value.to_le_bytes());
    }
}

/// A message with all that it can carry.
fn write(
    schema: CameraSchema,
    serialization: Serialization,
    big: bool,
    message: &CameraMessage,
) -> Option<Vec<u8>> {
    let stamp = message.header_ns.unwrap_or(0);
    let (sec, nsec) = (stamp.div_euclid(1_000_000_000), stamp.rem_euclid(1_000_000_000));
    let mut w = Writer::new(serialization, big);
    let ros = matches!(schema, CameraSchema::RosImage | CameraSchema::RosCompressedImage);
    match serialization {
        Serialization::Cdr | Serialization::Ros1 => {
            if ros && serialization == Serialization::Ros1 {
                w.u32(77);
            }
            w.u32(sec as u32);
            w.u32(nsec as u32);
            w.string("camera");
            match (&message.payload, ros) {
                (Payload::Raw(image), true) => {
                    w.u32(image.height);
                    w.u32(image.width);
                    w.string(&image.encoding);
                    w.out.push(u8::from(image.is_bigendian));
                    w.u32(image.step);
                    w.bytes(&image.data);
                }
                (Payload::Raw(image), false) => {
                    w.u32(image.width);
                    w.u32(image.height);
                    w.string(&image.encoding);
                    w.u32(image.step);
                    w.bytes(&image.data);
                }
                (Payload::Compressed { format, data }, true) => {
                    w.string(format);
                    w.bytes(data);
                }
                (Payload::Compressed { format, data } | Payload::Video { format, data }, _) => {
                    w.bytes(data);
                    w.string(format);
                }
                _ => return None,
            }
        }
        Serialization::Protobuf if !ros => {
            let mut time = Writer::new(serialization, false);
            time.varint(1 << 3);
            time.varint(sec as u64);
            time.varint(2 << 3);
            time.varint(nsec as u64);
            w.pb_bytes(1, &time.out);
            match &message.payload {
                Payload::Raw(image) => {
                    w.pb_fixed(2, image.width);
                    w.pb_fixed(3, image.height);
                    w.pb_bytes(4, image.encoding.as_bytes());
                    w.pb_fixed(5, image.step);
                    w.pb_bytes(6, &image.data);
                    w.pb_bytes(7, b"camera");
                }
                Payload::Compressed { format, data } => {
                    w.pb_bytes(2, data);
                    w.pb_bytes(3, format.as_bytes());
                    w.pb_bytes(4, b"camera");
                }
                Payload::Video { format, data } => {
                    w.pb_bytes(2, b"camera");
                    w.pb_bytes(3, data);
                    w.pb_bytes(4, format.as_bytes());
                }
                _ => return None,
            }
        }
        Serialization::Json if !ros => {
            let mut json = serde_json::json!({
                "timestamp": {"sec": sec, "nsec": nsec}, "frame_id": "camera"
            });
            let (Payload::Raw(RawImage { data, .. })
            | Payload::Compressed { data, .. }
            | Payload::Video { data, .. }) = &message.payload
            else {
                return None;
            };
            json["data"] = base64::engine::general_purpose::STANDARD.encode(data).into();
            match &message.payload {
                Payload::Raw(image) => {
                    json["width"] = image.width.into();
                    json["height"] = image.height.into();
                    json["step"] = image.step.into();
                    json["encoding"] = image.encoding.clone().into();
                }
                Payload::Compressed { format, .. } | Payload::Video { format, .. } => {
                    json["format"] = format.clone().into();
                }
                _ => return None,
            }
            w.out = json.to_string().into_bytes();
        }
        Serialization::Protobuf | Serialization::Json => return None,
    }
    Some(w.out)
}

fn message(schema: CameraSchema, text: &str, data: &[u8], numbers: [u32; 4]) -> CameraMessage {
    let [sec, nsec, width, height] = numbers;
    let header_ns = Some(i64::from(sec >> 1) * 1_000_000_000 + i64::from(nsec % 1_000_000_000));
    let (format, data) = (text.to_string(), Bytes::copy_from_slice(data));
    let payload = match schema {
        CameraSchema::RosImage | CameraSchema::FoxgloveRawImage => Payload::Raw(RawImage {
            encoding: format,
            width,
            height,
            step: width ^ height,
            is_bigendian: schema == CameraSchema::RosImage && width % 2 == 1,
            data,
        }),
        CameraSchema::FoxgloveCompressedVideo => Payload::Video { format, data },
        _ => Payload::Compressed { format, data },
    };
    CameraMessage { header_ns, frame_id: Some("camera".into()), payload }
}

proptest! {
    #[test]
    fn round_trip_and_cut(
        text in "[ -~]{0,20}",
        data in prop::collection::vec(any::<u8>(), 0..200),
        numbers in any::<[u32; 4]>(),
        tail in prop::collection::vec(any::<u8>(), 0..9),
        cut in any::<prop::sample::Index>(),
    ) {
        // A picture in such a format is video.
        prop_assume!(video_format(&text).is_none());
        for schema in SCHEMAS {
            let expected = message(schema, &text, &data, numbers);
            for (serialization, big) in [
                (Serialization::Cdr, false), (Serialization::Cdr, true), (Serialization::Ros1, false),
                (Serialization::Protobuf, false), (Serialization::Json, false),
            ] {
                let written = write(schema, serialization, big, &expected);
                prop_assert_eq!(written.is_some(), schema.supports(serialization));
                let Some(mut written) = written else { continue };
                let whole = Bytes::from(written.clone());
                prop_assert_eq!(&decode(schema, serialization, &whole).unwrap(), &expected);
                // Missing bytes are found; except that fields of Protocol Buffers may be absent.
                let cut = decode(schema, serialization, &whole.slice(..cut.index(whole.len())));
                prop_assert!(cut.is_err() || serialization == Serialization::Protobuf);
                if serialization != Serialization::Protobuf {
                    written.extend(&tail);
                    prop_assert_eq!(&decode(schema, serialization, &written.into()).unwrap(), &expected);
                }
            }
        }
    }

    #[test]
    fn noise(data in prop::collection::vec(any::<u8>(), 0..300), head in 0u8..2) {
        let with_header: Bytes = [&[0, head, 0, 0], data.as_slice()].concat().into();
        let data = Bytes::from(data);
        for schema in SCHEMAS {
            for serialization in SERIALIZATIONS {
                let _ = decode(schema, serialization, &data);
                let _ = decode(schema, serialization, &with_header);
            }
        }
    }
}

#[test]
fn pictures_are_slices() {
    for serialization in [Serialization::Cdr, Serialization::Ros1, Serialization::Protobuf] {
        let expected = message(CameraSchema::FoxgloveRawImage, "rgb8", &[7; 500], [1; 4]);
        let written =
            write(CameraSchema::FoxgloveRawImage, serialization, false, &expected).unwrap();
        let written = Bytes::from(written);
        let decoded = decode(CameraSchema::FoxgloveRawImage, serialization, &written).unwrap();
        let Payload::Raw(image) = decoded.payload else { panic!("{decoded:?}") };
        assert!(written.as_ptr_range().contains(&image.data.as_ptr()), "{serialization:?}");
    }
}

#[test]
fn stamps() {
    assert_eq!(stamp(0, 0), Some(0));
    assert_eq!(stamp(0, 5), Some(5));
    assert_eq!(stamp(-1, 5), Some(-999_999_995));
    assert_eq!(stamp(i64::MAX, 5), None);
    // ROS 2 has signed seconds, ROS 1 unsigned ones.
    for (serialization, expected) in
        [(Serialization::Cdr, -1_000_000_000), (Serialization::Ros1, 4_294_967_295_000_000_000)]
    {
        let mut w = Writer::new(serialization, false);
        if serialization == Serialization::Ros1 {
            w.u32(1);
        }
        w.u32(u32::MAX);
        w.u32(0);
        w.string("");
        w.string("jpeg");
        w.bytes(&[]);
        let decoded =
            decode(CameraSchema::RosCompressedImage, serialization, &w.out.into()).unwrap();
        assert_eq!(decoded.header_ns, Some(expected));
    }
}

#[test]
fn absurd_lengths_are_not_allocated() {
    for serialization in [Serialization::Cdr, Serialization::Ros1] {
        let mut w = Writer::new(serialization, false);
        if serialization == Serialization::Ros1 {
            w.u32(1);
        }
        w.u32(1);
        w.u32(2);
        w.u32(u32::MAX);
        let error = decode(CameraSchema::RosImage, serialization, &w.out.into()).unwrap_err();
        assert!(error.reason.contains("`frame_id`, which is 4294967295 bytes"), "{error}");
    }
    let bad = Bytes::from_static(&[0, 3, 0, 0, 1, 2, 3, 4]);
    let error = decode(CameraSchema::RosImage, Serialization::Cdr, &bad).unwrap_err();
    assert!(error.reason.contains("0x0003"), "{error}");
    let error = decode(CameraSchema::RosImage, Serialization::Json, &bad).unwrap_err();
    assert!(error.reason.contains("Json"), "{error}");
}

#[test]
fn json_variants() {
    let table = [
        (r#"{"format":"jpeg","data":"AAEC","extra":[1,{"a":2}]}"#, Ok(None)),
        (r#"{"timestamp":null,"format":"jpeg","data":"AAEC"}"#, Ok(None)),
        (
            r#"{"timestamp":{"sec":1,"nanosec":2},"format":"jpeg","data":"AAEC"}"#,
            Ok(Some(1_000_000_002)),
        ),
        (
            r#"{"timestamp":{"sec":0,"nsec":0},"format":"\u006apeg","data":"AAE\u0043"}"#,
            Ok(Some(0)),
        ),
        (r#"{"format":"jpeg"}"#, Err("data")),
        (r#"{"format":"jpeg","data":"A*EC"}"#, Err("base64")),
        (r#"{"format":"jpeg","data":"AA"#, Err("EOF")),
    ];
    for (json, expected) in table {
        let data = Bytes::from_static(json.as_bytes());
        let decoded = decode(CameraSchema::FoxgloveCompressedImage, Serialization::Json, &data);
        match expected {
            Ok(header_ns) => {
                let data = Bytes::from_static(&[0, 1, 2]);
                let payload = Payload::Compressed { format: "jpeg".into(), data };
                let frame_id = None;
                let expected = CameraMessage { header_ns, frame_id, payload };
                assert_eq!(decoded.unwrap(), expected, "{json}");
            }
            Err(part) => {
                let error = decoded.unwrap_err();
                assert!(error.reason.contains(part), "{json}: {error}");
            }
        }
    }
}
