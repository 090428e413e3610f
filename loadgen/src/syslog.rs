//! `loadgen syslog`: numbered lines at a steady rate to any syslog listener, as `logger` sends them.
//!
//! What arrived is to be counted at the other end: each line ends in its number, so a file of them shows what is missing.

use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::cli::UsageError;
use crate::values::parse_duration;

/// What stands before the filler of each line.
const HEAD: &[u8] = b"<134>Nov 22 08:00:00 loadgen app[1]: ";
/// Digits of a line's number, behind a blank at its end.
const NUMBER_DIGITS: usize = 9;
/// Head, blank and number.
const BYTES_MIN: usize = HEAD.len() + 1 + NUMBER_DIGITS;
/// More than any listener takes of a datagram.
const BYTES_MAX: usize = 60_000;
const LINES_MAX: f64 = 999_999_999.0;
/// How often what is due is sent.
const STEP: Duration = Duration::from_millis(1);
/// How long a reader that takes nothing is waited for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends numbered syslog lines to a listener, and says how many it took.
///
/// Each line is as long as --bytes says and ends in its number, from 000000000. Exit status: 0 all were sent in time, 1 they were not, 2 the
/// command line is wrong.
#[derive(Clone, Debug, Args)]
pub struct SyslogCli {
    /// The listener.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub to: SocketAddr,
    /// How the lines travel.
    #[arg(long, value_enum, default_value_t = SyslogProtocol::Udp)]
    pub proto: SyslogProtocol,
    /// What tells lines apart over TCP.
    #[arg(long, value_enum, default_value_t = Framing::Newline)]
    pub framing: Framing,
    /// Lines a second.
    #[arg(long, default_value_t = 10_000.0, value_name = "LINES/S")]
    pub rate: f64,
    /// How long lines are made: 10, 10s, 500ms, 2m.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_duration)]
    pub duration: Duration,
    /// A line with its priority, in bytes.
    #[arg(long, default_value_t = 200, value_name = "BYTES")]
    pub bytes: usize,
}

/// How syslog lines travel.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum SyslogProtocol {
    /// One connection.
    Tcp,
    /// A datagram each.
    Udp,
}

/// What tells lines in a stream apart (RFC 6587).
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Framing {
    /// Their length in front.
    Counted,
    /// A newline behind.
    Newline,
}

/// What became of the lines.
#[derive(Clone, Debug, PartialEq)]
pub struct SyslogReport {
    /// Lines planned.
    pub planned: u64,
    /// Lines that the kernel took.
    pub sent: u64,
    /// Lines that it refused: nobody listens.
    pub refused: u64,
    /// From the first line to the last.
    pub elapsed: Duration,
    /// How late a line was sent at the most.
    pub late_max: Duration,
}

impl SyslogReport {
    /// Whether every line was sent, and none so late that the rate was another one.
    pub fn held(&self) -> bool {
        self.sent == self.planned && self.late_max < Duration::from_millis(250)
    }
}

impl fmt::Display for SyslogReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SyslogReport { planned, sent, refused, elapsed, late_max } = self;
        let seconds = elapsed.as_secs_f64();
        let rate = *sent as f64 / seconds.max(1e-9);
        writeln!(
            out,
            "{sent} of {planned} lines sent in {seconds:.2} s ({rate:.0}/s), {refused} refused, the latest {} ms late",
            late_max.as_millis()
        )
    }
}

/// Sends the lines, until all are sent or `interrupted`.
///
/// # Errors
/// If the command line asks for what can't be, which is [`Err`] outside, or if nobody listens over TCP, or not any more.
pub fn syslog(cli: &SyslogCli, interrupted: &AtomicBool) -> Result<Result<SyslogReport, String>, UsageError> {
    check(cli)?;
    let failed = |error: io::Error| format!("{}: {error}; is that where the listener is?", cli.to);
    Ok(Way::open(cli).and_then(|way| send(cli, way, interrupted)).map_err(failed))
}

fn check(cli: &SyslogCli) -> Result<(), UsageError> {
    if !(cli.rate.is_finite() && cli.rate > 0.0 && cli.rate <= 1e7) {
        return Err(UsageError(format!("--rate {} is not between 0 and 10000000 lines a second", cli.rate)));
    }
    if !(BYTES_MIN..=BYTES_MAX).contains(&cli.bytes) {
        return Err(UsageError(format!(
            "--bytes {} is not between {BYTES_MIN} (head and number) and {BYTES_MAX}",
            cli.bytes
        )));
    }
    let lines = cli.rate * cli.duration.as_secs_f64();
    if !(1.0..=LINES_MAX).contains(&lines) {
        return Err(UsageError(format!(
            "{lines:.0} lines; --rate and --duration must make 1 to {LINES_MAX}"
        )));
    }
    Ok(())
}

enum Way {
    Tcp { stream: TcpStream, framing: Framing, due: Vec<u8> },
    Udp(UdpSocket),
}

