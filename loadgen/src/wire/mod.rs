//! The wire as a client sees it: HTTP answers, the WebSocket upgrade and frames, server-sent events, Pusher events, ids and
//! gaps, signatures, and the stamp in every published event.

pub(crate) mod answer;
pub(crate) mod event;
pub(crate) mod event_stream;
pub(crate) mod frame;
pub(crate) mod history;
pub(crate) mod link;
pub(crate) mod stamp;
pub(crate) mod target;
pub(crate) mod transport;
pub(crate) mod upgrade;
