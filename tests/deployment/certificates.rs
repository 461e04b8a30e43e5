//! Certificates of a CA that each test creates with openssl, for an address of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::common::server::data_directory;
use crate::common::tools::say_skipped;

/// What is right or wrong about a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Signed,
    SelfSigned,
    Expired,
    OtherName,
}

/// The files of a certificate for one address.
pub(super) struct Certificate {
    pub(super) address: SocketAddr,
    pub(super) ca: PathBuf,
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
    /// Certificate and key in one file.
    pub(super) combined: PathBuf,
    _directory: TempDir,
}

impl Certificate {
    /// `None` where openssl is missing, which is reported.
    pub(super) fn new(kind: Kind) -> Option<Self> {
        let directory = data_directory();
        let address = super::free_address(0).expect("a free port");
        let path = |name: &str| directory.path().join(name);
        let openssl = |arguments: &str| {
            let arguments =
                arguments.split(' ').map(|word| word.replace("DIR", directory.path().to_str().expect("text")));
            let output = Command::new("openssl").args(arguments).output();
            output.is_ok_and(|output| output.status.success())
        };
        let name =
            if kind == Kind::OtherName { "DNS:other.example".to_owned() } else { format!("IP:{}", address.ip()) };
        std::fs::write(path("leaf.ext"), format!("subjectAltName={name}\n")).expect("written");
        let curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        let days = if kind == Kind::Expired { -1 } else { 2 };
        let made = openssl(&format!("req -x509 {curve} -days 2 -subj /CN=ca -keyout DIR/ca.key -out DIR/ca.pem"))
            && openssl(&format!("req -new {curve} -subj /CN=leaf -keyout DIR/leaf.key -out DIR/leaf.csr"))
            && match kind {
                Kind::SelfSigned => openssl(&format!(
                    "req -x509 {curve} -days 2 -subj /CN=self -addext subjectAltName={name} -keyout DIR/leaf.key \
                     -out DIR/leaf.pem"
                )),
                Kind::Signed | Kind::Expired | Kind::OtherName => openssl(&format!(
                    "x509 -req -in DIR/leaf.csr -CA DIR/ca.pem -CAkey DIR/ca.key -CAcreateserial -days {days} -extfile \
                     DIR/leaf.ext -out DIR/leaf.pem"
                )),
            };
        if !made {
            say_skipped(
                "openssl is not available: certificates of proxies are not tested (Debian: apt-get install openssl)",
            );
            return None;
        }
        let read = |name: &str| std::fs::read_to_string(path(name)).expect("made");
        std::fs::write(path("combined.pem"), read("leaf.pem") + &read("leaf.key")).expect("written");
        Some(Self {
            address,
            ca: path("ca.pem"),
            chain: path("leaf.pem"),
            key: path("leaf.key"),
            combined: path("combined.pem"),
            _directory: directory,
        })
    }
}
