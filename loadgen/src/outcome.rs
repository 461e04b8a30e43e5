//! How a run can end, and its exit code.

use std::fmt;
use std::process::ExitCode;

/// Why a run could not start or complete.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Usage error: exit code 2.
    Usage(String),
    /// Failure during the run: exit code 1.
    Run(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Run(text) => formatter.write_str(text),
        }
    }
}

/// The result of a run that started, and its exit code.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Verdict {
    /// Completed, and everything arrived.
    Passed,
    /// A threshold of `--fail-if` does not hold.
    Threshold,
    /// The generator was the bottleneck, so the figures do not describe the server.
    Invalid,
    /// A signal ended the run before its plan did.
    Interrupted,
    /// Events were lost, duplicated, out of order or in the wrong channel, or the server went away.
    Failed,
}

impl Verdict {
    /// 0, 99, 3, 4 and 1.
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Self::Passed => ExitCode::SUCCESS,
            Self::Threshold => ExitCode::from(99),
            Self::Invalid => ExitCode::from(3),
            Self::Interrupted => ExitCode::from(4),
            Self::Failed => ExitCode::from(1),
        }
    }

    /// Name in the JSON report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Threshold => "threshold",
            Self::Invalid => "invalid",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }
}
