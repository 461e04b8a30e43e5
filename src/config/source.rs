//! The texts of settings by name, and the source of each. A name is the same everywhere: `listen` in `relay.toml`,
//! `RELAY_LISTEN` in the environment, `--listen` as a flag.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::settings::{Mode, SERVER_SETTINGS, ServerSettings, variable};
use super::{alias, environment, file};
use crate::app::settings::APP_SETTINGS;

/// Where a value came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// A flag.
    Flag,
    /// The environment.
    Environment,
    /// This variable of another server.
    Alias(&'static str),
    /// A line of a file, from 1.
    File(PathBuf, usize),
}

/// The settings that were given, as text, with their sources.
#[derive(Debug, Default)]
pub struct Settings {
    values: HashMap<&'static str, (String, Source)>,
    /// Warnings for the operator that do not prevent the start.
    pub warnings: Vec<String>,
    /// Which variables of other servers were used, in one line.
    pub aliases: Option<String>,
    /// Why a server must not start with them.
    alias_problem: Option<ConfigError>,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

impl Settings {
    /// Applies flags over environment over file over variables of other servers. `config` is `--config`; without it
    /// `RELAY_CONFIG` names the file, and without that the first of `./relay.toml` and `/etc/relay/relay.toml` that
    /// exists is read.
    pub fn gather(
        flags: Vec<(&'static str, String)>,
        config: Option<PathBuf>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        let from_environment = environment::read(environment)?;
        if let Some(path) = config.or(from_environment.config).or_else(default_file) {
            for (name, value, line) in file::read(&path)? {
                settings.values.insert(name, (value, Source::File(path.clone(), line)));
            }
            settings.file = Some(path);
        }
        for (name, value) in from_environment.values {
            settings.values.insert(name, (value, Source::Environment));
        }
        for (name, value) in flags {
            settings.values.insert(name, (value, Source::Flag));
        }
        settings.warnings = from_environment.warnings;
        let aliases = from_environment.aliases.resolve(|name| settings.values.contains_key(name));
        for (name, value, variable) in aliases.values {
            settings.values.insert(name, (value, Source::Alias(variable)));
        }
        settings.warnings.extend(aliases.warning);
        settings.warnings.extend(settings.without_app());
        (settings.aliases, settings.alias_problem) = (aliases.note, aliases.problem);
        Ok(settings)
    }

    /// The variables that describe an app, if no app is configured.
    fn without_app(&self) -> Option<String> {
        if self.values.contains_key("app_id") {
            return None;
        }
        let mut names: Vec<String> =
            self.values.keys().filter(|name| alias::is_of_app(name)).map(|name| self.origin(name)).collect();
        names.sort_unstable();
        let names = names.join(", ");
        (!names.is_empty())
            .then(|| format!("no app is configured (RELAY_APP_ID), so these variables set nothing: {names}"))
    }

    /// Refuses variables of other servers that disagree or are invalid.
    pub(super) fn check_aliases(&self) -> Result<(), ConfigError> {
        self.alias_problem.clone().map_or(Ok(()), Err)
    }

    /// The text of a setting.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(text, _)| text.as_str())
    }

    /// How the operator named it: `--listen`, `RELAY_LISTEN` or `relay.toml:3: listen`.
    pub fn origin(&self, name: &str) -> String {
        match self.values.get(name).map(|(_, source)| source) {
            None => name.into(),
            Some(Source::Flag) => format!("--{}", name.replace('_', "-")),
            Some(Source::Environment) => variable(name),
            Some(Source::Alias(variable)) => (*variable).into(),
            Some(Source::File(path, line)) => format!("{}:{line}: {name}", path.display()),
        }
    }

    /// The values of the settings whose names are `wanted`; the others have their defaults.
    ///
    /// # Errors
    /// The first value that its setting does not accept.
    pub(super) fn read(&self, mode: Mode, wanted: impl Fn(&str) -> bool) -> Result<ServerSettings, ConfigError> {
        let mut server = ServerSettings::default();
        for setting in SERVER_SETTINGS.iter().filter(|setting| wanted(setting.name)) {
            let default = setting.notes.dev.filter(|_| mode == Mode::Dev);
            let Some(text) = self.text(setting.name).or(default) else {
                continue;
            };
            (setting.set)(&mut server, text).ok_or_else(|| {
                ConfigError(format!("{} takes {}, not {text:?}", self.origin(setting.name), setting.takes))
            })?;
        }
        Ok(server)
    }

    /// The value of a part of a setting, which only variables of other servers name.
    pub(super) fn parse<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let refuse = || ConfigError(format!("{} does not accept {text:?}", self.origin(name)));
        parse(text).map(Some).ok_or_else(refuse)
    }

    /// Settings of the app that the start creates, with their texts, in the order of their table.
    pub(super) fn of_new_app(&self) -> impl Iterator<Item = (&'static str, &str)> {
        APP_SETTINGS.iter().filter_map(|setting| Some((setting.name, self.text(&alias::part_of_app(setting.name))?)))
    }
}

fn default_file() -> Option<PathBuf> {
    ["relay.toml", "/etc/relay/relay.toml"].into_iter().map(Path::new).find(|path| path.exists()).map(Into::into)
}
