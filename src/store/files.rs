//! The data directory and its files before LMDB sees them: made 0700 and 0600, refused when others could read the
//! secrets in them or swap them, and guarded so that one server at a time serves from them (threat T23).
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
/// Folder of the queue of webhooks in the data directory.
pub(super) const QUEUE_FOLDER: &str = "webhooks";

/// Whether a missing directory or store may be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// Make it.
    Create,
    /// Refuse.
    Refuse,
}

/// Makes the directory if it may, and checks who can reach it and the files in it.
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
    // The directory itself may be reached through a link: systemd's StateDirectory with DynamicUser is one.
    if !metadata.is_dir() {
        return Err(StoreError::NotADirectory { path });
    }
    check_owner(directory, metadata.uid())?;
    if metadata.mode() & 0o022 != 0 {
        return Err(StoreError::Exposed { path, mode: metadata.mode() & 0o7777, fix: "700" });
    }
    // A data file is made before all others and appears whole ([`install`]). So whoever sees another file first and then no
    // data file knows that it was lost (R-PROC-4).
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

/// Refuses a directory that was served from before and has lost its queue of webhooks: the file of the queue is made
/// before the lock of the first server (R-PROC-4). An operator who wants an empty queue makes the folder.
pub(super) fn check_queue(directory: &Path) -> Result<(), StoreError> {
    let was_served = check_file(&directory.join(SERVE_LOCK_FILE))?;
    let path = directory.join(QUEUE_FOLDER);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && was_served => Err(StoreError::LostQueue { path }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// True where a data file is.
pub(super) fn has_data(directory: &Path) -> bool {
    fs::symlink_metadata(directory.join(DATA_FILE)).is_ok()
}

/// Makes an empty folder in the directory, for a data file that is to be installed.
pub(super) fn make_part(directory: &Path) -> Result<PathBuf, StoreError> {
    static PARTS: AtomicU64 = AtomicU64::new(0);
    let number = PARTS.fetch_add(1, Ordering::Relaxed);
    let part = directory.join(format!("new.{}.{number}", std::process::id()));
    // What a process of the same number left when it was killed.
    let _ = fs::remove_dir_all(&part);
    DirBuilder::new().mode(0o700).create(&part).map_err(|source| io_error(source, &part))?;
    Ok(part)
}

/// Gives the data file in `part` its name in the directory and removes `part`. It appears whole, on disk, or not at all; if
/// another process has been faster, its file stays.
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

/// True if the file exists and is ours alone.
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

/// Files that root made in another user's directory are given to that user, so that its server can open them.
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

/// Held while LMDB is being opened, so that one process at a time does that.
///
/// The first process makes LMDB's lock file anew, last transaction number included, under an exclusive lock of its own. Were
/// it killed meanwhile, a process that waits for that lock would go on with what it left: the number 0, with which its
/// commit, and the newest one of the store, are lost. Waiting here instead, it finds itself the first and makes all anew.
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

/// Held by a serving process as long as it lives: the kernel drops it with the process, however it ends.
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
    /// Takes the lock or names who has it.
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
