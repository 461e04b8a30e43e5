//! The data directory and its files before LMDB opens them: created 0700 and 0600, refused when other users could read
//! the secrets in them or replace them, and locked so that one server at a time uses them (threat T23).
//!
//! LMDB's `lock.mdb` is never opened here: closing any descriptor of it would drop LMDB's own locks in this process.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, FlockOperation, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::error::{StoreError, io_error};

/// LMDB's data file.
pub(super) const DATA_FILE: &str = "data.mdb";
const LOCK_FILE: &str = "lock.mdb";
const SERVE_LOCK_FILE: &str = "serve.lock";
/// Folder of the webhook queue in the data directory.
pub(super) const QUEUE_FOLDER: &str = "webhooks";

/// Whether a missing directory or store may be created.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// Create it.
    Create,
    /// Refuse.
    Refuse,
}

/// Creates the directory if allowed, and checks who can access it and the files in it.
pub(super) fn prepare(directory: &Path, missing: Missing) -> Result<(), StoreError> {
    let path = directory.to_path_buf();
    let metadata = match fs::metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if missing == Missing::Refuse {
                return Err(StoreError::Missing { path });
            }
            make(directory).map_err(|source| StoreError::Unmakeable { path: path.clone(), source })?;
            fs::metadata(directory).map_err(|source| io_error(source, directory))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(StoreError::NotADirectory { path });
        }
        Err(error) => return Err(io_error(error, directory)),
    };
    // The directory itself may be a link: systemd's StateDirectory with DynamicUser is one.
    if !metadata.is_dir() {
        return Err(StoreError::NotADirectory { path });
    }
    check_owner(directory, metadata.uid())?;
    if metadata.mode() & 0o022 != 0 {
        return Err(StoreError::Exposed { path, mode: metadata.mode() & 0o7777, fix: "700" });
    }
    // The data file is created before all others and appears atomically ([`install`]). So if a process sees another
    // file first and then no data file, the data file was lost (R-PROC-4).
    let mut others = Vec::new();
    for name in [SERVE_LOCK_FILE, LOCK_FILE] {
        others.extend(check_file(&directory.join(name))?.then_some(name));
    }
    let queue = directory.join(QUEUE_FOLDER);
    others.extend(fs::read_dir(&queue).is_ok_and(|mut files| files.next().is_some()).then_some(QUEUE_FOLDER));
    if !check_file(&directory.join(DATA_FILE))? {
        if !others.is_empty() {
            let others = others.join(", ");
            return Err(StoreError::Lost { path: directory.join(DATA_FILE), directory: path, others });
        }
        if missing == Missing::Refuse {
            return Err(StoreError::Empty { path });
        }
    }
    Ok(())
}

/// Refuses a directory that a server has used and whose webhook queue is missing: the queue's file is created before
/// the lock of the first server (R-PROC-4). An operator who wants an empty queue creates the folder.
pub(super) fn check_queue(directory: &Path) -> Result<(), StoreError> {
    let was_served = check_file(&directory.join(SERVE_LOCK_FILE))?;
    let path = directory.join(QUEUE_FOLDER);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && was_served => Err(StoreError::LostQueue { path }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// True if there is a data file.
pub(super) fn has_data(directory: &Path) -> bool {
    fs::symlink_metadata(directory.join(DATA_FILE)).is_ok()
}

/// Creates an empty folder in the directory, for a data file that will be installed.
pub(super) fn make_part(directory: &Path) -> Result<PathBuf, StoreError> {
    static PARTS: AtomicU64 = AtomicU64::new(0);
    let number = PARTS.fetch_add(1, Ordering::Relaxed);
    let part = directory.join(format!("new.{}.{number}", std::process::id()));
    // Left by a process with the same id that was killed.
    let _ = fs::remove_dir_all(&part);
    DirBuilder::new().mode(0o700).create(&part).map_err(|source| io_error(source, &part))?;
    Ok(part)
}

/// Moves the data file in `part` to its name in the directory and removes `part`. It appears complete and on disk, or
/// not at all; if another process was faster, its file stays.
pub(super) fn install(part: &Path, directory: &Path) -> Result<(), StoreError> {
    let (made, file) = (part.join(DATA_FILE), directory.join(DATA_FILE));
    let rename = || {
        File::open(&made)?.sync_all()?;
        match renameat_with(CWD, &made, CWD, &file, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => {}
            // A file system without that flag.
            Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&made, &file)?,
            Err(error) => return Err(error.into()),
        }
        File::open(directory)?.sync_all()
    };
    let renamed = rename().map_err(|source| io_error(source, &file));
    let _ = fs::remove_dir_all(part);
    renamed
}

/// True if the file exists and only this user can access it.
fn check_file(file: &Path) -> Result<bool, StoreError> {
    let metadata = match fs::symlink_metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error(error, file)),
    };
    if !metadata.is_file() {
        return Err(StoreError::NotAFile { path: file.into() });
    }
    check_owner(file, metadata.uid())?;
    if metadata.mode() & 0o077 != 0 {
        return Err(StoreError::Exposed { path: file.into(), mode: metadata.mode() & 0o7777, fix: "600" });
    }
    Ok(true)
}

fn check_owner(path: &Path, owner: u32) -> Result<(), StoreError> {
    let user = rustix::process::geteuid().as_raw();
    if user == owner || user == 0 {
        return Ok(());
    }
    Err(StoreError::WrongOwner { path: path.into(), owner, user })
}

fn make(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Gives files that root created in another user's directory to that user, so that its server can open them.
pub(super) fn hand_to_owner(directory: &Path) -> Result<(), StoreError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(directory).map_err(|source| io_error(source, directory))?;
    if owner.uid() == 0 {
        return Ok(());
    }
    for name in [DATA_FILE, LOCK_FILE, SERVE_LOCK_FILE] {
        let path = directory.join(name);
        let made_by_root = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.uid() == 0);
        if made_by_root {
            std::os::unix::fs::lchown(&path, Some(owner.uid()), Some(owner.gid()))
                .map_err(|source| io_error(source, &path))?;
        }
    }
    Ok(())
}

/// Held while LMDB is being opened, so that one process at a time opens it.
///
/// The first process resets LMDB's lock file, including the last transaction number, under an exclusive lock of its
/// own. If it is killed meanwhile, a process that waits for that lock would continue with the state it left: the number
/// 0, with which its own commit and the newest one of the store are lost. A process that waits here instead becomes the
/// first one and resets everything.
pub(super) struct OpenLock(File);

impl OpenLock {
    pub(super) fn take(directory: &Path) -> Result<Self, StoreError> {
        let failed = |source| io_error(source, directory);
        let file = File::open(directory).map_err(failed)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
}

impl Drop for OpenLock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child that is between fork and exec at this moment.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Held by a serving process for its lifetime: the kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct ServeLock {
    file: File,
}

impl Drop for ServeLock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child that is between fork and exec at this moment.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

impl ServeLock {
    /// Takes the lock, or returns an error that names its holder.
    pub(super) fn take(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(SERVE_LOCK_FILE);
        let failed = |source| io_error(source, &path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed)?;
        if let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(error.into()));
            }
            let mut holder = String::new();
            let read = (&mut file).take(20).read_to_string(&mut holder);
            let pid = holder.trim();
            let known = read.is_ok() && !pid.is_empty();
            let pid = if known { pid.into() } else { String::from("unknown") };
            return Err(StoreError::InUse { path: directory.into(), pid });
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { file })
    }
}
