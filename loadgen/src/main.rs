//! The program `loadgen`.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use loadgen::cli::{Command, Job, Program, UsageError};
use loadgen::compare::cli::CompareJob;
use loadgen::embedded;
use loadgen::outage;
use loadgen::outage::cli::OutageJob;
use loadgen::syslog::SyslogCli;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(exit) = embedded::run_if_child().or_else(outage::become_if_child) {
        return exit;
    }
    let program = Program::parse();
    let done = match &program.command {
        None => Job::from_cli(&program.run).map(|job| run(&job)),
        Some(Command::Compare(cli)) => CompareJob::from_cli(cli).map(|asked| compare(&asked)),
        Some(Command::Outage(cli)) => OutageJob::from_cli(cli).map(|asked| play_outages(&asked)),
        Some(Command::Syslog(cli)) => syslog(cli),
    };
    match done {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
        Err(usage) => {
            eprintln!("loadgen: {usage}");
            ExitCode::from(2)
        }
    }
}

fn run(job: &Job) -> Result<ExitCode, String> {
    let report = loadgen::run::run(job, &*interruptible()?)?;
    write_json(job.json.as_deref(), &report)?;
    let held = report.details.broken_promises.is_empty();
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn compare(asked: &CompareJob) -> Result<ExitCode, String> {
    let comparison = loadgen::compare::compare(asked, command(), &*interruptible()?)?;
    write_json(asked.job.json.as_deref(), &comparison)?;
    write_html(asked.html.as_deref(), || comparison.to_html())?;
    Ok(if comparison.left_out.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play_outages(asked: &OutageJob) -> Result<ExitCode, String> {
    let found = outage::outages(asked, command(), &*interruptible()?)?;
    write_json(asked.json.as_deref(), &found)?;
    write_html(asked.html.as_deref(), || found.to_html())?;
    Ok(if found.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was typed.
fn command() -> String {
    std::env::args().collect::<Vec<_>>().join(" ")
}

fn write_html(path: Option<&Path>, page: impl FnOnce() -> String) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, page()).map_err(|error| format!("--html {}: {error}", path.display()))
}

fn syslog(cli: &SyslogCli) -> Result<Result<ExitCode, String>, UsageError> {
    let interrupted = match interruptible() {
        Ok(interrupted) => interrupted,
        Err(error) => return Ok(Err(error)),
    };
    let sent = loadgen::syslog::syslog(cli, &interrupted)?;
    Ok(sent.map(|report| {
        print!("{report}");
        if report.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }))
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

/// Writes what people read to standard output, or to standard error if that is where the JSON goes.
fn write_json(path: Option<&Path>, found: &(impl Serialize + Display)) -> Result<(), String> {
    let Some(path) = path else {
        print!("{found}");
        return Ok(());
    };
    let mut json = serde_json::to_string_pretty(found).expect("numbers and words become JSON");
    json.push('\n');
    if path.as_os_str() == "-" {
        print!("{json}");
        eprint!("{found}");
        return Ok(());
    }
    print!("{found}");
    std::fs::write(path, json).map_err(|error| format!("--json {}: {error}", path.display()))
}
