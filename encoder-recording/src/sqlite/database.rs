//! Opens an untrusted database. Writes neither to it nor to its directory.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use encoder_media::{FileInput, ReadAt};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use crate::{SourceError, SourceOptions, Warning, signature};

/// Largest value or row that is always accepted: a schema must fit.
const LEAST_LENGTH: u64 = 1 << 20;
/// First bytes of a rollback journal with a transaction.
const JOURNAL: &[u8] = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7";

/// An open database.
pub(super) struct Database {
    pub(super) connection: Connection,
    files: [PathBuf; 2],
    /// The state of the files when the database was opened.
    before: [Option<State>; 2],
}

/// The properties of a file that change when it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    len: u64,
    modified: Option<SystemTime>,
}

impl State {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { len: metadata.len(), modified: metadata.modified().ok() })
    }
}

impl Database {
    /// Opens a database for reading only. No lock is taken and no file is made.
    ///
    /// What the recorder has not moved from its write-ahead log (`-wal`) into the database is read
    /// from the log. The index of the log, which is normally a file that the readers share, is kept
    /// in memory.
    ///
    /// # Errors
    /// [`SourceError`] when the file is not a database, or cannot be opened.
    pub(super) fn open(
        path: &Path,
        options: &SourceOptions,
    ) -> Result<(Self, Vec<Warning>), SourceError> {
        check_magic(path)?;
        let sqlite = |error: rusqlite::Error| {
            SourceError::invalid(path, format!("cannot be opened: {error}"), "check the file")
        };
        // The log lies beside the database itself, not beside a link to it.
        let real = path.canonicalize().map_err(|error| SourceError::io(path, error))?;
        let [log, journal] = ["-wal", "-journal"].map(|ending| beside(&real, ending));
        let mut warnings = Vec::new();
        let mut has_log = std::fs::metadata(&log).is_ok_and(|meta| meta.len() > 0);
        if has_log && !std::fs::symlink_metadata(&log).is_ok_and(|meta| meta.is_file()) {
            has_log = false;
            let text = format!(
                "{} is not a file itself and is not read: messages may be missing",
                log.display()
            );
            warnings.push(Warning { text, loss: true });
        }
        let has_journal = std::fs::symlink_metadata(&journal).is_ok_and(|meta| meta.is_file())
            && signature::head(&journal, JOURNAL.len() as u64).is_ok_and(|head| head == JOURNAL);
        if has_journal {
            let text = format!(
                "{} has a transaction that was not completed: messages may be missing or broken; \
                 to undo it, open a copy of both files with sqlite3",
                journal.display()
            );
            warnings.push(Warning { text, loss: true });
        }
        let files = [real.clone(), log];
        let before = files.each_ref().map(|file| State::of(file));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(address(&real, has_log), flags)
            .and_then(|connection| {
                if has_log {
                    // Set before the log is opened, so that its index is kept in memory.
                    connection.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))?;
                }
                protect(&connection, options)?;
                Ok(connection)
            })
            .map_err(sqlite)?;
        warnings.extend(another_behind(&connection, &real));
        Ok((Self { connection, files, before }, warnings))
    }

    /// Whether the database was written since it was opened. A deleted database counts as not
    /// written.
    pub(super) fn has_changed(&self) -> bool {
        let [database, log] = self.files.each_ref().map(|file| State::of(file));
        database.is_some() && [database, log] != self.before
    }

    /// Checks that `topics` and `messages` are plain tables. Views, virtual tables and generated
    /// columns execute expressions from the database instead of reading rows.
    pub(super) fn check_schema(&self) -> rusqlite::Result<Result<(), String>> {
        for table in ["topics", "messages"] {
            if let Err(reason) = self.check_table(table)? {
                return Ok(Err(reason));
            }
        }
        Ok(Ok(()))
    }

    /// Checks that a table is a plain one.
    pub(super) fn check_table(&self, table: &str) -> rusqlite::Result<Result<(), String>> {
        let mut found = self.connection.prepare(&format!("PRAGMA table_list({table})"))?;
        let kinds = found
            .query_map([], |row| Ok((row.get("type")?, row.get("wr")?)))?
            .collect::<rusqlite::Result<Vec<(String, bool)>>>()?;
        match kinds.as_slice() {
            [(kind, without_rowid)] if kind == "table" && !without_rowid => {}
            [] => return Ok(Err(format!("it has no table `{table}`"))),
            _ => return Ok(Err(format!("`{table}` is not a plain table"))),
        }
        let mut columns = self.connection.prepare(&format!("PRAGMA table_xinfo({table})"))?;
        let mut columns = columns.query([])?;
        while let Some(column) = columns.next()? {
            let (name, hidden): (String, i64) = (column.get("name")?, column.get("hidden")?);
            if hidden != 0 || name.eq_ignore_ascii_case("rowid") {
                return Ok(Err(format!("column `{name}` of table `{table}` is not plain")));
            }
        }
        Ok(Ok(()))
    }
}

