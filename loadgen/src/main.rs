//! The program `loadgen`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use loadgen::cli::{Cli, Job};
use loadgen::embedded;
use loadgen::report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(exit) = embedded::run_if_child() {
        return exit;
    }
    let job = match Job::from_cli(&Cli::parse()) {
        Ok(job) => job,
        Err(error) => {
            eprintln!("loadgen: {error}");
            return ExitCode::from(2);
        }
    };
    match interruptible().and_then(|interrupted| loadgen::run::run(&job, &interrupted)) {
        Ok(report) => conclude(&job, &report),
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Set by the first SIGINT or SIGTERM; the second one ends the program as it would without us.
fn interruptible() -> Result<Arc<AtomicBool>, String> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let flag = || Arc::clone(&interrupted);
        signal_hook::flag::register_conditional_default(signal, flag())
            .and_then(|_| signal_hook::flag::register(signal, flag()))
            .map_err(|error| format!("signal {signal} can't be handled: {error}"))?;
    }
    debug_assert!(!interrupted.load(Ordering::Relaxed));
    Ok(interrupted)
}

fn conclude(job: &Job, report: &Report) -> ExitCode {
    let mut written = Ok(());
    if let Some(path) = &job.json {
        let mut json = serde_json::to_string_pretty(report).expect("numbers and words become JSON");
        json.push('\n');
        if path.as_os_str() == "-" {
            print!("{json}");
            eprint!("{report}");
        } else {
            written = std::fs::write(path, json);
            print!("{report}");
        }
        if let Err(error) = &written {
            eprintln!("loadgen: --json {}: {error}", path.display());
        }
    } else {
        print!("{report}");
    }
    let held = report.details.broken_promises.is_empty() && written.is_ok();
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
