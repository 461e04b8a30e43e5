//! The same bare server on monoio, on tokio-uring and on Relay's two drivers, and the rounds that compare them with each
//! other, with the kernel's floor and with Relay itself. README.md has the commands.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use relay::driver::{DriverKind, listener};

mod channels;
mod measure;
mod on_monoio;
mod on_relay;
mod on_tokio_uring;
mod outbox;
mod protocol;
mod tasks;

use protocol::Role;

/// The same allocator for all runtimes, and the one that `relay` uses, so that their memory is comparable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bare servers on several runtimes, and their costs.
#[derive(Parser)]
#[command(name = "relay-runtimes", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve on this thread until killed.
    Serve {
        /// The runtime that moves the bytes.
        #[arg(long)]
        on: Runtime,
        /// The server's response to what it receives.
        #[arg(long, default_value = "fan-out")]
        role: Role,
        /// Address; port 0 binds a free port.
        #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Run rounds of an experiment and print all rounds of it so far.
    Measure(measure::Measure),
    /// Print all rounds so far: the runtimes in one table, then every other experiment in its own.
    Table,
    /// List the experiments.
    List,
}

/// The runtime that moves bytes between sockets and the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Runtime {
    Monoio,
    TokioUring,
    /// Relay's io_uring driver.
    RelayUring,
    /// Relay's epoll driver.
    RelayEpoll,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve { on, role, listen } => serve(on, role, listen),
        Command::Measure(measure) => measure.run(),
        Command::Table => measure::print_all(),
        Command::List => {
            measure::list();
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay-runtimes: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Every runtime gets the same listening socket, with the same options, which accepted sockets inherit.
fn serve(on: Runtime, role: Role, listen: SocketAddr) -> Result<(), String> {
    let mut bound = listener::bind(listen, 1).map_err(|error| error.to_string())?;
    println!("listening on {}", bound.address);
    let socket = bound.sockets.remove(0);
    let blocking = || {
        let listener = std::net::TcpListener::from(socket.try_clone()?);
        listener.set_nonblocking(false)?;
        Ok(listener)
    };
    let result: std::io::Result<()> = match on {
        Runtime::Monoio => blocking().and_then(|listener| on_monoio::serve(listener, role)),
        Runtime::TokioUring => blocking().and_then(|listener| on_tokio_uring::serve(listener, role)),
        Runtime::RelayUring => on_relay::serve(DriverKind::Uring, socket, role),
        Runtime::RelayEpoll => on_relay::serve(DriverKind::Epoll, socket, role),
    };
    result.map_err(|error| format!("{on:?}: {error}"))
}

/// Submission entries of monoio's and tokio-uring's rings: one event to 1,000 subscribers is one system call.
const RING_ENTRIES: u32 = 4_096;
