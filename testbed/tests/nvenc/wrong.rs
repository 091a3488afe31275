//! FFmpeg does not detect wrong output.

use encoder_testbed::nvenc::{Fault, Wrong};

use crate::{
    device,
    ffmpeg::{Encode, ffmpegs, stderr},
};

#[test]
fn a_wrong_picture_is_not_detected() {
    let kinds = [
        Wrong::Sample,
        Wrong::Black,
        Wrong::Stale,
        Wrong::Shifted,
        Wrong::Swapped,
        Wrong::Garbage,
        Wrong::Truncated,
        Wrong::Empty,
        Wrong::Timestamp,
    ];
    for ffmpeg in ffmpegs() {
        for kind in kinds {
            let Some(device) = device() else { return };
            let device = device.fault(Fault::output(kind).frame(5));
            let mut encode = Encode::new(ffmpeg, &device).options("-bf 0");
            encode.format = "flv";
            let output = encode.run();
            assert!(output.status.success(), "{kind:?}: {}", stderr(&output));
            if kind == Wrong::Timestamp {
                assert!(encode.times(output.stdout).iter().any(|time| *time > 2000));
                continue;
            }
            let (input, picture) = (encode.input(), encode.picture());
            let decoded = encode.decode(output.stdout).stdout;
            // The five pictures before are correct, the sixth is wrong or missing.
            assert_eq!(decoded[..5 * picture], input[..5 * picture], "{kind:?}");
            assert!(
                decoded.get(5 * picture..6 * picture) != Some(&input[5 * picture..6 * picture]),
                "{kind:?}"
            );
            if kind == Wrong::Sample {
                let differs = |(a, b): &(&u8, &u8)| a != b;
                let sixth = decoded.iter().zip(&input).skip(5 * picture).take(picture);
                assert_eq!(sixth.filter(differs).count(), 1);
            }
        }
    }
}
