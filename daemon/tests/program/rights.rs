//! Whose rights the program has, and what it leaves in an installation for others to find it by.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    process::Command,
};

use rustix::process::Signal;

use crate::program::{Program, TestHome};

/// `nobody` of most hosts; it needs no name.
const NOBODY: u32 = 65_534;

/// What the kernel says of a process.
fn status(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().replace('\t', " "))).collect()
}

/// A home whose counters belong to nobody, in a folder that nobody may pass through.
fn home_of_nobody(settings: &str) -> TestHome {
    let home = TestHome::new("001 web any k\n", settings);
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["queue", "queue/rids", "queue/ossec", "var", "var/run", "logs", "logs/archives"] {
        fs::create_dir_all(home.path().join(folder)).unwrap();
        chown(home.path().join(folder), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    for readable in ["etc", "etc/client.keys", "etc/ringmaster.toml"] {
        chown(home.path().join(readable), Some(0), Some(NOBODY)).unwrap();
    }
    home
}

#[test]
fn root_becomes_the_installations_user_and_has_no_way_back() {
    if !rustix::process::geteuid().is_root() {
        let home = TestHome::new("", "[run]\nuser = \"root\"\n");
        let output = home.command(&[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains("run.user: only root can become \"root\""), "{said}");
        return;
    }
    let home = home_of_nobody("");
    let mut program = home.start();
    let said = status(program.pid());
    assert_eq!(said["Uid"], "65534 65534 65534 65534");
    assert_eq!(said["Gid"], "65534 65534 65534 65534");
    assert_eq!(said["Groups"], "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(said[set], "0000000000000000", "{set}");
    }
    assert_eq!(said["NoNewPrivs"], "1");
    for thread in fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap() {
        let thread = thread.unwrap().path().join("status");
        let text = fs::read_to_string(&thread).unwrap();
        assert!(text.contains("Uid:\t65534\t65534\t65534\t65534"), "{}", thread.display());
    }
    // What it makes is that user's, and it can take up what changes.
    assert_eq!(fs::metadata(home.path().join("var/run/ringmaster.json")).unwrap().uid(), NOBODY);
    fs::write(home.path().join("etc/client.keys"), "001 web any k\n002 db any k\n").unwrap();
    program.wait_for_line("1409: client.keys changed: 2 agents");
    let (ended, _) = program.terminate();
    assert!(ended.success());
    let counters = fs::metadata(home.path().join("queue/ringmaster/counters")).unwrap();
    assert_eq!((counters.uid(), counters.gid()), (NOBODY, NOBODY));
}

#[test]
fn a_run_as_another_user_leaves_nothing_that_the_next_one_can_not_use() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else's run can come before: there is one user.
        let home = TestHome::new("", "");
        assert!(home.start().terminate().0.success());
        assert!(home.start().terminate().0.success());
        return;
    }
    let home = home_of_nobody("[run]\nuser = \"as-started\"\n");
    assert!(home.start().terminate().0.success(), "as root");
    let settings = home.read("etc/ringmaster.toml").replace("as-started", "auto");
    fs::write(home.path().join("etc/ringmaster.toml"), settings).unwrap();
    let program = home.start();
    assert!(status(program.pid())["Uid"].starts_with("65534 "));
    assert!(program.terminate().0.success());
}

#[test]
fn the_pid_file_lives_as_long_as_the_program_and_replaces_stale_ones() {
    let home = TestHome::new("", "");
    fs::create_dir_all(home.path().join("var/run")).unwrap();
    let stale = home.path().join("var/run/ringmaster-4194305.pid");
    fs::write(&stale, "4194305\n").unwrap();
    let program = home.start();
    let path = home.path().join(format!("var/run/ringmaster-{}.pid", program.pid()));
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", program.pid()));
    assert!(!stale.exists());
    assert!(program.terminate().0.success());
    assert!(!path.exists());
}

#[test]
fn two_on_one_home_and_a_remoted_are_refused_by_name() {
    let home = TestHome::new("", "");
    let program = home.start();
    let second = home.command(&[]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1));
    assert!(said.contains(&format!("is in use by another ringmaster (pid {})", program.pid())), "{said}");
    program.signal(Signal::TERM);
    assert!(program.ended().success());

    // A process that is called as the C program is.
    let remoted = home.path().join("ossec-remoted");
    fs::copy("/bin/sleep", &remoted).unwrap();
    let mut sleeping = Command::new(&remoted).arg("60").spawn().unwrap();
    let pid_file = home.path().join(format!("var/run/ossec-remoted-{}.pid", sleeping.id()));
    fs::write(&pid_file, format!("{}\n", sleeping.id())).unwrap();
    let refused = home.command(&[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let expected = format!("ossec-remoted (pid {}) runs on this home: stop it", sleeping.id());
    sleeping.kill().unwrap();
    sleeping.wait().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains(&expected), "{said}");
    // Its file alone keeps nobody out.
    assert!(home.start().terminate().0.success());
}

#[test]
fn the_log_has_ossecs_form_and_survives_a_rotation() {
    let home = TestHome::new("001 web any k\n", "");
    let mut program = home.start();
    let first = home.read("logs/ossec.log");
    let is_one = |line: &str| {
        let (date, rest) = line.split_at(20);
        let date = date.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
        let (from, level) = rest.split_once(": ").unwrap();
        let level = level.split(": ").next().unwrap();
        date.eq(*b"0000/00/00 00:00:00 ")
            && (from == "ringmaster" || from.starts_with("ringmaster("))
            && ["INFO", "WARN", "ERROR"].contains(&level)
    };
    assert!(first.lines().all(is_one), "{first}");
    let pid = program.pid();
    assert!(first.contains(&format!(" ringmaster: INFO: Started (pid: {pid}).\n")), "{first}");

    fs::rename(home.path().join("logs/ossec.log"), home.path().join("logs/ossec.log.1")).unwrap();
    fs::write(home.path().join("etc/client.keys"), "001 web any k\n002 db any k\n").unwrap();
    program.wait_for_line("1409: client.keys changed: 2 agents");
    let (ended, _) = program.terminate();
    assert!(ended.success());
    let second = home.read("logs/ossec.log");
    assert!(second.contains(" ringmaster(1409): INFO: client.keys changed: 2 agents\n"), "{second}");
    assert_eq!(home.read("logs/ossec.log.1"), first);
}

#[test]
fn lines_on_standard_error_are_json_or_the_journals_if_asked_for() {
    let last_line = |format: &str| {
        let home = TestHome::new("", &format!("[log]\nfile = false\nformat = \"{format}\"\n"));
        let program: Program = home.start();
        let line = program.terminate().1;
        assert!(!Path::new(&home.path().join("logs/ossec.log")).exists(), "log.file = false");
        line
    };
    let line: serde_json::Value = serde_json::from_str(&last_line("json")).unwrap();
    assert_eq!(line["level"], "INFO");
    assert!(line["message"].as_str().unwrap().starts_with("stopped: received 0 "), "{line}");
    assert!(last_line("journal").starts_with("<6>stopped: received 0 "));
}

#[test]
fn what_is_wrong_with_client_keys_is_said_once_however_often_the_file_is_written() {
    let home = TestHome::new("001 web any k\n002 bad 300.1.2.3 k\n", "");
    let mut program = home.start();
    for agents in 2..5 {
        let more: String = (3..agents + 2).map(|id| format!("{id:03} a{id} any k\n")).collect();
        let keys = format!("001 web any k\n002 bad 300.1.2.3 k\n{more}");
        fs::write(home.path().join("etc/client.keys"), keys).unwrap();
        program.wait_for_line(&format!("1409: client.keys changed: {agents} agents"));
    }
    assert!(program.terminate().0.success());
    let log = home.read("logs/ossec.log");
    assert_eq!(log.matches("client.keys:2: ").count(), 1, "{log}");
}
