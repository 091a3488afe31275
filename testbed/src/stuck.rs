//! A file whose opening never returns, not even after SIGKILL: a process that opens it is in
//! uninterruptible sleep, as in a driver that hangs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::compile::{self, Library, Missing};

/// A folder with such a file. It exists for the programs of [`command`](Self::command) alone.
#[derive(Debug)]
pub struct StuckFile {
    program: PathBuf,
    folder: TempDir,
    file: String,
}

impl StuckFile {
    /// A folder with a file of this name.
    ///
    /// # Errors
    /// Without a C compiler, or where a user may not mount a file system of his own (user
    /// namespaces and FUSE).
    pub fn new(file: &str) -> Result<Self, Missing> {
        let library = Library {
            file: "stuck-folder",
            sources: &["stuck_folder.c"],
            includes: &[],
            arguments: &[],
        };
        let program = compile::compile(&[library])?.join("stuck-folder");
        let folder = tempfile::Builder::new().prefix("stuck-").tempdir();
        let folder = folder.map_err(|error| Missing(format!("no folder: {error}")))?;
        let stuck = Self { program, folder, file: file.into() };
        let tried = stuck.command(Path::new("true")).output();
        match tried {
            Ok(output) if output.status.success() => Ok(stuck),
            Ok(output) => Err(Missing(format!(
                "no file system can be mounted here: {}",
                String::from_utf8_lossy(&output.stderr)
            ))),
            Err(error) => Err(Missing(format!("no namespace can be made here: {error}"))),
        }
    }

    /// The folder of the file.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A command that runs `program` where the folder exists, to which its arguments are to be
    /// added. After the program, the command writes the state of each process that opened the file
    /// to stderr: `stuck: process 42 is in state D`. Its exit status is that of the program.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("unshare");
        command.args(["-r", "-m", "--"]).arg(&self.program);
        command.arg(self.folder.path()).arg(&self.file).arg(program);
        command
    }
}
