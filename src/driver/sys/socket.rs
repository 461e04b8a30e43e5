//! Socket options that `rustix` lacks.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets `TCP_NOTSENT_LOWAT`: the kernel accepts no more once this many bytes of a socket have not been sent yet.
///
/// # Errors
/// Any error of `setsockopt`.
pub fn set_tcp_notsent_lowat(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<u32>()).expect("4 fits");
    // SAFETY: the kernel reads four bytes of `bytes`, which lives on this stack frame, during the call only; the
    // descriptor is borrowed, hence open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
