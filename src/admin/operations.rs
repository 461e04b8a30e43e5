//! Runs the operations of the admin API on a store. The server does so for requests, and the command line for a data
//! directory: the same input gives the same result and the same errors.

use super::access::Access;
use super::call::{Answer, Call};
use super::fault::Fault;
use super::operation::Operation;
use super::{admin_tokens, apps, audit, explain, keys, replay, settings, status, tokens, webhooks};

impl Access<'_> {
    /// Runs an operation.
    ///
    /// # Errors
    /// [`Fault`]; nothing was changed.
    pub fn run(&self, call: &Call) -> Result<Answer, Fault> {
        match call.operation {
            Operation::Status => status::show(self),
            Operation::ListApps => apps::list(self, call),
            Operation::CreateApp => apps::create(self, call),
            Operation::ShowApp => apps::show(self, call),
            Operation::DeleteApp => apps::delete(self, call),
            Operation::ChangeSettings => settings::change(self, call),
            Operation::DisableApp => apps::switch(self, call, false),
            Operation::EnableApp => apps::switch(self, call, true),
            Operation::AddKey => keys::add(self, call),
            Operation::RemoveOldKeys => keys::remove_old(self, call),
            Operation::RemoveKey => keys::remove(self, call),
            Operation::RevealApp => apps::reveal(self, call),
            Operation::ListAppTokens | Operation::ListTokens => tokens::list(self, call),
            Operation::CreateToken => tokens::create(self, call),
            Operation::RotateToken => tokens::rotate(self, call),
            Operation::RevokeToken => tokens::revoke(self, call),
            Operation::ListAppWebhooks | Operation::ListWebhooks => webhooks::list(self, call),
            Operation::CreateWebhook => webhooks::create(self, call),
            Operation::RemoveWebhook => webhooks::remove(self, call),
            Operation::DisableWebhook => webhooks::switch(self, call, false),
            Operation::EnableWebhook => webhooks::switch(self, call, true),
            Operation::ListAdminTokens => admin_tokens::list(self, call),
            Operation::CreateAdminToken => admin_tokens::create(self, call),
            Operation::RevokeAdminToken => admin_tokens::revoke(self, call),
            Operation::ListAudit => audit::list(self, call),
            Operation::Explain => explain::explain(self, call),
            Operation::Replay => replay::replay(self, call),
            Operation::TestWebhook => webhooks::test(self, call),
            Operation::ListFailedDeliveries => webhooks::failed(self, call),
        }
    }
}
