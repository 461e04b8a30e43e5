//! `relay bench`: runs the load generator under the name that people look for. It is a separate program, which shares
//! no code with the server it measures; this module only finds it and replaces this process with it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use super::CommandError;

/// Everything is the load generator's, `--help` included.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(super) struct BenchArguments {
    /// A scenario and its options.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// Replaces this process with the load generator; returns only if there is none.
pub(super) fn bench(arguments: &BenchArguments) -> Result<(), CommandError> {
    let beside = std::env::current_exe().ok().and_then(|own| beside(&own));
    // A bare name is looked up on PATH.
    let program = beside.unwrap_or_else(|| PROGRAM.into());
    let error = Command::new(&program).args(&arguments.arguments).exec();
    Err(CommandError::Bench { program, error })
}

/// The load generator in the folder of this program.
fn beside(own: &Path) -> Option<PathBuf> {
    Some(own.with_file_name(PROGRAM)).filter(|path| path.is_file())
}

/// Describes the error and its fix.
pub(super) fn explain(program: &Path, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        return format!("{PROGRAM} is neither beside this program nor on PATH: it comes in the same archive");
    }
    format!("cannot run {}: {error}", program.display())
}

const PROGRAM: &str = "relay-loadgen";
