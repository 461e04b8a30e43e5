//! The receive buffers of one loop, shared by all its rings.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ptr::NonNull;
use std::rc::Rc;

use crate::driver::completion::Completion;

/// Receive buffers. Each is free, in use by one receive in flight, or held by the driver that reads it.
///
/// The buffer that was given back last is used next. So only as many buffers are ever touched as receives are in flight
/// at once, a loop that serves few talkers at a time works on memory that is still in the cache, and a large buffer
/// with little data costs only its first page.
pub(in crate::driver) struct Buffers {
    memory: Rc<BufferMemory>,
    /// The free buffers, the one given back last at the end.
    free: Vec<u16>,
    /// By buffer number: the user data that its receive was pushed with; `NOBODY` for all others.
    receives: Box<[u64]>,
}

/// The buffers' memory. Every ring shares ownership, and a ring that ends with operations in flight keeps it forever.
pub(super) struct BufferMemory {
    start: NonNull<u8>,
    layout: Layout,
    buffer_bytes: usize,
}

/// A buffer that a receive filled and the driver has not given back. Not `Copy`: it is given back once.
#[derive(Debug)]
#[must_use]
pub(in crate::driver) struct HeldBuffer {
    number: u16,
}

impl Buffers {
    /// Creates this many buffers of that size, at least one of each.
    pub(in crate::driver) fn new(count: u16, buffer_bytes: u32) -> Self {
        assert!(count > 0 && buffer_bytes > 0, "a receive needs room");
        let buffer_bytes = buffer_bytes as usize;
        let layout = Layout::from_size_align(usize::from(count) * buffer_bytes, PAGE_BYTES)
            .expect("bounded by the types of its factors");
        // SAFETY: the layout is not empty.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        Self {
            memory: Rc::new(BufferMemory { start, layout, buffer_bytes }),
            free: (0..count).rev().collect(),
            receives: vec![NOBODY; usize::from(count)].into_boxed_slice(),
        }
    }

    /// Number of buffers that no receive uses and the driver does not hold.
    pub(in crate::driver) fn free(&self) -> usize {
        self.free.len()
    }

    /// The memory that a ring keeps alive for its receives.
    pub(super) fn memory(&self) -> Rc<BufferMemory> {
        Rc::clone(&self.memory)
    }

    /// Assigns a free buffer to the receive that is pushed with `user_data`; returns its number, its address, and its
    /// size.
    pub(super) fn lend(&mut self, user_data: u64) -> Option<(u16, NonNull<u8>, u32)> {
        debug_assert_ne!(user_data, NOBODY);
        let number = self.free.pop()?;
        self.receives[usize::from(number)] = user_data;
        Some((number, self.memory.place(number), self.memory.buffer_bytes as u32))
    }

    /// Takes the buffer back from the receive that this completion ended, whatever its result (U7).
    ///
    /// # Panics
    /// Panics if the buffer was not assigned to that receive: the kernel might still write to it.
    pub(in crate::driver) fn take(&mut self, number: u16, completion: Completion) -> HeldBuffer {
        assert!(!completion.has_more(), "a receive completes once");
        let receive = std::mem::replace(&mut self.receives[usize::from(number)], NOBODY);
        assert_eq!(receive, completion.user_data, "a buffer belongs to one receive");
        HeldBuffer { number }
    }

    /// The first bytes of a buffer, as many as its receive delivered.
    pub(in crate::driver) fn bytes(&mut self, buffer: &HeldBuffer, length: usize) -> &mut [u8] {
        assert!(length <= self.memory.buffer_bytes, "a receive fills one buffer");
        // SAFETY: inside the allocation, which was zeroed, so that all of it is initialized. No receive uses the
        // buffer: `take` created the `HeldBuffer` after the completion, and the next receive can use it only after
        // `give_back`, which consumes the `HeldBuffer` that is borrowed here. `&mut self` excludes other borrows.
        unsafe { std::slice::from_raw_parts_mut(self.memory.place(buffer.number).as_ptr(), length) }
    }

    /// Makes the buffer available to the next receive.
    pub(in crate::driver) fn give_back(&mut self, buffer: HeldBuffer) {
        self.free.push(buffer.number);
    }
}

impl BufferMemory {
    fn place(&self, number: u16) -> NonNull<u8> {
        let offset = usize::from(number) * self.buffer_bytes;
        assert!(offset < self.layout.size(), "numbers are those of `Buffers::new`");
        // SAFETY: within the allocation, as just checked.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for BufferMemory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`. No operation refers to it: a ring drops its share only once its
        // last operation has ended.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// User data that no operation has.
const NOBODY: u64 = u64::MAX;
const PAGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(user_data: u64) -> Completion {
        Completion::new(user_data, 3, 0)
    }

    /// The buffer given back last is assigned first, and no buffer is assigned twice.
    #[test]
    fn last_given_back_is_lent_next() {
        let mut buffers = Buffers::new(3, 8);
        let numbers: Vec<u16> = (1..=3).map(|user_data| buffers.lend(user_data).expect("free").0).collect();
        assert_eq!((&numbers[..], buffers.free()), (&[0, 1, 2][..], 0));
        assert!(buffers.lend(4).is_none());
        for number in [2, 0] {
            let held = buffers.take(number, completion(u64::from(number) + 1));
            buffers.give_back(held);
        }
        assert_eq!(buffers.lend(5).expect("free").0, 0);
        assert_eq!(buffers.lend(6).expect("free").0, 2);
    }

    /// Buffers do not overlap, and each keeps what was written to it.
    #[test]
    fn buffers_are_apart() {
        let mut buffers = Buffers::new(4, 8);
        let held: Vec<HeldBuffer> = (0..4_u16)
            .map(|number| {
                let (lent, ..) = buffers.lend(u64::from(number)).expect("free");
                buffers.take(lent, completion(u64::from(number)))
            })
            .collect();
        for (buffer, fill) in held.iter().zip(1..) {
            buffers.bytes(buffer, 8).fill(fill);
        }
        for (buffer, fill) in held.iter().zip(1..) {
            assert_eq!(buffers.bytes(buffer, 8), [fill; 8]);
        }
    }

    /// U7: the completion of another receive does not release a buffer.
    #[test]
    #[should_panic(expected = "a buffer belongs to one receive")]
    fn a_buffer_is_taken_by_its_own_completion() {
        let mut buffers = Buffers::new(1, 8);
        let (number, ..) = buffers.lend(7).expect("free");
        let _ = buffers.take(number, completion(8));
    }
}
