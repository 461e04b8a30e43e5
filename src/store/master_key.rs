//! The master key of an app's encrypted channels (R-AUTHEP-6).

use super::error::StoreError;
use super::record::Hidden;
use super::{Store, random};
use crate::app::actor::Actor;
use crate::app::master_key::MasterKey;

impl Store {
    /// Generates a master key, in base64, and stores it with the app if `stored`. A stored one is replaced: clients get
    /// the keys of encrypted channels from the new one when they subscribe again.
    pub fn new_master_key(&self, actor: &Actor, app: &str, stored: bool) -> Result<String, StoreError> {
        let key = MasterKey::new(random::master_key()).to_base64();
        if stored {
            self.change_app(actor, app, |app| {
                app.encryption_master_key = Some(Hidden(key.clone()));
                Ok(())
            })?;
        } else {
            self.app(app)?;
        }
        Ok(key)
    }

    /// Removes the stored master key of an app.
    pub fn remove_master_key(&self, actor: &Actor, app: &str) -> Result<(), StoreError> {
        self.change_app(actor, app, |app| match app.encryption_master_key.take() {
            Some(_) => Ok(()),
            None => Err(StoreError::NoMasterKey(app.id.clone())),
        })?;
        Ok(())
    }
}
