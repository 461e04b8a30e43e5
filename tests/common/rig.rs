//! The same scenario on both drivers.

use std::sync::OnceLock;

use super::server::{Driver, ServerOptions, TestServer};
use super::tools::say_skipped;

/// The drivers that this machine can run. Where io_uring is forbidden or missing, the test reports it and runs epoll
/// alone.
pub fn drivers() -> &'static [Driver] {
    static DRIVERS: OnceLock<Vec<Driver>> = OnceLock::new();
    DRIVERS.get_or_init(|| match io_uring::IoUring::new(2) {
        Ok(_) => vec![Driver::Uring, Driver::Epoll],
        Err(error) => {
            say_skipped(&format!("io_uring is not available on this machine ({error}); epoll alone is tested"));
            vec![Driver::Epoll]
        }
    })
}

/// Runs a scenario once per driver, each on a server started for it.
pub fn on_fresh_servers(options: impl Fn(Driver) -> ServerOptions, scenario: impl Fn(TestServer)) {
    for &driver in drivers() {
        let _told = ToldOnPanic(driver);
        scenario(TestServer::start_with(options(driver)));
    }
}

/// Like [`on_fresh_servers`], all drivers at the same time: for scenarios that mostly wait.
pub fn on_fresh_servers_at_once(options: impl Fn(Driver) -> ServerOptions, scenario: impl Fn(TestServer) + Sync) {
    std::thread::scope(|scope| {
        for &driver in drivers() {
            let (options, scenario) = (options(driver), &scenario);
            scope.spawn(move || {
                let _told = ToldOnPanic(driver);
                scenario(TestServer::start_with(options));
            });
        }
    });
}

/// Runs a scenario once per driver on the servers that the entire test binary shares.
pub fn on_shared_servers(shared: &'static SharedServers, scenario: impl Fn(&'static TestServer)) {
    for &driver in drivers() {
        let _told = ToldOnPanic(driver);
        scenario(shared.server(driver));
    }
}

/// One server per driver for an entire test binary, started on first use.
pub struct SharedServers {
    options: fn(Driver) -> ServerOptions,
    uring: OnceLock<TestServer>,
    epoll: OnceLock<TestServer>,
}

impl SharedServers {
    /// Servers with these options.
    pub const fn new(options: fn(Driver) -> ServerOptions) -> Self {
        Self { options, uring: OnceLock::new(), epoll: OnceLock::new() }
    }

    /// The server of a driver.
    pub fn server(&self, driver: Driver) -> &TestServer {
        let cell = match driver {
            Driver::Uring => &self.uring,
            Driver::Epoll => &self.epoll,
        };
        cell.get_or_init(|| TestServer::start_with((self.options)(driver)))
    }
}

struct ToldOnPanic(Driver);

impl Drop for ToldOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- on driver {}", self.0.word());
        }
    }
}
