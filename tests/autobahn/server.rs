//! The server with the echo endpoint of the feature `conformance`: an example, so that it shares its dependencies with
//! the tests' build and leaves the adjacent `relay` binary unchanged.

/// The same allocator as the `relay` binary.
fn main() -> std::process::ExitCode {
    relay::cli::run()
}
