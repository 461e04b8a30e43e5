//! All `unsafe` of the load generator: batched SENDs on an io_uring, for the floor.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::types::Fixed;
use io_uring::{IoUring, opcode};

/// A ring that sends the same bytes to every one of its sockets.
pub(crate) struct SendRing {
    ring: IoUring,
    /// The buffer that the kernel reads. Only changed while no operation is in flight.
    bytes: Vec<u8>,
    sockets: usize,
}

impl SendRing {
    /// A ring with these sockets registered, so that a send needs no descriptor lookup.
    ///
    /// # Errors
    /// If the kernel has no io_uring, or does not permit it here.
    pub(crate) fn new(sockets: &[OwnedFd]) -> io::Result<Self> {
        let modern = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(SLICE * 2);
        let ring = modern.or_else(|_| IoUring::new(SLICE * 2))?;
        let descriptors: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        ring.submitter().register_files(&descriptors)?;
        Ok(Self { ring, bytes: Vec::new(), sockets: sockets.len() })
    }

    /// Sends `bytes` to every socket, 128 in one system call, and waits for the completions. Returns how many sends failed.
    pub(crate) fn send_to_all(&mut self, bytes: &[u8]) -> io::Result<u64> {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut failed = 0;
        let mut begin = 0;
        while begin < self.sockets {
            let end = self.sockets.min(begin + SLICE as usize);
            for socket in begin..end {
                let index = u32::try_from(socket).map_err(io::Error::other)?;
                let send =
                    opcode::Send::new(Fixed(index), self.bytes.as_ptr(), length).flags(NO_SIGNAL | WAIT_ALL).build();
                // SAFETY: the kernel reads `self.bytes` until the completion; `reap` waits for every completion before
                // this function returns or changes it, and on failure leaks it.
                unsafe { self.ring.submission().push(&send) }.map_err(io::Error::other)?;
            }
            failed += self.reap(end - begin)?;
            begin = end;
        }
        Ok(failed)
    }

    /// Submits the pushed operations and waits for their `count` completions.
    fn reap(&mut self, count: usize) -> io::Result<u64> {
        let expected = i32::try_from(self.bytes.len()).unwrap_or(i32::MAX);
        let (mut failed, mut seen) = (0, 0);
        while seen < count {
            match self.ring.submit_and_wait(count - seen) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The kernel may still read them.
                    std::mem::forget(std::mem::take(&mut self.bytes));
                    return Err(error);
                }
            }
            for completion in self.ring.completion() {
                seen += 1;
                failed += u64::from(completion.result() != expected);
            }
        }
        Ok(failed)
    }
}

/// Operations for each system call.
const SLICE: u32 = 128;
/// `MSG_NOSIGNAL` and `MSG_WAITALL`.
const NO_SIGNAL: i32 = 0x4000;
const WAIT_ALL: i32 = 0x100;
