//! The Quick Sync backend: Intel's encoder, hosted by FFmpeg's `h264_qsv`.
//!
//! Frames are NV12, whatever `pixel_format` asks for: the encoder takes nothing else, and
//! [`VideoEncoder::pixel_format`] says so.
//!
//! Quality: `crf` becomes `-global_quality` (ICQ) of the same number, between 1 and 51.

use std::{
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use encoder_core::{
    Backend, BackendOptions, Codec, ConfigError, Device, EncoderConfig, EncoderType, OpenError,
    OpenRequest, PixelFormat, Preset, Refusal, RefusalKind, Verdict, VideoEncoder,
};
use encoder_ffmpeg::{Job, read_options};
use serde::Deserialize;

encoder_core::inventory::submit! {
    Backend {
        id: EncoderType::QSV,
        rank: 20,
        hardware: true,
        codecs: &[Codec::H264],
        check_options: |options| QsvOptions::read(options).map(|_| ()),
        inspect,
        prove,
        max_delay: |request| job_of(request).map_or(0, |(job, _)| job.max_delay),
        open,
    }
}

/// Table `[backend.qsv]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QsvOptions {
    /// The render node, on Linux: `/dev/dri/renderD128`. Default: what the runtime chooses.
    pub device: Option<PathBuf>,
    /// Frames that are encoded at once, 1 to 32. Default 4.
    pub async_depth: u32,
}

impl Default for QsvOptions {
    fn default() -> Self {
        Self { device: None, async_depth: 4 }
    }
}

impl QsvOptions {
    /// Reads and checks the table.
    ///
    /// # Errors
    /// [`ConfigError`] for unknown keys and wrong values.
    pub fn read(options: &BackendOptions) -> Result<Self, ConfigError> {
        let options: Self = read_options(EncoderType::QSV, options, &["device", "async_depth"])?;
        if !(1..=32).contains(&options.async_depth) {
            let value = options.async_depth;
            return Err(ConfigError::value("backend.qsv.async_depth", value, "1 to 32"));
        }
        // The path becomes one part of an option of FFmpeg, where a comma begins the next.
        if options.device.as_ref().is_some_and(|d| d.to_str().is_none_or(|d| d.contains(','))) {
            let allowed = "a path without commas, such as /dev/dri/renderD128";
            return Err(ConfigError::value("backend.qsv.device", "this path", allowed));
        }
        Ok(options)
    }
}

/// The job for FFmpeg.
pub fn job(config: &EncoderConfig, options: &QsvOptions) -> Job {
    // Quick Sync has no preset faster than veryfast.
    let preset = config.preset.max(Preset::Veryfast);
    let quality = config.crf.max(1);
    let EncoderConfig { gop_size, b_frames, .. } = *config;
    let depth = options.async_depth;
    let mut job = Job::new(EncoderType::QSV, "h264_qsv", config).with_options(&format!(
        "-preset {preset} -global_quality {quality} -look_ahead 0 -g {gop_size} -bf {b_frames} \
         -idr_interval 0 -forced_idr 1 -async_depth {depth}"
    ));
    if let Some(device) = &options.device {
        let device = format!("qsv=hw,child_device={}", device.display());
        job.global = vec!["-init_hw_device".into(), device];
    }
    job.format = PixelFormat::Nv12;
    job.max_delay = depth as usize + 2 * usize::from(b_frames) + 12;
    job
}

/// Looks for a render node that this user may open, without starting anything.
fn look(options: &QsvOptions) -> Result<(), Refusal> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let nodes = match &options.device {
        Some(device) => vec![device.clone()],
        None => render_nodes(Path::new("/dev/dri")),
    };
    check_nodes(&nodes)
}

fn render_nodes(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut nodes: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("renderD"))
        .map(|entry| entry.path())
        .collect();
    nodes.sort();
    nodes
}

/// One that opens is enough; of several refusals the first is told.
fn check_nodes(nodes: &[PathBuf]) -> Result<(), Refusal> {
    let mut first = None;
    for node in nodes {
        match OpenOptions::new().read(true).write(true).open(node) {
            Ok(_) => return Ok(()),
            Err(error) => first.get_or_insert((node, error)),
        };
    }
    Err(match first {
        None => no_device("there is no /dev/dri/renderD* device".into()),
        Some((node, error)) => refused_node(node, &error, group_of(node).as_deref()),
    })
}

fn refused_node(node: &Path, error: &io::Error, group: Option<&str>) -> Refusal {
    let place = node.display();
    if error.kind() != io::ErrorKind::PermissionDenied {
        return no_device(format!("{place} cannot be opened: {error}"));
    }
    let group = group.unwrap_or("render");
    Refusal::new(
        EncoderType::QSV,
        RefusalKind::Permission,
        format!("this user may not open {place}, which belongs to the group {group}"),
        format!(
            "add the user to the group: sudo usermod -aG {group} $USER, and log in again; in a \
             container pass --device /dev/dri and --group-add with the group's number"
        ),
    )
}

fn no_device(reason: String) -> Refusal {
    Refusal::new(
        EncoderType::QSV,
        RefusalKind::NoDevice,
        reason,
        "use a machine with an Intel GPU and its kernel driver (i915 or xe); in a container pass \
         --device /dev/dri; or use another encoder",
    )
}

