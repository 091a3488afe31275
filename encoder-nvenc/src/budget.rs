//! Limits the encoders on one GPU, over all programs of this user.
//!
//! Each GPU has a lock file for each session that `gpu.max_sessions` allows. A process that holds
//! the lock has the session; the system releases the lock whenever the process ends.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use encoder_core::{EncoderType, Holders, Refusal, RefusalKind};

use crate::facts::Found;

/// The lock files that this process holds. The mutex is held while a lock file is locked or
/// unlocked, so that the set is exact.
static HELD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn held() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A taken session; dropping it releases the session.
#[derive(Debug)]
pub(crate) struct Slot {
    lock: File,
    path: PathBuf,
    /// The GPU that the encoder must be opened on; `None` if FFmpeg chooses.
    pub(crate) gpu: Option<u32>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = held();
        // Closing the file would not suffice: a child that is being started has it open too.
        let _ = self.lock.unlock();
        held.remove(&self.path);
    }
}

/// Takes one of `sessions` sessions. If several GPUs may be used, the GPU with the most free
/// sessions is taken.
///
/// # Errors
/// A transient [`RefusalKind::Busy`], with its [`Holders`], when all are in use;
/// [`RefusalKind::Failed`] when there is no folder for the lock files.
pub(crate) fn take(found: &Found, sessions: u32) -> Result<Slot, Refusal> {
    let refuse = |kind, reason, hint| Refusal::new(EncoderType::NVENC, kind, reason, hint);
    let taken = folder().and_then(|folder| take_in(&folder, &places(found), sessions));
    let holders = match taken {
        Ok(Ok(slot)) => return Ok(slot),
        Ok(Err(holders)) => holders,
        Err(error) => {
            return Err(refuse(
                RefusalKind::Failed,
                format!("sessions cannot be counted: {error}"),
                "set XDG_RUNTIME_DIR to a folder of this user, or leave max_sessions out",
            ));
        }
    };
    let gpus = match found.gpus.len() {
        0 | 1 => found.name.clone(),
        _ => format!("each GPU ({})", found.name),
    };
    let (users, hint) = match holders {
        Holders::ThisProcess => (
            "in use by this program itself",
            "raise gpu.max_sessions, encode fewer videos at once, or allow another encoder",
        ),
        _ => (
            "in use",
            "wait for another video to end (gpu.session_wait_s), raise gpu.max_sessions, or use \
             another encoder",
        ),
    };
    let reason = format!("all {sessions} sessions of {gpus} that max_sessions allows are {users}");
    Err(refuse(RefusalKind::Busy, reason, hint).transient().held_by(holders))
}

/// The GPUs that have their own budget: the index to open on, and the name in the lock files.
///
/// If the indices of the GPUs are not known, all share one budget and FFmpeg chooses.
fn places(found: &Found) -> Vec<(Option<u32>, String)> {
    match &found.gpus[..] {
        [] => vec![(None, "gpu0".into())],
        [one] => vec![(None, one.key.clone())],
        several if several.iter().all(|gpu| gpu.known) => {
            let able = several.iter().filter(|gpu| !gpu.bare);
            able.map(|gpu| (Some(gpu.index), gpu.key.clone())).collect()
        }
        _ => vec![(None, "all".into())],
    }
}

