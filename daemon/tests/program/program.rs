//! A running `ringmaster` with a home of its own.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Beyond this a test has failed. Far more than a slow machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A home for one test. Outlives the programs that run on it.
pub(crate) struct TestHome {
    folder: TempDir,
}

impl TestHome {
    /// A home with these agents, on free ports of the loopback address, with `settings` appended to the file.
    pub(crate) fn new(keys: &str, settings: &str) -> TestHome {
        let home = TestHome { folder: tempfile::tempdir().unwrap() };
        for folder in ["etc", "queue/ossec", "queue/rids"] {
            fs::create_dir_all(home.path().join(folder)).unwrap();
        }
        fs::write(home.path().join("etc/client.keys"), keys).unwrap();
        let ports = "[listen]\naddresses = [\"127.0.0.1:0\"]\n[metrics]\naddress = \"127.0.0.1:0\"\n";
        fs::write(home.path().join("etc/ringmaster.toml"), format!("{ports}{settings}")).unwrap();
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn read(&self, part: &str) -> String {
        fs::read_to_string(self.path().join(part)).unwrap_or_default()
    }

    /// Runs the program to its end with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Output {
        program(self.path()).args(arguments).output().unwrap()
    }

    /// The same, with this on its standard input.
    pub(crate) fn command_with_input(&self, arguments: &[&str], input: &str) -> std::process::Output {
        let mut command = program(self.path());
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a command prints that must succeed.
    pub(crate) fn said(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts the manager in a way of one's own, which ends up in this program with this home.
    pub(crate) fn start_as(&self, command: Command) -> Program {
        Program::start_as(self.path(), command)
    }

    /// Starts the manager and waits until it listens.
    pub(crate) fn start(&self) -> Program {
        Program::start(self.path(), &[])
    }

    /// The same as a service manager does, with these variables in the environment.
    pub(crate) fn start_with(&self, variables: &[(&str, &str)]) -> Program {
        Program::start(self.path(), variables)
    }
}

fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmaster"));
    command.arg("--home").arg(home).env_remove("NOTIFY_SOCKET").env("TZ", "UTC");
    command
}

/// A running manager; killed when dropped.
pub(crate) struct Program {
    child: Child,
    log: Receiver<String>,
    said: Vec<String>,
    /// Where agents connect to.
    pub(crate) address: SocketAddr,
    /// Where `/metrics` and `/readyz` answer.
    pub(crate) metrics: SocketAddr,
}

impl Program {
    fn start(home: &Path, variables: &[(&str, &str)]) -> Program {
        let mut command = program(home);
        command.envs(variables.iter().copied());
        Program::start_as(home, command)
    }

    fn start_as(home: &Path, mut command: Command) -> Program {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, log) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut program = Program { child, log, said: Vec::new(), address: nowhere, metrics: nowhere };
        program.wait_for_line("listening on ");
        let status = fs::read_to_string(home.join("var/run/ringmaster.json")).unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["pid"], program.child.id());
        program.address = status["listen"][0].as_str().unwrap().parse().unwrap();
        program.metrics = status["metrics"].as_str().unwrap().parse().unwrap();
        program
    }

    /// Waits until the log has a line that contains `text`, and returns that line.
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no line with {text:?} ({error}); the program said {:#?}", self.said),
            }
        }
    }

    /// Asks over HTTP. Returns status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: ringmaster\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// The sum of a number of `/metrics` over all lines that have all of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        sum(&self.get("/metrics").1, name, labels)
    }

    /// Asks until a number is at least `count`, and returns it.
    pub(crate) fn wait_for_metric(&self, name: &str, labels: &[&str], count: u64) -> u64 {
        let started = Instant::now();
        loop {
            let found = self.metric(name, labels);
            if found >= count {
                return found;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{name} {labels:?} is {found}, not {count}\n{}",
                self.get("/metrics").1
            );
        }
    }

    /// Asks for `/readyz` until what it answers, or anything else, is as it should be.
    pub(crate) fn wait_until(&self, mut holds: impl FnMut(u16) -> bool) {
        let started = Instant::now();
        while !holds(self.get("/readyz").0) {
            assert!(started.elapsed() < PATIENCE, "it did not come to that");
        }
    }

    /// At a moment of rest every message has one verdict, and every event that a sink took its end or its place.
    pub(crate) fn assert_balanced(&self) {
        let text = self.get("/metrics").1;
        let number = |name: &str| sum(&text, &format!("ringmaster_{name}"), &[]);
        assert_eq!(
            number("received_total"),
            number("events_total") + number("control_total") + number("dropped_total"),
            "{text}"
        );
        assert_eq!(
            number("sink_taken_total"),
            number("sink_delivered_total") + number("sink_held") + number("sink_failed_total"),
            "{text}"
        );
    }

    /// SIGTERM, and what the program says at its end.
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        self.signal(rustix::process::Signal::TERM);
        let line = self.wait_for_line("stopped: ");
        (self.ended(), line)
    }

    /// How the program ended, once it was told to.
    pub(crate) fn ended(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// SIGKILL: no last word.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sum(text: &str, name: &str, labels: &[&str]) -> u64 {
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum()
}