/// The name of a file's group; its number where the system has no name for it.
#[cfg(unix)]
fn group_of(path: &Path) -> Option<String> {
    let gid = std::os::unix::fs::MetadataExt::gid(&path.metadata().ok()?).to_string();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    Some(group_name(&groups, &gid).unwrap_or(gid))
}

#[cfg(not(unix))]
fn group_of(_: &Path) -> Option<String> {
    None
}

#[cfg(any(unix, test))]
fn group_name(groups: &str, gid: &str) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid).then(|| name.to_owned())
    })
}

fn job_of(request: &OpenRequest<'_>) -> Result<(Job, QsvOptions), ConfigError> {
    let options = QsvOptions::read(request.options)?;
    Ok((job(request.config, &options), options))
}

fn inspect(request: &OpenRequest<'_>) -> Result<Device, OpenError> {
    let (job, options) = job_of(request)?;
    look(&options)?;
    Ok(Device { identity: encoder_ffmpeg::identity(&job)?, ..Device::default() })
}

fn prove(request: &OpenRequest<'_>, deadline: Duration) -> Verdict {
    match job_of(request) {
        Ok((job, _)) => encoder_ffmpeg::test_encode(&job, deadline),
        Err(error) => Verdict::Refused(encoder_ffmpeg::misconfigured(EncoderType::QSV, &error)),
    }
}

fn open(request: &OpenRequest<'_>) -> Result<Box<dyn VideoEncoder>, OpenError> {
    let (job, options) = job_of(request)?;
    look(&options)?;
    encoder_ffmpeg::open(job, request)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn argument_lists() {
        let table = [
            (
                "",
                Preset::Ultrafast,
                23,
                0,
                "",
                "-preset veryfast -global_quality 23 -look_ahead 0 -g 30 -bf 0 -idr_interval 0 \
              -forced_idr 1 -async_depth 4",
                16,
            ),
            (
                "async_depth = 1\ndevice = \"/dev/dri/renderD129\"",
                Preset::Slow,
                0,
                2,
                "-init_hw_device qsv=hw,child_device=/dev/dri/renderD129",
                "-preset slow -global_quality 1 -look_ahead 0 -g 30 -bf 2 -idr_interval 0 \
              -forced_idr 1 -async_depth 1",
                17,
            ),
        ];
        for (options, preset, crf, b_frames, global, expected, delay) in table {
            let config = EncoderConfig { preset, crf, b_frames, ..Default::default() };
            let job = job(&config, &QsvOptions::read(&options.parse().unwrap()).unwrap());
            assert_eq!(job.global.join(" "), global);
            assert_eq!(job.options.join(" "), expected);
            assert_eq!((job.format, job.max_delay), (PixelFormat::Nv12, delay));
        }
    }

    #[test]
    fn options() {
        for (text, expected) in [
            ("async_dept = 1", "did you mean `async_depth`?"),
            ("async_depth = 0", "1 to 32"),
            ("async_depth = 33", "1 to 32"),
            ("device = \"a,b\"", "without commas"),
            ("device = 3", "[backend.qsv]"),
        ] {
            let error = QsvOptions::read(&text.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn devices() {
        let node = Path::new("/dev/dri/renderD128");
        let denied = refused_node(node, &io::ErrorKind::PermissionDenied.into(), Some("video"));
        assert_eq!(denied.kind, RefusalKind::Permission);
        assert!(denied.reason.contains("the group video"), "{denied}");
        assert!(denied.cure.contains("usermod -aG video"), "{denied}");
        let lost = refused_node(node, &io::ErrorKind::NotFound.into(), None);
        assert_eq!(lost.kind, RefusalKind::NoDevice);
        assert_eq!(check_nodes(&[]).unwrap_err().kind, RefusalKind::NoDevice);
        assert_eq!(check_nodes(&["/nowhere/x".into()]).unwrap_err().kind, RefusalKind::NoDevice);
        assert!(render_nodes(Path::new("/nowhere")).is_empty());
        let groups = "root:x:0:\nvideo:x:44:me\nrender:x:104:\nbroken";
        assert_eq!(group_name(groups, "104").as_deref(), Some("render"));
        assert_eq!(group_name(groups, "4"), None);
    }

    /// With or without a device: FFmpeg reads the options first. Needs FFmpeg.
    #[test]
    fn ffmpeg_knows_every_option() {
        let job = job(&EncoderConfig { b_frames: 2, ..Default::default() }, &QsvOptions::default());
        match encoder_ffmpeg::test_encode(&job, Duration::from_secs(60)) {
            Verdict::Usable(_) => {}
            Verdict::Refused(refusal) => {
                let device = [RefusalKind::Missing, RefusalKind::NoDevice, RefusalKind::Busy];
                assert!(device.contains(&refusal.kind), "{refusal}");
                assert!(!refusal.cure.contains("ENCODER_FFMPEG"), "{refusal}");
                println!("{refusal}");
            }
        }
    }

    #[test]
    fn it_registers_itself() {
        let ids: Vec<_> = encoder_core::backends().iter().map(|b| (b.id, b.rank)).collect();
        assert_eq!(ids, [(EncoderType::QSV, 20)]);
    }
}
