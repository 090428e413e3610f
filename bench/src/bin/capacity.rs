//! `capacity`: what a fleet needs, by what the benches measured on this machine.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use bench::capacity::{Cipher, Demand, Figures, Plan, Protocol, Sink, html, plan, table};
use clap::Parser;

/// Plans the capacity for a fleet of agents from criterion's reports of this machine. The model is in bench/CAPACITY.md.
#[derive(Parser)]
#[command(name = "capacity", version)]
struct Options {
    /// Agents of the fleet.
    #[arg(long)]
    agents: u64,
    /// Events a second of each agent.
    #[arg(long, value_parser = positive)]
    eps: f64,
    /// The protocol that the answer is for; the table has both.
    #[arg(long, value_enum, default_value = "udp")]
    proto: Protocol,
    /// How messages are encrypted.
    #[arg(long, value_enum, default_value = "aes")]
    cipher: Cipher,
    /// Bytes of an event's text, location included.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    bytes: u64,
    /// Where events go.
    #[arg(long, value_enum, default_value = "queue-socket")]
    sink: Sink,
    /// The share of each core that is to be left free, from 0 to 0.95.
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    margin: f64,
    /// Cores that there are [default: this machine's].
    #[arg(long)]
    cores: Option<u64>,
    /// Criterion's reports [default: criterion in $CARGO_TARGET_DIR or target].
    #[arg(long)]
    reports: Option<PathBuf>,
    /// Reports that were saved: a copy of criterion's folder, from here or another machine.
    #[arg(long, conflicts_with = "reports")]
    saved: Option<PathBuf>,
    /// Prints the plan as JSON.
    #[arg(long)]
    json: bool,
    /// Writes a self-contained page with the curves.
    #[arg(long)]
    html: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("capacity: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let folder = options.saved.clone().or_else(|| options.reports.clone()).unwrap_or_else(default_reports);
    let figures = Figures::read(&folder)?;
    let plan = plan(&figures, &demand(options)).map_err(|missing| missing.to_string())?;
    if let Some(path) = &options.html {
        std::fs::write(path, html(&plan)).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    print(&plan, options.json)
}

fn print(plan: &Plan, json: bool) -> Result<(), Box<dyn std::error::Error>> {
    if json {
        println!("{}", serde_json::to_string_pretty(plan)?);
    } else {
        print!("{}", table(plan));
    }
    Ok(())
}

fn demand(options: &Options) -> Demand {
    let here = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    Demand {
        agents: options.agents,
        events_a_second_each: options.eps,
        text_bytes: options.bytes,
        message_bytes: Demand::message_bytes_of(options.bytes, options.cipher),
        cipher: options.cipher,
        protocol: options.proto,
        sink: options.sink,
        margin: options.margin,
        cores: options.cores.unwrap_or_else(here),
    }
}

fn default_reports() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    target.join("criterion")
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number <= 1e6 => Ok(number),
        Ok(_) | Err(_) => Err("a number above 0, up to 1,000,000".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=0.95).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err("a share from 0 to 0.95".to_owned()),
    }
}
