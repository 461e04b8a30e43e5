//! Outside tools that a test installs once under `target/` and finds again in the next run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The build directory that holds the caches.
pub fn target_directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp stands in target").to_owned()
}

/// The folder with the SDK scripts.
pub fn sdk_sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

/// Runs `install` in `target/{name}` unless a stamp there says that it was done with these very `inputs`. A lock
/// makes test processes take turns.
pub fn installed(name: &str, inputs: &[&str], install: impl FnOnce(&Path)) -> PathBuf {
    let directory = target_directory().join(name);
    fs::create_dir_all(&directory).expect("a directory in target");
    let lock = File::create(directory.join(".lock")).expect("a lock file");
    lock.lock().expect("the lock is had in turn");
    let (stamp, wanted) = (directory.join(".installed"), inputs.join("\n"));
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return directory;
    }
    let _ = fs::remove_file(&stamp);
    install(&directory);
    fs::write(&stamp, wanted).expect("the stamp is written");
    directory
}

/// Runs a command to its end, which must be good.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} gave {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}

/// `node_modules` by `npm ci` from the pinned lock file. Gives the folder to run scripts in: it holds copies of them.
pub fn node_project() -> PathBuf {
    let (sources, manifest, lock) = (sdk_sources(), "package.json", "package-lock.json");
    let read = |name: &str| fs::read_to_string(sources.join(name)).expect("a file of tests/sdk");
    let directory = installed("sdk-node", &[&read(manifest), &read(lock)], |directory| {
        for name in [manifest, lock] {
            fs::copy(sources.join(name), directory.join(name)).expect("a file is copied");
        }
        let mut npm = Command::new("npm");
        npm.current_dir(directory).args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
        run(&mut npm);
    });
    copy_scripts(&sources, &directory);
    copy_scripts(&sources.join("examples"), &directory);
    directory
}

/// Node finds packages from where a script stands, so scripts run as copies beside `node_modules`. A copy arrives by
/// rename: another test process may be about to read it.
fn copy_scripts(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder of scripts").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".mjs") {
            let part = to.join(format!("{name}.{}.{:?}", std::process::id(), std::thread::current().id()));
            fs::copy(entry.path(), &part).expect("a script is copied");
            fs::rename(&part, to.join(name)).expect("the copy takes its name");
        }
    }
}

/// A virtual environment with the pinned Python packages; gives its interpreter.
pub fn python() -> PathBuf {
    let requirements = sdk_sources().join("requirements.txt");
    let text = fs::read_to_string(&requirements).expect("requirements.txt");
    let directory = installed("sdk-python", &[&text], |directory| {
        run(Command::new("python3").args(["-m", "venv"]).arg(directory.join("env")));
        let mut pip = Command::new(directory.join("env/bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&requirements);
        run(&mut pip);
    });
    directory.join("env/bin/python")
}