/// Takes a session, or returns the holders of all sessions.
fn take_in(
    folder: &Path,
    places: &[(Option<u32>, String)],
    sessions: u32,
) -> io::Result<Result<Slot, Holders>> {
    let mut held = held();
    let mut holders = Holders::ThisProcess;
    // The first session of every GPU is tried before any second session, so that GPUs are filled
    // evenly.
    for session in 0..sessions {
        for (gpu, key) in places {
            let key: String = key.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
            let path = folder.join(format!("nvenc-{key}-{session}"));
            let lock = File::options().create(true).truncate(false).write(true).open(&path)?;
            match lock.try_lock() {
                Ok(()) => {
                    held.insert(path.clone());
                    return Ok(Ok(Slot { lock, path, gpu: *gpu }));
                }
                Err(TryLockError::WouldBlock) if held.contains(&path) => {}
                Err(TryLockError::WouldBlock) => holders = Holders::Others,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
    Ok(Err(holders))
}

/// The folder of the lock files: the same for all programs of this user.
fn folder() -> io::Result<PathBuf> {
    #[cfg(unix)]
    {
        // SAFETY: takes nothing and cannot fail.
        let user = unsafe { libc::geteuid() };
        let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let own = own.unwrap_or_else(|| format!("/run/user/{user}").into());
        let folder = match own.is_dir() {
            true => own.join("encoder"),
            false => std::env::temp_dir().join(format!("encoder-{user}")),
        };
        private(&folder, user)?;
        Ok(folder)
    }
    #[cfg(not(unix))]
    {
        let folder = std::env::temp_dir().join("encoder");
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// Creates `folder` unless it exists, and checks that no other user can write to it.
#[cfg(unix)]
fn private(folder: &Path, user: u32) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            let place = folder.display();
            return Err(io::Error::new(error.kind(), format!("{place}: {error}")));
        }
        _ => {}
    }
    let meta = fs::symlink_metadata(folder)?;
    if !meta.is_dir() || meta.uid() != user || meta.mode() & 0o077 != 0 {
        let place = folder.display();
        return Err(io::Error::other(format!("{place} is not a private folder of this user")));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    fn places(names: &[&str]) -> Vec<(Option<u32>, String)> {
        (0..).zip(names).map(|(index, name)| (Some(index), (*name).to_owned())).collect()
    }

    #[test]
    fn each_session_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(&["GPU-1", "GPU-2"]);
        let take = || take_in(folder.path(), &places, 3).unwrap();
        let mut slots: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..20).map(|_| scope.spawn(take)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
        });
        assert_eq!(slots.len(), 6);
        for gpu in [0, 1] {
            assert_eq!(slots.iter().filter(|slot| slot.gpu == Some(gpu)).count(), 3);
        }
        assert_eq!(take().unwrap_err(), Holders::ThisProcess);
        let given_back = slots.pop().unwrap().gpu;
        assert_eq!(take().unwrap().gpu, given_back);
    }

    #[test]
    fn gpus_are_filled_evenly() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(&["a", "b", "c"]);
        let take = || take_in(folder.path(), &places, 2).unwrap();
        let mut slots: Vec<_> = (0..6).map(|_| take().unwrap()).collect();
        let order: Vec<_> = slots.iter().filter_map(|slot| slot.gpu).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
        drop(slots.remove(1));
        assert_eq!(take().unwrap().gpu, Some(1));
    }

    /// The other program of the test below: takes a session, prints that, and waits to be killed.
    #[test]
    #[ignore = "started by `the_session_of_another_program_counts_until_it_is_killed`"]
    fn another_program() {
        let folder = std::env::var_os("ENCODER_TEST_FOLDER").unwrap();
        let slot = take_in(Path::new(&folder), &places(&["a"]), 2).unwrap();
        println!("{}", if slot.is_ok() { "\ntaken" } else { "\nnone" });
        std::io::stdin().lines().next();
    }

    #[test]
    fn the_session_of_another_program_counts_until_it_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "budget::tests::another_program", "--ignored", "--nocapture"]);
            command.env("ENCODER_TEST_FOLDER", folder.path());
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let said = lines.map(Result::unwrap).find(|line| line == "taken" || line == "none");
            (child, said.unwrap())
        };
        let take = || take_in(folder.path(), &places(&["a"]), 2).unwrap();
        let (mut first, said) = start();
        assert_eq!(said, "taken");
        let mine = take();
        assert!(mine.is_ok());
        // Another program holds one of the two sessions, and may end while this program waits.
        assert_eq!(take().unwrap_err(), Holders::Others);
        let (mut second, said) = start();
        assert_eq!(said, "none");
        first.kill().unwrap();
        first.wait().unwrap();
        let freed = take();
        assert!(freed.is_ok());
        assert_eq!(take().unwrap_err(), Holders::ThisProcess);
        drop((mine, freed));
        assert!(take().is_ok());
        second.kill().unwrap();
        second.wait().unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_private() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
        let place = tempfile::tempdir().unwrap();
        let user = place.path().metadata().unwrap().uid();
        let folder = place.path().join("encoder");
        private(&folder, user).unwrap();
        private(&folder, user).unwrap();
        assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
        let message = |error: io::Error| error.to_string();
        assert!(private(&folder, user + 1).map_err(message).unwrap_err().contains("private"));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(private(&folder, user).is_err());
        let link = place.path().join("link");
        symlink(&folder, &link).unwrap();
        assert!(private(&link, user).is_err());
        assert!(
            private(&place.path().join("a/b"), user).map_err(message).unwrap_err().contains("a/b")
        );
        // The folder that is used outside of tests.
        assert!(super::folder().unwrap().is_dir());
    }
}
