//! The `metaq` program: parses the command line and calls one function a subcommand.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    metaq::cli::run(metaq::cli::Command::parse())
}
