//! The data directory and its files before LMDB sees them: made 0700 and 0600, refused when others could read the
//! secrets in them or swap them, and guarded so that one server at a time serves from them (threat T23).
//!
//! LMDB's `lock.mdb` is never opened here: closing any descriptor of it would drop LMDB's own locks in this process.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation};

use super::error::{StoreError, io_error};
use crate::limits;

/// LMDB's data file.
pub(super) const DATA_FILE: &str = "data.mdb";
const LOCK_FILE: &str = "lock.mdb";
const SERVE_LOCK_FILE: &str = "serve.lock";

/// Whether a missing directory or store may be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// Make it.
    Create,
    /// Make the store in a directory that exists.
    CreateInDirectory,
    /// Refuse.
    Refuse,
}

/// Makes the directory if it may, and checks who can reach it and the files in it.
pub(super) fn prepare(directory: &Path, missing: Missing) -> Result<(), StoreError> {
    let path = directory.to_path_buf();
    let metadata = match fs::metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if missing != Missing::Create {
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

/// A file that was cut short would kill the process with SIGBUS when LMDB's map reads beyond its end. Room to the
/// last page that its meta pages name is given back as zeros, which LMDB reports as damage. A file of LMDB may also
/// be this short by right, when its last pages are free; then the zeros are never read.
pub(super) fn fill_to_last_page(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join(DATA_FILE);
    let file = match OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(error, &path)),
    };
    let length = file.metadata().map_err(|source| io_error(source, &path))?.len();
    let Some(end) = last_page_end(&file) else {
        return Ok(());
    };
    if end > limits::STORE_BYTES_MAX as u64 {
        let detail = format!("it names pages up to byte {end}");
        return Err(StoreError::Corrupt { path, detail });
    }
    if length < end {
        // Never shrinks, so a writer in another process is not disturbed. Where it is not supported, nothing is lost.
        let _ = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, end);
    }
    Ok(())
}

/// Where the last page that LMDB's two meta pages know of ends; `None` if they are not LMDB's (LMDB will say so).
fn last_page_end(file: &File) -> Option<u64> {
    let first = MetaPage::read(file, 0)?;
    let page_bytes = u64::from(first.page_bytes);
    let second = MetaPage::read(file, page_bytes)?;
    first.last_page.max(second.last_page).checked_add(1)?.checked_mul(page_bytes)
}

/// The few fields of an LMDB meta page (format version 1) that tell how long its file should be.
struct MetaPage {
    page_bytes: u32,
    last_page: u64,
}

impl MetaPage {
    fn read(file: &File, at: u64) -> Option<Self> {
        let mut page = [0_u8; 152];
        file.read_exact_at(&mut page, at).ok()?;
        let word = |at: usize| u32::from_ne_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
        let last_page = u64::from_ne_bytes(page[136..144].try_into().expect("eight bytes"));
        let page_bytes = word(40);
        let known = word(16) == 0xBEEF_C0DE && page_bytes.is_power_of_two() && (512..=65_536).contains(&page_bytes);
        known.then_some(Self { page_bytes, last_page })
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
    _file: File,
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
        Ok(Self { _file: file })
    }
}
