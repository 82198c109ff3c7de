//! The `moenet-agent` command: parses its arguments and hands over to the library.

use std::process::ExitCode;

use clap::Parser;
use moenet_agent::cli::{self, Arguments};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    cli::complete();
    match Arguments::try_parse() {
        Ok(arguments) => cli::run(arguments),
        Err(error) => cli::usage(&error),
    }
}
