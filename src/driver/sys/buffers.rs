//! The receive buffers that the kernel picks from: a provided buffer ring.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::driver::completion::HeldBuffer;

/// A provided buffer ring: its entries, then the buffers, in one allocation of whole pages.
pub(super) struct BufferRing {
    memory: NonNull<u8>,
    layout: Layout,
    entries: u16,
    buffer_bytes: usize,
    tail: u16,
    /// How many the driver holds.
    pub(super) held: u16,
}

#[repr(C)]
struct BufferEntry {
    address: u64,
    length: u32,
    id: u16,
    /// Of entry 0 this is the ring's tail.
    tail: AtomicU16,
}

#[repr(C)]
struct BufferStatus {
    group: u32,
    head: u32,
    reserved: [u32; 8],
}

const _: () = assert!(size_of::<BufferEntry>() == 16);
const _: () = assert!(size_of::<BufferStatus>() == 40);

impl BufferRing {
    /// A ring of this many buffers, all of them the kernel's once it is registered. `entries` is a power of two.
    pub(super) fn new(entries: u16, buffer_bytes: u32) -> Self {
        assert!(entries.is_power_of_two(), "the kernel masks the tail");
        let buffer_bytes = buffer_bytes as usize;
        let bytes = Self::entries_bytes(entries) + usize::from(entries) * buffer_bytes;
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).expect("bounded by the sizes' types");
        // SAFETY: the layout is not empty.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        let memory = NonNull::new(memory).unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        let mut ring = Self { memory, layout, entries, buffer_bytes, tail: 0, held: 0 };
        for id in 0..entries {
            ring.offer(id);
        }
        ring
    }

    /// Space of the entries, padded so that the buffers begin at a page.
    fn entries_bytes(entries: u16) -> usize {
        (usize::from(entries) * size_of::<BufferEntry>()).next_multiple_of(PAGE_BYTES)
    }

    /// Where the entries are, for registering the ring.
    pub(super) fn address(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    fn place(&self, id: u16) -> NonNull<u8> {
        debug_assert!(id < self.entries);
        let offset = Self::entries_bytes(self.entries) + usize::from(id) * self.buffer_bytes;
        // SAFETY: within the allocation, as `id` is below `entries`.
        unsafe { self.memory.add(offset) }
    }

    /// Gives a buffer to the kernel.
    pub(super) fn offer(&mut self, id: u16) {
        let place = usize::from(self.tail & (self.entries - 1));
        let entries = self.memory.cast::<BufferEntry>().as_ptr();
        let address = self.place(id).as_ptr() as u64;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `place` is below `entries`, so the writes stay in the allocation. The kernel reads an entry only
        // once the tail passed it; the entry at the tail is one that it has consumed. The tail itself is written
        // through an atomic and overlaps no other field that is written here.
        unsafe {
            let entry = entries.add(place);
            (&raw mut (*entry).address).write(address);
            (&raw mut (*entry).length).write(self.buffer_bytes as u32);
            (&raw mut (*entry).id).write(id);
            (*entries).tail.store(self.tail, Ordering::Release);
        }
    }

    /// The bytes that a receive left in a buffer.
    pub(super) fn bytes(&mut self, buffer: &HeldBuffer, length: usize) -> &mut [u8] {
        assert!(length <= self.buffer_bytes && buffer.id() < self.entries, "the kernel fills one buffer");
        // SAFETY: inside the allocation; the kernel gave the buffer up with the completion and gets it back by
        // `Queue::give_back`, which consumes the `HeldBuffer` that is borrowed here; `&mut self` excludes other borrows.
        unsafe { std::slice::from_raw_parts_mut(self.place(buffer.id()).as_ptr(), length) }
    }

    /// Buffers that the kernel holds, by the count of the ring that they are registered with; `None` where it does not
    /// tell (before 6.8).
    pub(super) fn free(&self, ring: RawFd) -> Option<u16> {
        let mut status = BufferStatus { group: u32::from(BUFFER_GROUP), head: 0, reserved: [0; 8] };
        // SAFETY: the kernel reads and writes `status`, which lives on this stack frame, during the call only.
        let result = unsafe {
            libc::syscall(libc::SYS_io_uring_register, ring, u32::from(REGISTER_PBUF_STATUS), &raw mut status, 1_u32)
        };
        let head = status.head as u16;
        (result == 0).then(|| self.tail.wrapping_sub(head))
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`; the ring that it was registered with is gone or idle.
        unsafe { std::alloc::dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// The group that a receive names, the only one of a ring.
pub(super) const BUFFER_GROUP: u16 = 0;
/// `IORING_REGISTER_PBUF_STATUS` (kernel 6.8).
pub(super) const REGISTER_PBUF_STATUS: u8 = 26;
const PAGE_BYTES: usize = 4096;
