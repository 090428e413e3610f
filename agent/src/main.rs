//! The program `ringmaster-agent`: in an OSSEC agent installation, in the place of ossec-agentd.
#![forbid(unsafe_code)]

mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::main()
}
