//! The wire as a client sees it: HTTP answers, the WebSocket upgrade and frames, Pusher events, signatures, and the stamp
//! that every published event carries.

pub(crate) mod answer;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod stamp;
pub(crate) mod target;
pub(crate) mod upgrade;
