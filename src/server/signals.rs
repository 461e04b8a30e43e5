//! SIGTERM and SIGINT, as events of the server.

use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Event, ServeError};

/// The thread that turns signals into events; ends when dropped.
pub(super) struct SignalThread {
    handle: signal_hook::iterator::Handle,
    thread: Option<JoinHandle<()>>,
}

impl SignalThread {
    pub(super) fn start(events: Sender<Event>) -> Result<Self, ServeError> {
        let mut signals =
            Signals::new([SIGTERM, SIGINT]).map_err(|error| ServeError::start("wait for signals", error))?;
        let handle = signals.handle();
        let run = move || {
            for signal in signals.forever() {
                if events.send(Event::Signal(signal)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".into()).spawn(run);
        Ok(Self { handle, thread: Some(thread.map_err(|error| ServeError::start("start a thread", error))?) })
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // It returns nothing; the hook has printed a panic of it.
            let _ = thread.join();
        }
    }
}