impl Way {
    fn open(cli: &SyslogCli) -> io::Result<Way> {
        match cli.proto {
            SyslogProtocol::Tcp => {
                let stream = TcpStream::connect(cli.to)?;
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
                Ok(Way::Tcp { stream, framing: cli.framing, due: Vec::new() })
            }
            SyslogProtocol::Udp => {
                let socket = UdpSocket::bind((if cli.to.is_ipv4() { "0.0.0.0" } else { "::" }, 0))?;
                socket.connect(cli.to)?;
                Ok(Way::Udp(socket))
            }
        }
    }

    /// Sends a line, or puts it to those that leave together. Says no if the kernel refused it.
    fn take(&mut self, line: &[u8]) -> bool {
        match self {
            Way::Tcp { framing: Framing::Counted, due, .. } => {
                write!(due, "{} ", line.len()).expect("a Vec takes all");
                due.extend_from_slice(line);
                true
            }
            Way::Tcp { framing: Framing::Newline, due, .. } => {
                due.extend_from_slice(line);
                due.push(b'\n');
                true
            }
            // Refused: an answer to an earlier one, that nobody listens.
            Way::Udp(socket) => socket.send(line).is_ok(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Way::Tcp { stream, due, .. } => {
                stream.write_all(due)?;
                due.clear();
                Ok(())
            }
            Way::Udp(_) => Ok(()),
        }
    }
}

fn send(cli: &SyslogCli, mut way: Way, interrupted: &AtomicBool) -> io::Result<SyslogReport> {
    let planned = (cli.rate * cli.duration.as_secs_f64()) as u64;
    let mut report =
        SyslogReport { planned, sent: 0, refused: 0, elapsed: Duration::ZERO, late_max: Duration::ZERO };
    let mut line = Line::new(cli.bytes);
    let (start, mut number) = (Instant::now(), 0);
    while number < planned && !interrupted.load(Ordering::Relaxed) {
        let now = start.elapsed();
        let due = ((now.as_secs_f64() * cli.rate) as u64 + 1).min(planned);
        report.late_max = report.late_max.max(now.saturating_sub(intended(number, cli.rate)));
        while number < due {
            match way.take(line.number(number)) {
                true => report.sent += 1,
                false => report.refused += 1,
            }
            number += 1;
        }
        way.flush()?;
        report.elapsed = start.elapsed();
        let next = intended(number, cli.rate).max(now + STEP);
        std::thread::sleep(next.saturating_sub(start.elapsed()));
    }
    Ok(report)
}

fn intended(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

/// A line whose number can be changed.
struct Line(Vec<u8>);

impl Line {
    fn new(bytes: usize) -> Line {
        let mut line = HEAD.to_vec();
        line.resize(bytes - NUMBER_DIGITS - 1, b'x');
        line.push(b' ');
        line.resize(bytes, b'0');
        Line(line)
    }

    fn number(&mut self, mut number: u64) -> &[u8] {
        let start = self.0.len() - NUMBER_DIGITS;
        for digit in self.0[start..].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, Program};
    use clap::Parser;
    use std::io::Read;
    use std::net::TcpListener;

    fn cli(words: &str) -> SyslogCli {
        let program = Program::try_parse_from(format!("loadgen syslog {words}").split_whitespace()).unwrap();
        match program.command {
            Some(Command::Syslog(cli)) => cli,
            other => panic!("{other:?}"),
        }
    }

    fn run(words: &str) -> SyslogReport {
        syslog(&cli(words), &AtomicBool::new(false)).unwrap().unwrap()
    }

    #[test]
    fn every_line_is_sent_once_in_either_framing() {
        for (framing, before, behind) in [("newline", "", "\n"), ("counted", "80 ", "")] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            let reading = std::thread::spawn(move || {
                let mut text = String::new();
                listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
                text
            });
            let words =
                format!("--to {to} --proto tcp --framing {framing} --rate 5000 --duration 40ms --bytes 80");
            assert_eq!(run(&words).sent, 200);
            let filler = "x".repeat(80 - BYTES_MIN);
            let head = std::str::from_utf8(HEAD).unwrap();
            let expected: String =
                (0..200).map(|number| format!("{before}{head}{filler} {number:09}{behind}")).collect();
            assert_eq!(reading.join().unwrap(), expected);
        }
    }

    #[test]
    fn datagrams_carry_a_line_each() {
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        let words = format!("--to {} --rate 1000 --duration 20ms", listener.local_addr().unwrap());
        assert_eq!(run(&words).sent, 20);
        let mut buffer = [0; 1_000];
        for number in 0..20 {
            let bytes = listener.recv(&mut buffer).unwrap();
            assert!((bytes, buffer[..bytes].ends_with(format!(" {number:09}").as_bytes())) == (200, true));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (words, expected) in [
            ("--rate 0", "--rate 0"),
            ("--bytes 10", "--bytes 10"),
            ("--duration 0", "0 lines"),
            ("--rate 10000000 --duration 10m", "6000000000 lines"),
        ] {
            let error =
                syslog(&cli(&format!("--to 127.0.0.1:1 {words}")), &AtomicBool::new(false)).unwrap_err();
            assert!(error.to_string().contains(expected), "{words}: {error}");
        }
        let nobody = syslog(&cli("--to 127.0.0.1:1 --proto tcp"), &AtomicBool::new(false)).unwrap();
        assert!(nobody.unwrap_err().starts_with("127.0.0.1:1: "));
    }
}
