//! The version strings of FFmpeg's builds.

/// The text after `ffmpeg version` of one vendor's build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vendor {
    /// The name of the vendor.
    pub name: &'static str,
    /// The rest of the line, up to the copyright.
    pub version: &'static str,
    /// The release that it means, major and minor number; `None` for a development build, which
    /// has a date or a revision instead.
    pub release: Option<(u32, u32)>,
}

const fn release(name: &'static str, version: &'static str, major: u32, minor: u32) -> Vendor {
    Vendor { name, version, release: Some((major, minor)) }
}

const fn development(name: &'static str, version: &'static str) -> Vendor {
    Vendor { name, version, release: None }
}

/// Version strings as they occur, from FFmpeg 2.8 to 9.0.
pub const VENDORS: &[Vendor] = &[
    release("Debian 11", "4.3.9-0+deb11u1", 4, 3),
    release("Debian 12", "5.1.9-0+deb12u1", 5, 1),
    release("Debian 13", "7.1.3-0+deb13u1", 7, 1),
    release("Raspberry Pi OS 9", "3.2.10-1~deb9u1+rpt1", 3, 2),
    release("Raspberry Pi OS 12", "5.1.9-0+deb12u1+rpt1", 5, 1),
    release("Ubuntu 16.04", "2.8.15-0ubuntu0.16.04.1", 2, 8),
    release("Ubuntu 20.04, Jetson with L4T 35", "4.2.7-0ubuntu0.1", 4, 2),
    release("Ubuntu 21.10", "4.4-6ubuntu5", 4, 4),
    release("Ubuntu 22.04, Jetson with L4T 36", "4.4.2-0ubuntu0.22.04.1", 4, 4),
    release("Ubuntu 24.04", "6.1.1-3ubuntu5", 6, 1),
    release("a PPA for Ubuntu", "4.2.2-1ubuntu1~18.04.york0", 4, 2),
    release("built on a Jetson with NVMPI", "n4.4.1-7-g911d118cde", 4, 4),
    development("built on a Jetson, a shallow clone", "a1b534b"),
    release("Fedora, Alpine, conda-forge, FreeBSD", "6.1.1", 6, 1),
    release("Homebrew", "8.0", 8, 0),
    release("Arch", "n7.0.2", 7, 0),
    release("static, releases", "7.0.2-static https://johnvansickle.com/ffmpeg/ ", 7, 0),
    development("static, git", "N-51578-g62d92a878d-static https://johnvansickle.com/ffmpeg/ "),
    development("BtbN, master", "N-117705-g7b20985d8d-20241105"),
    release("BtbN, a release branch", "n7.1.5-12-g1fdbca85aa-20260731", 7, 1),
    release("a Python wheel", "n9.0.2-17-g2a571b6068-20260930", 9, 0),
    release("gyan.dev, essentials", "7.1-essentials_build-www.gyan.dev", 7, 1),
    release("gyan.dev, full", "9.0.1-full_build-www.gyan.dev", 9, 0),
    release("gyan.dev, a dated release", "4.3.1-2020-10-01-full_build-www.gyan.dev", 4, 3),
    development("gyan.dev, git", "2026-01-29-git-c898ddb8fe-full_build-www.gyan.dev"),
    release("tessus, releases", "9.0.2-tessus", 9, 0),
    release("tessus, with its address", "4.2.2-tessus  https://evermeet.cx/ffmpeg/ ", 4, 2),
    development("tessus, git", "N-119886-g52441bd4cd-tessus"),
    release("Jellyfin", "5.0.1-Jellyfin", 5, 0),
    release("Jellyfin, newer", "8.1.2-Jellyfin", 8, 1),
    release("Kodi", "4.2.2-Matrix-Alpha1-26-g6029b361f2-Kodi", 4, 2),
    development("Zeranoe", "git-2020-08-31-4a11a6f"),
    development("git, newer", "git-2026-07-14-312c830916"),
    development("git, a clone without tags", "git-N-30610-g1929807"),
    development("git, older than its tags", "N-110790-ge8e4863325"),
    development("a source tree without its version", "UNKNOWN"),
];
