//! `RELAY_*` variables, and those of other servers that are accepted too. Other programs also create some: Kubernetes
//! and Docker links of a service called "relay".

use std::ffi::OsString;
use std::path::PathBuf;

use super::alias::{self, is_link};
use super::error::ConfigError;
use super::settings::{self, SERVER_SETTINGS};
use crate::setting::nearest;

/// The variable with the admin token for `--server` (R-ADMIN-19).
pub const ADMIN_TOKEN_VARIABLE: &str = "RELAY_ADMIN_TOKEN";

/// The settings from the environment.
#[derive(Debug, Default)]
pub(super) struct FromEnvironment {
    pub(super) values: Vec<(&'static str, String)>,
    pub(super) aliases: alias::Found,
    pub(super) config: Option<PathBuf>,
    pub(super) warnings: Vec<String>,
}

/// Reads the variables of Relay. Unknown ones are warnings: an operator should notice a typing error, but the
/// environment is shared with others. An empty value counts as not set.
pub(super) fn read(environment: impl Iterator<Item = (OsString, OsString)>) -> Result<FromEnvironment, ConfigError> {
    let mut found = FromEnvironment::default();
    for (variable, value) in environment {
        let Some(variable) = variable.to_str() else {
            continue;
        };
        if !variable.starts_with("RELAY_") {
            found.aliases.see(variable, value.to_str().unwrap_or_default());
            continue;
        }
        if variable == "RELAY_CONFIG" {
            found.config = (!value.is_empty()).then(|| value.into());
            continue;
        }
        // A credential of the command line (T49); the server does not read it.
        if variable == ADMIN_TOKEN_VARIABLE {
            continue;
        }
        let value = value.into_string();
        let known = SERVER_SETTINGS.iter().find(|setting| settings::variable(setting.name) == variable);
        match (known, value) {
            (Some(setting), Ok(value)) if !value.is_empty() => found.values.push((setting.name, value)),
            (Some(_), Ok(_)) => {}
            (Some(_), Err(_)) => {
                return Err(ConfigError(format!("{variable} is not UTF-8: set it to plain text or unset it")));
            }
            (None, Ok(value)) if is_service_link(variable, &value) => {}
            (None, _) => {
                let names: Vec<_> = SERVER_SETTINGS
                    .iter()
                    .map(|setting| settings::variable(setting.name).to_ascii_lowercase())
                    .collect();
                let nearest = nearest(variable, names.iter().map(String::as_str)).to_ascii_uppercase();
                let nearest = nearest.replace(", DID YOU MEAN", ", did you mean");
                found.warnings.push(format!("the variable {variable} is not known and ignored{nearest}"));
            }
        }
    }
    Ok(found)
}

/// `RELAY_PORT=tcp://10.0.0.1:6001`, `RELAY_SERVICE_HOST`, `RELAY_PORT_6001_TCP_ADDR` and their like for a service
/// whose name begins with "relay".
fn is_service_link(variable: &str, value: &str) -> bool {
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || (variable.contains("_PORT") && is_link(value))
        || (variable.contains("_PORT_") && (variable.contains("_TCP_") || variable.contains("_UDP_")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_pairs(pairs: &[(&str, &str)]) -> FromEnvironment {
        read(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()))).expect("reads")
    }

    /// Known variables are read, others that begin alike are left alone, and variables of service links cause no
    /// warning.
    #[test]
    fn ours_are_told_from_others() {
        let found = read_pairs(&[
            ("RELAY_LISTEN", "127.0.0.1:1"),
            ("RELAY_SHARDS", ""),
            ("RELAYED", "x"),
            ("PATH", "/bin"),
            ("RELAY_PORT", "tcp://10.0.0.1:6001"),
            ("RELAY_SERVICE_HOST", "10.0.0.1"),
            ("RELAY_SERVICE_PORT_WS", "6001"),
            ("RELAY_PORT_6001_TCP_ADDR", "10.0.0.1"),
            ("RELAY_METRICS_PORT_9601_TCP_PROTO", "tcp"),
            ("RELAY_ADMIN_TOKEN", "rly_adm_x"),
        ]);
        assert_eq!(found.values, [("listen", "127.0.0.1:1".to_owned())]);
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    }

    /// An unknown variable is a warning with the nearest name, and does not repeat its value.
    #[test]
    fn unknown_ones_name_the_nearest() {
        let found = read_pairs(&[("RELAY_LISTN", "hunter2")]);
        assert_eq!(
            found.warnings,
            ["the variable RELAY_LISTN is not known and ignored, did you mean \"RELAY_LISTEN\"?"]
        );
    }
}
