//! The flags of settings, generated from their table (see [`crate::setting`]).

use std::marker::PhantomData;

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::config::{SERVER_SETTINGS, ServerSettings};
use crate::setting::{Setting, Takes};

/// Which settings a command has flags for.
pub(super) trait Selection: Clone + Send + Sync + 'static {
    /// True for the names of these settings.
    fn has(name: &str) -> bool;
}

/// Every setting that has a flag.
#[derive(Clone, Debug)]
pub(super) struct All;

impl Selection for All {
    fn has(_: &str) -> bool {
        true
    }
}

/// The flags of a selection of settings, with their values as text.
#[derive(Clone, Debug)]
pub(super) struct Flags<S> {
    given: Vec<(&'static str, String)>,
    selection: PhantomData<S>,
}

impl<S: Selection> Flags<S> {
    /// The flags given on the command line, as (name, text).
    pub(super) fn given(&self) -> Vec<(&'static str, String)> {
        self.given.clone()
    }

    fn settings() -> impl Iterator<Item = &'static Setting<ServerSettings>> {
        SERVER_SETTINGS.iter().filter(|setting| setting.notes.flag.is_some() && S::has(setting.name))
    }
}

impl<S: Selection> Args for Flags<S> {
    fn augment_args(command: Command) -> Command {
        let defaults = ServerSettings::default();
        Self::settings().fold(command, |command, setting| command.arg(flag(setting, &defaults)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<S: Selection> FromArgMatches for Flags<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let text = |setting: &Setting<ServerSettings>| matches.get_one::<String>(setting.name).cloned();
        let given = Self::settings().filter_map(|setting| Some((setting.name, text(setting)?))).collect();
        Ok(Self { given, selection: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn flag(setting: &'static Setting<ServerSettings>, defaults: &ServerSettings) -> Arg {
    let values = match setting.takes {
        Takes::Word(_) => format!(": {}", setting.takes),
        Takes::Number { zero, .. } if !zero.is_empty() => format!("; 0 is {zero}"),
        Takes::Switch | Takes::Number { .. } | Takes::Form(_) => String::new(),
    };
    let dev = setting.notes.dev.map(|default| format!("; {default} with --dev")).unwrap_or_default();
    let help = format!("{}{values} [default: {}{dev}]", setting.summary(), setting.default_text(defaults));
    let arg =
        Arg::new(setting.name).long(setting.name.replace('_', "-")).value_name(setting.notes.flag.unwrap_or("TEXT"));
    let arg = setting.notes.flag_alias.into_iter().fold(arg, Arg::alias).help(help);
    // A switch without a value turns it on.
    if matches!(setting.takes, Takes::Switch) { arg.num_args(0..=1).default_missing_value("true") } else { arg }
}
