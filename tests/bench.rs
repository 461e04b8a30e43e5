//! `relay bench` runs the load generator with all of its arguments.
//!
//! Method: the real program in a directory of its own, next to a shell script with the load generator's name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One test at a time: a program that is started while another is being copied inherits the copy, open for writing, for
/// a moment, and then the copy cannot be run.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The program under test, alone in `folder`.
fn program_in(folder: &Path) -> PathBuf {
    let program = folder.join("relay");
    fs::copy(env!("CARGO_BIN_EXE_relay"), &program).expect("room for a copy");
    program
}

fn fake_generator(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder of the test");
    let path = folder.join("relay-loadgen");
    fs::write(&path, "#!/bin/sh\necho \"$0 $@\"\nexit 99\n").expect("a folder of the test");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
}

fn bench(program: &Path, path: &Path) -> Output {
    let arguments = ["bench", "fan-out", "--subscribers", "3", "--help"];
    Command::new(program).args(arguments).env("PATH", path).output().expect("the program starts")
}

/// Goal: options and exit code pass through, and the generator beside the program comes before the one on PATH.
#[test]
fn everything_passes_through() {
    let _alone = alone();
    let place = tempfile::tempdir().expect("a folder");
    let on_path = place.path().join("bin");
    let program = program_in(place.path());
    fake_generator(&on_path);
    let found = bench(&program, &on_path);
    fake_generator(place.path());
    let beside = bench(&program, &on_path);
    for (output, folder) in [(found, on_path.as_path()), (beside, place.path())] {
        let expected = format!("{} fan-out --subscribers 3 --help\n", folder.join("relay-loadgen").display());
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        assert_eq!(output.status.code(), Some(99));
    }
}

/// Goal: without a generator the error lists the places that were searched.
#[test]
fn a_missing_generator_is_named() {
    let _alone = alone();
    let place = tempfile::tempdir().expect("a folder");
    let output = bench(&program_in(place.path()), place.path());
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("relay-loadgen is neither beside this program nor on PATH"), "{error}");
}