/// A warning if another database stands behind the end of this database in the file.
fn another_behind(connection: &Connection, path: &Path) -> Option<Warning> {
    let number = |pragma| connection.query_row(pragma, [], |row| row.get::<_, u32>(0)).ok();
    let end = u64::from(number("PRAGMA page_count")?) * u64::from(number("PRAGMA page_size")?);
    let file = FileInput::open(path).ok()?;
    let mut start = [0; signature::SQLITE.len()];
    file.read_at(end, &mut start).ok()?;
    (end > 0 && start == signature::SQLITE).then(|| Warning {
        text: format!(
            "the file consists of several databases, one behind the other: only the first, of \
             {end} bytes, is read; split the file to read the others"
        ),
        loss: true,
    })
}

/// The old limit, which `set_limit` returns alone in versions of rusqlite up to 0.32, and in a
/// result since then.
trait OldLimit {
    fn checked(self) -> rusqlite::Result<i32>;
}

impl OldLimit for i32 {
    fn checked(self) -> rusqlite::Result<i32> {
        Ok(self)
    }
}

impl OldLimit for rusqlite::Result<i32> {
    fn checked(self) -> Self {
        self
    }
}

/// Settings for a database from an unknown writer.
fn protect(connection: &Connection, options: &SourceOptions) -> rusqlite::Result<()> {
    for (setting, value) in [
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        // Nothing is written on close either.
        (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
    ] {
        connection.set_db_config(setting, value)?;
    }
    let length = options.limits.message_bytes.max(LEAST_LENGTH);
    let length = i32::try_from(length).unwrap_or(i32::MAX);
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, length).checked()?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0).checked()?;
    // No temporary files are used; pages are checked before they are used.
    connection.execute_batch(
        "PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON;
         PRAGMA query_only = ON;",
    )
}

fn check_magic(path: &Path) -> Result<(), SourceError> {
    match signature::head(path, signature::SQLITE.len() as u64)?.as_slice() {
        signature::SQLITE => Ok(()),
        [] => Err(SourceError::invalid(path, "the file is empty", "record again")),
        _ => Err(SourceError::invalid(path, "not an SQLite database", "check what it is")),
    }
}

/// The path of a file that SQLite keeps beside a database.
fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// The URI of a database that is only read. Without a log the file is opened as immutable: no lock,
/// no shared memory. With a log SQLite's file system without locks is used.
fn address(path: &Path, has_log: bool) -> String {
    let mut uri = String::from("file:");
    if cfg!(windows) && path.is_absolute() {
        uri.push('/');
    }
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'\\' if cfg!(windows) => uri.push('/'),
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            b':' if cfg!(windows) => uri.push(':'),
            b if b.is_ascii_alphanumeric() => uri.push(char::from(*b)),
            b => uri.push_str(&format!("%{b:02X}")),
        }
    }
    uri.push_str(match has_log {
        false => "?immutable=1",
        true if cfg!(windows) => "?mode=ro&vfs=win32-none",
        true => "?mode=ro&vfs=unix-none",
    });
    uri
}
