//! The program `ringmaster-broker`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    broker::cli::main()
}
