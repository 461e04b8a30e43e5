//! What the admin API can do, and who may do it.

use crate::label::labels;
use crate::store::Role;

labels! {
    /// An operation of the admin API; [`super::routes`] has its method and path.
    pub enum Operation {
        /// Version, uptime and driver of the server.
        Status => "status",
        /// All apps.
        ListApps => "list_apps",
        /// A new app with one key pair.
        CreateApp => "create_app",
        /// One app, without secrets.
        ShowApp => "show_app",
        /// Removes an app with all that belongs to it.
        DeleteApp => "delete_app",
        /// Merges settings into those of an app.
        ChangeSettings => "change_settings",
        /// Refuses everything for an app.
        DisableApp => "disable_app",
        /// Serves an app again.
        EnableApp => "enable_app",
        /// Adds a key pair.
        AddKey => "add_key",
        /// Removes all key pairs but the newest.
        RemoveOldKeys => "remove_old_keys",
        /// Removes one key pair.
        RemoveKey => "remove_key",
        /// One app with the secrets of its keys.
        RevealApp => "reveal_app",
        /// Tokens of one app.
        ListAppTokens => "list_app_tokens",
        /// A new token.
        CreateToken => "create_token",
        /// Replaces a token by a new one.
        RotateToken => "rotate_token",
        /// Revokes a token.
        RevokeToken => "revoke_token",
        /// Tokens of all apps.
        ListTokens => "list_tokens",
        /// Webhook endpoints of one app.
        ListAppWebhooks => "list_app_webhooks",
        /// A new webhook endpoint.
        CreateWebhook => "create_webhook",
        /// Removes a webhook endpoint.
        RemoveWebhook => "remove_webhook",
        /// Stops sending to a webhook endpoint.
        DisableWebhook => "disable_webhook",
        /// Sends to a webhook endpoint again.
        EnableWebhook => "enable_webhook",
        /// Webhook endpoints of all apps.
        ListWebhooks => "list_webhooks",
        /// All admin tokens.
        ListAdminTokens => "list_admin_tokens",
        /// A new admin token.
        CreateAdminToken => "create_admin_token",
        /// Revokes an admin token.
        RevokeAdminToken => "revoke_admin_token",
        /// The audit log.
        ListAudit => "list_audit",
        /// Why something was refused.
        Explain => "explain",
        /// Publishes kept events of an app again.
        Replay => "replay_events",
        /// Sends one event to a webhook endpoint.
        TestWebhook => "test_webhook",
        /// Deliveries that were given up.
        ListFailedDeliveries => "list_failed_deliveries",
    }
}

labels! {
    /// Who may use an operation (threat T51).
    pub enum Permission {
        /// Every admin credential.
        Read => "read",
        /// Admin credentials that are not read-only.
        Admin => "admin",
    }
}

impl Permission {
    /// True if a credential with this role has the permission.
    pub const fn allows(self, role: Role) -> bool {
        match (self, role) {
            (Self::Read, Role::Admin | Role::Viewer) | (Self::Admin, Role::Admin) => true,
            (Self::Admin, Role::Viewer) => false,
        }
    }
}

impl Operation {
    /// The table of permissions. It names every operation, so that one without a permission does not compile.
    pub const fn permission(self) -> Permission {
        match self {
            Self::Status
            | Self::ListApps
            | Self::ShowApp
            | Self::ListAppTokens
            | Self::ListTokens
            | Self::ListAppWebhooks
            | Self::ListWebhooks
            | Self::ListFailedDeliveries
            | Self::Explain => Permission::Read,
            Self::CreateApp
            | Self::DeleteApp
            | Self::ChangeSettings
            | Self::DisableApp
            | Self::EnableApp
            | Self::AddKey
            | Self::RemoveOldKeys
            | Self::RemoveKey
            | Self::RevealApp
            | Self::CreateToken
            | Self::RotateToken
            | Self::RevokeToken
            | Self::CreateWebhook
            | Self::RemoveWebhook
            | Self::DisableWebhook
            | Self::EnableWebhook
            | Self::ListAdminTokens
            | Self::CreateAdminToken
            | Self::RevokeAdminToken
            | Self::ListAudit
            | Self::Replay
            | Self::TestWebhook => Permission::Admin,
        }
    }
}
