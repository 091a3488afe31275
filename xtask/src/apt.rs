//! Installs Debian's packages on Debian or Ubuntu.

use std::process::Command;

use crate::process::{output, show, succeeds};

/// Installs packages and returns whether they are installed. Only root may; for other users the
/// command is printed.
pub fn apt(packages: &[&str]) -> bool {
    let is_root = || output(Command::new("id").arg("-u")).is_ok_and(|o| o.stdout == b"0\n");
    if !cfg!(target_os = "linux") || !succeeds(Command::new("apt-get").arg("--version")) {
        return false;
    }
    if !is_root() {
        println!("setup: only root can run: apt-get install {}", packages.join(" "));
        return false;
    }
    let install = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
        show(&mut command).unwrap_or(false)
    };
    // On a fresh machine the package lists may be missing or old.
    install()
        || (show(Command::new("apt-get").args(["update", "-qq"])).unwrap_or(false) && install())
}
