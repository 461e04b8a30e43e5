//! The address of the admin API in the data directory, where commands on the same machine find it (R-ADMIN-10).

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

const FILE: &str = "admin.address";
const NEW_FILE: &str = "admin.address.new";

/// Writes the address. The file appears complete, and only its owner can read it.
pub(super) fn write(data: &Path, address: SocketAddr) -> io::Result<()> {
    let new = data.join(NEW_FILE);
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "{address}")?;
    fs::rename(&new, data.join(FILE))
}

/// Removes the address of an earlier start, so that no command contacts whoever listens there now.
pub fn forget(data: &Path) {
    if let Err(error) = fs::remove_file(data.join(FILE))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the address of an earlier admin API cannot be removed from the data directory");
    }
}

/// Reads the address, if a server wrote one.
pub(super) fn read(data: &Path) -> io::Result<Option<SocketAddr>> {
    let path = data.join(FILE);
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
        let text = format!("{} must be a regular file of mode 0600", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(fs::read_to_string(&path)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// T46, R-ADMIN-10: the file is for its owner alone, is replaced by the next start, and is not believed if others
    /// can change it or if it is a link.
    #[test]
    fn the_address_is_for_its_owner() {
        let data = tempfile::tempdir().expect("a directory");
        let address: SocketAddr = "127.0.0.1:7".parse().expect("an address");
        assert_eq!(read(data.path()).expect("readable"), None);
        for _ in 0..2 {
            write(data.path(), address).expect("written");
            assert_eq!(read(data.path()).expect("readable"), Some(address));
        }
        let file = data.path().join(FILE);
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).expect("its mode");
        assert!(read(data.path()).is_err());
        forget(data.path());
        assert_eq!(read(data.path()).expect("readable"), None);
        let other = data.path().join("other");
        fs::write(&other, "127.0.0.1:8").expect("written");
        symlink(&other, &file).expect("a link");
        assert!(read(data.path()).is_err());
    }
}
