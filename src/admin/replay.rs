//! Publishing kept events of an app again, also to another app (R-REPLAY-1).

use super::access::Access;
use super::call::{Answer, Call};
use super::fault::Fault;
use crate::api::replay::Replay;
use crate::store::audit::AuditAction;

pub(super) fn replay(access: &Access<'_>, call: &Call) -> Result<Answer, Fault> {
    let replayer = access.replayer.ok_or_else(|| Fault::unavailable("No server runs here."))?;
    let replay = Replay::read(&call.body)?;
    access.store.app(call.app_id())?;
    if let Some(target) = &replay.target_app_id {
        access.store.app(target)?;
    }
    // Before it takes effect, so that there is no replay without an entry.
    let count = replay.events.len().to_string();
    let fields = [
        ("event_ids", &*count),
        ("target_app_id", replay.target_app_id.as_deref().unwrap_or_default()),
        ("target_channel", replay.target_channel.as_deref().unwrap_or_default()),
        ("declassify", if replay.declassify { "true" } else { "" }),
    ];
    access.store.note_with(access.actor, AuditAction::EventsReplay, call.app_id(), &fields)?;
    Ok(Answer::ok(replayer.replay(call.app_id(), replay)?))
}
