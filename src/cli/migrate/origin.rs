//! The servers whose configuration can be migrated.

use clap::ValueEnum;

use crate::config;

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Origin {
    /// JSON, as `soketi start --config` takes it.
    Soketi,
    /// JSON or TOML, as `sockudo --config` takes it.
    Sockudo,
    /// JSON of Laravel's `config('reverb')`, or of its list of apps.
    Reverb,
    /// JSON of Laravel's `config('websockets')`, or of its list of apps.
    LaravelWebsockets,
}

impl Origin {
    /// Its name on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether an app there is enabled unless its configuration says otherwise.
    pub(super) fn enables_apps(self) -> bool {
        match self {
            Self::Soketi | Self::Reverb | Self::LaravelWebsockets => true,
            Self::Sockudo => false,
        }
    }

    /// Values that apply to an app there unless its configuration says otherwise, where Relay's own default differs.
    pub(super) fn defaults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Soketi | Self::Sockudo => &config::SOKETI_APP,
            Self::Reverb => {
                &[("client_events", "true"), ("max_client_events_per_second", "0"), ("max_presence_members", "100000")]
            }
            Self::LaravelWebsockets => &[
                ("max_event_data_bytes", "256000"),
                ("max_client_events_per_second", "0"),
                ("max_presence_members", "100000"),
            ],
        }
    }
}
