//! A real `ringmaster`: this test again, as a process that runs the daemon's library. Cargo names a program's path only to the
//! tests of its own package.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::stand_ins::Home;

const CHILD: &str = "RINGMASTER_AGENT_TEST_MANAGER";

/// Is the manager if this process is to be, and then returns when that has ended.
pub(super) fn is_child() -> bool {
    let Some(home) = std::env::var_os(CHILD).map(PathBuf::from) else { return false };
    daemon::logging::start();
    let loaded = daemon::settings::load(&home.join("etc/ringmaster.toml"), &home).unwrap();
    let _ = daemon::run(loaded.settings);
    true
}

/// A home with the agent that the other home is of.
pub(super) fn home() -> Home {
    let home = Home::new("", "");
    fs::create_dir_all(home.path("logs/archives")).unwrap();
    fs::remove_file(home.path("etc/ossec.conf")).unwrap();
    home
}

/// It, running.
pub(super) struct Ringmaster {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Ringmaster {
    /// Starts it, and waits until it listens. `test` is the test that calls [`is_child`].
    pub(super) fn start(test: &str, home: &Home, address: SocketAddr, settings: &str) -> Ringmaster {
        let text = format!(
            "[[listener]]\naddress = \"{address}\"\nprotocols = [\"tcp\"]\n[metrics]\naddress = \"127.0.0.1:0\"\n\
             [sink.queue]\nenabled = true\n[sink.archives]\ntext = true\njson = true\n{settings}"
        );
        fs::write(home.path("etc/ringmaster.toml"), text).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("with_ringmaster::{test}"), "--nocapture"])
            .env(CHILD, home.path(""))
            .env_remove("NOTIFY_SOCKET")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("the manager ended: {said:#?}"));
            if line.contains("listening on ") {
                break;
            }
            said.push(line);
        }
        // Nobody reads the rest of what it says, but it must be able to say it.
        std::thread::spawn(move || lines.for_each(drop));
        let status = fs::read_to_string(home.path("var/run/ringmaster.json")).unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["pid"], child.id());
        let address = status["listen"][0].as_str().unwrap().parse().unwrap();
        Ringmaster { child, address }
    }

    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it to hand over what it holds, and end.
    pub(super) fn stop(&self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Ringmaster {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
