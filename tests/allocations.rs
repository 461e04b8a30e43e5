//! Goal: a delivery allocates nothing. Method: count the allocations of one publish to few and to many subscribers; the
//! difference is the cost of subscribers.

#[allow(dead_code, reason = "the bench uses more of it")]
mod memory;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use memory::Memory;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of one publish in the steady state.
fn allocations_per_publish(subscribers: u32) -> u64 {
    let mut memory = Memory::new(subscribers, 128);
    for _ in 0..3 {
        assert_eq!(memory.publish().sends, subscribers as usize + 1);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    assert_eq!(memory.publish().sends, subscribers as usize + 1);
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// One subscriber more or ten thousand more: the same allocations, those of the event itself.
#[test]
fn subscribers_cost_no_allocation() {
    let few = allocations_per_publish(2);
    let many = allocations_per_publish(10_000);
    assert_eq!(many, few, "allocations of 9,998 further subscribers");
}
