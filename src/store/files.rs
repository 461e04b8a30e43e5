//! The data directory and its files before LMDB sees them: made 0700 and 0600, refused when others could read the
//! secrets in them or swap them, and guarded so that one server at a time serves from them (threat T23).
//!
//! LMDB's `lock.mdb` is never opened here: closing any descriptor of it would drop LMDB's own locks in this process.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FlockOperation;

use super::error::{StoreError, io_error};

/// LMDB's data file.
pub(super) const DATA_FILE: &str = "data.mdb";
const LOCK_FILE: &str = "lock.mdb";
const SERVE_LOCK_FILE: &str = "serve.lock";

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
    let mut found = false;
    for name in [DATA_FILE, LOCK_FILE, SERVE_LOCK_FILE] {
        found |= check_file(&directory.join(name))? && name == DATA_FILE;
    }
    if !found && missing == Missing::Refuse {
        return Err(StoreError::Empty { path });
    }
    Ok(())
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
