//! Keeps outgoing requests out of internal networks (threat T19): a name is resolved, every address is checked, and the
//! connection goes to an address that was checked, not to the name again.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::app::outgoing_url::Reach;
use crate::app::outgoing_url::address::is_public;

/// A resolver that refuses a name with any address that must not be reached.
#[derive(Debug)]
pub(super) struct Guard<R> {
    inner: R,
    reach: Reach,
    allowed: Vec<IpNet>,
}

impl<R: Resolver> Guard<R> {
    /// Wraps a resolver. `allowed` are networks that a URL of [`Reach::Public`] may be in, too, also over http.
    pub(super) fn new(inner: R, reach: Reach, allowed: Vec<IpNet>) -> Self {
        Self { inner, reach, allowed }
    }

    /// One refused address is enough: Relay cannot choose the address that a connection uses.
    pub(super) fn check(&self, scheme: &str, address: IpAddr) -> Result<(), String> {
        let address = address.to_canonical();
        let is_allowed = self.reach == Reach::Anywhere || self.allowed.iter().any(|network| network.contains(&address));
        match (is_allowed, is_public(address), scheme) {
            (true, _, _) | (false, true, "https") => Ok(()),
            (false, true, _) => Err(format!("{address} requires https")),
            (false, false, _) => Err(format!("{address} is not a public address")),
        }
    }
}

/// Whether a request may go to this address, for the fuzz targets (`fuzz/`).
#[cfg(fuzzing)]
pub fn may_reach(scheme: &str, address: IpAddr, reach: Reach, allowed: Vec<IpNet>) -> bool {
    let resolver = ureq::unversioned::resolver::DefaultResolver::default();
    Guard::new(resolver, reach, allowed).check(scheme, address).is_ok()
}

impl<R: Resolver> Resolver for Guard<R> {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let resolved = self.inner.resolve(uri, config, timeout)?;
        let scheme = uri.scheme_str().unwrap_or_default();
        for address in resolved.iter() {
            self.check(scheme, address.ip()).map_err(|reason| {
                ureq::Error::Io(io::Error::new(io::ErrorKind::PermissionDenied, format!("refused: {reason}")))
            })?;
        }
        Ok(resolved)
    }
}
