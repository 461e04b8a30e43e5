//! A debugger with one purpose: it makes a thread of a running server stick, really and without any help of the server.
//! It stops the thread, sets its instruction pointer to a jump to itself or to a system call that waits forever, both
//! found among the instructions of the program, and releases it.

#![allow(unsafe_code, reason = "the calls of a debugger")]

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;

/// `jmp .`
const JUMP_TO_ITSELF: [u8; 2] = [0xEB, 0xFE];
/// `syscall`
const SYSTEM_CALL: [u8; 2] = [0x0F, 0x05];

/// A thread of another process that is stopped by this one. It continues when this is dropped.
pub(crate) struct Held {
    process: u32,
    thread: i32,
}

impl Held {
    /// Stops the thread of this name.
    pub(crate) fn by_name(process: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|task| task.unwrap());
        let named =
            |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default().trim() == name;
        let task = tasks.into_iter().find(named).unwrap_or_else(|| panic!("no thread named {name}"));
        let thread: i32 = task.file_name().to_str().unwrap().parse().unwrap();
        // SAFETY: attaching touches no memory of this process.
        check(unsafe { libc::ptrace(libc::PTRACE_ATTACH, thread, 0, 0) });
        let held = Self { process, thread };
        held.await_stop();
        held
    }

    /// Makes it loop forever from now on.
    pub(crate) fn spin(self) {
        let at = self.find(JUMP_TO_ITSELF);
        self.change(|registers| registers.rip = at);
    }

    /// Makes it block in the kernel from now on.
    pub(crate) fn wait_for_ever(self) {
        let at = self.find(SYSTEM_CALL);
        self.change(|registers| (registers.rip, registers.rax) = (at, libc::SYS_pause as u64));
    }

    /// Makes it close a descriptor of its process, and then continue where it was.
    pub(crate) fn close_descriptor(&self, descriptor: u64) {
        let before = self.registers();
        let at = self.find(SYSTEM_CALL);
        self.change(|registers| {
            (registers.rip, registers.rax, registers.rdi) = (at, libc::SYS_close as u64, descriptor);
        });
        // SAFETY: one step of the other process.
        check(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.thread, 0, 0) });
        self.await_stop();
        assert_eq!(self.registers().rax, 0, "closing descriptor {descriptor}");
        self.set(&before);
    }

    fn change(&self, change: impl FnOnce(&mut libc::user_regs_struct)) {
        let mut registers = self.registers();
        // Otherwise the kernel would step back to repeat the system call that the stop interrupted.
        registers.orig_rax = u64::MAX;
        change(&mut registers);
        self.set(&registers);
    }

    fn registers(&self) -> libc::user_regs_struct {
        let mut registers = MaybeUninit::<libc::user_regs_struct>::zeroed();
        // SAFETY: the kernel writes one such structure, for which every bit pattern is a value.
        unsafe {
            check(libc::ptrace(libc::PTRACE_GETREGS, self.thread, 0, registers.as_mut_ptr()));
            registers.assume_init()
        }
    }

    fn set(&self, registers: &libc::user_regs_struct) {
        // SAFETY: the kernel reads one such structure, which outlives the call.
        check(unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.thread, 0, std::ptr::from_ref(registers)) });
    }

    fn await_stop(&self) {
        // SAFETY: the status is not requested.
        let waited = unsafe { libc::waitpid(self.thread, null_mut(), libc::__WALL) };
        assert_eq!(waited, self.thread, "{}", io::Error::last_os_error());
    }

    /// The address of these bytes in the executable pages of the process.
    fn find(&self, bytes: [u8; 2]) -> u64 {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.process)).unwrap();
        let memory = fs::File::open(format!("/proc/{}/mem", self.process)).unwrap();
        for line in maps.lines().filter(|line| line.contains(" r-xp ") && !line.contains("[v")) {
            let (start, rest) = line.split_once('-').unwrap();
            let [start, end] = [start, rest.split(' ').next().unwrap()].map(|n| u64::from_str_radix(n, 16).unwrap());
            let mut text = vec![0; (end - start) as usize];
            if memory.read_exact_at(&mut text, start).is_err() {
                continue;
            }
            if let Some(at) = text.windows(2).position(|window| window == bytes) {
                return start + at as u64;
            }
        }
        panic!("no {bytes:x?} in the program");
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: detaching touches no memory of this process.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.thread, 0, 0) };
    }
}

#[track_caller]
fn check(result: libc::c_long) {
    assert!(result >= 0, "ptrace: {}", io::Error::last_os_error());
}
