//! Maps a configuration of another server, without files and a store, for the fuzz targets (`fuzz/`). Compiled only for
//! them.

use std::path::Path;

use clap::ValueEnum as _;

use super::origin::Origin;
use super::plan::Plan;
use super::{entries, webhooks};
use crate::app::outgoing_url::Reach;
use crate::app::webhook::NewWebhook;
use crate::store::record::AppRecord;
use crate::store::setting;

/// An app that a file describes.
#[derive(Debug)]
pub struct PlannedFacts {
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: String,
    /// The secret of the key.
    pub secret: String,
    /// The record that a new app gets from the file.
    pub record: AppRecord,
    /// Its webhooks that may be at public addresses only.
    pub webhooks: Vec<NewWebhook>,
}

/// Reads a file of this name from the server with this number.
///
/// # Errors
/// The message of `relay migrate` about the file.
pub fn plan(origin: usize, text: &str, file: &str) -> Result<Vec<PlannedFacts>, String> {
    let origins = Origin::value_variants();
    let entries = entries::parse(text, Path::new(file))?;
    let Plan { apps, mut table, .. } = Plan::new(origins[origin % origins.len()], entries)?;
    apps.into_iter()
        .map(|app| {
            let mut record = AppRecord::stand_in();
            let defaults = app.defaults.iter();
            defaults
                .into_iter()
                .try_for_each(|(name, value)| setting::apply(&mut record, name, value))
                .expect("a default");
            app.change(&mut record).map_err(|error| error.to_string())?;
            let judged = webhooks::judge(&app.webhooks, None, Reach::Public, &[], &mut table);
            let webhooks = judged.into_iter().map(|judged| judged.new).collect();
            Ok(PlannedFacts { id: app.id, key: app.key, secret: app.secret, record, webhooks })
        })
        .collect()
}
