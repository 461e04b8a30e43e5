//! The settings by name, and where each value came from. A name is the same everywhere: `listen` in `relay.toml`,
//! `RELAY_LISTEN` in the environment, `--listen` as a flag.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{alias, environment, file};

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in `relay.toml`; with dashes it is the flag, in upper case after `RELAY_` the variable.
    pub name: &'static str,
    /// What it takes, for messages.
    pub takes: &'static str,
    /// Whether messages may repeat its value.
    pub secret: bool,
}

const fn plain(name: &'static str, takes: &'static str) -> Setting {
    Setting { name, takes, secret: false }
}

/// All settings of `relay serve`.
pub const SETTINGS: [Setting; 29] = [
    plain("listen", "an address and port such as 127.0.0.1:6001, 0.0.0.0:6001 or [::]:6001"),
    plain("metrics_listen", "an address and port such as 127.0.0.1:9601; port 0 takes a free one"),
    plain("metrics_prefix", "letters, digits and underscores that begin with no digit, such as relay_ or soketi_"),
    plain("data", "a directory"),
    plain("shards", "a number from 1 to 256"),
    plain("io", "auto, uring or epoll"),
    plain("send_zc", "bytes from 1 to 65536"),
    plain("trusted_proxies", "addresses or networks joined by commas, such as 10.0.0.0/8,192.168.1.7"),
    plain("path_prefix", "nothing, or a path such as /relay without a slash at its end"),
    plain("activity_timeout", "seconds from 1 to 3600"),
    plain("http_keep_alive", "seconds from 5 to 3600"),
    plain("strict_protocol", "true or false"),
    plain("channel_names", "default, strict or permissive"),
    plain("cache_ttl", "seconds from 1 to 604800"),
    plain("auth_failures_per_minute", "a number from 1 to 10000"),
    plain("authorization_timeout", "seconds from 1 to 3600"),
    plain("strict_pusher_info", "true or false"),
    plain("drain_ms", "milliseconds from 0 to 600000"),
    plain("max_connections", "a number from 1 to 10000000"),
    plain("webhook_allow", "addresses or networks joined by commas, such as 10.0.0.0/8,192.168.1.7"),
    plain("webhook_ca", "a readable file of certificates in PEM"),
    plain("webhook_threads", "a number from 1 to 256"),
    plain("webhook_queue", "a number from 1 to 400000"),
    plain("webhook_retry_ms", "milliseconds from 10 to 60000"),
    plain("watchdog", "seconds from 1 to 3600, or 0 for never"),
    plain("log", "a level such as info, or directives such as info,relay=debug"),
    plain("app_id", "the id of an app"),
    plain("app_key", "the key of an app"),
    Setting { name: "app_secret", takes: "the secret of an app", secret: true },
];

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

/// A mistake in a flag, a variable or the file: one line with cause and fix.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// What was set, as text, with its source.
#[derive(Debug, Default)]
pub struct Settings {
    values: HashMap<&'static str, (String, Source)>,
    /// Things to tell the operator that do not stop the start.
    pub warnings: Vec<String>,
    /// Which variables of other servers were taken, in one line.
    pub aliases: Option<String>,
    /// Why a server must not start with them.
    alias_problem: Option<ConfigError>,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

impl Settings {
    /// Weighs flags over environment over file over variables of other servers. `config` is `--config`; without it `RELAY_CONFIG` names the file, and
    /// without that the first of `./relay.toml` and `/etc/relay/relay.toml` that exists is read.
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

    /// The variables that describe an app, where there is none to describe.
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

    /// Refuses variables of other servers that disagree or do not read.
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
            Some(Source::Environment) => environment::variable(name),
            Some(Source::Alias(variable)) => (*variable).into(),
            Some(Source::File(path, line)) => format!("{}:{line}: {name}", path.display()),
        }
    }

    /// The value of a setting, or an error that names its source and what it takes.
    pub(super) fn parse<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        if let Some(value) = parse(text) {
            return Ok(Some(value));
        }
        let takes = SETTINGS.iter().find(|setting| setting.name == name).map_or("", |setting| setting.takes);
        Err(ConfigError(format!("{} takes {takes}, not {text:?}", self.origin(name))))
    }
}

fn default_file() -> Option<PathBuf> {
    ["relay.toml", "/etc/relay/relay.toml"].into_iter().map(Path::new).find(|path| path.exists()).map(Into::into)
}
