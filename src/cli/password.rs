//! Reads a password: typed twice on the terminal without echo, or the first line of standard input. Never an argument,
//! which other users of the machine can see (threat T49).

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::CommandError;
use crate::limits::PASSWORD_BYTES_MAX;

/// The new password of a user.
pub(super) fn read_password(user: &str) -> Result<String, CommandError> {
    if !io::stdin().is_terminal() {
        return read_line(io::stdin().lock()).map_err(CommandError::Input);
    }
    let mut terminal = Terminal::open().map_err(CommandError::Input)?;
    let first = terminal.ask(&format!("New password of {user}: ")).map_err(CommandError::Input)?;
    let again = terminal.ask("The same again: ").map_err(CommandError::Input)?;
    if first == again { Ok(first) } else { Err(CommandError::Usage("the two passwords differ".into())) }
}

/// The first line, up to a length that no accepted password has.
fn read_line(input: impl Read) -> io::Result<String> {
    let mut line = String::new();
    // Two bytes more for a line break.
    BufReader::new(input.take(PASSWORD_BYTES_MAX as u64 + 3)).read_line(&mut line)?;
    let end = line.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(end.unwrap_or(&line).to_owned())
}

/// The controlling terminal with echo off, until it is dropped.
struct Terminal {
    file: File,
    before: Termios,
}

impl Terminal {
    fn open() -> io::Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&file)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        quiet.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(&file, OptionalActions::Flush, &quiet)?;
        Ok(Self { file, before })
    }

    fn ask(&mut self, prompt: &str) -> io::Result<String> {
        self.file.write_all(prompt.as_bytes())?;
        read_line(&self.file)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that went away has no echo to restore.
        let _ = tcsetattr(&self.file, OptionalActions::Flush, &self.before);
    }
}
