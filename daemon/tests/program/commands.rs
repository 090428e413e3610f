//! What an operator types.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, process::Output};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::program::TestHome;

fn text(output: &Output) -> (Option<i32>, String, String) {
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn version() {
    let (code, said, _) = text(&TestHome::new("", "").command(&["--version"]));
    assert_eq!((code, said), (Some(0), format!("ringmaster {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn check_prints_what_is_in_effect_or_what_is_wrong() {
    let home = TestHome::new("", "[stop]\ngrace_seconds = 3\n");
    let (code, said, _) = text(&home.command(&["check", "--cores", "0"]));
    assert_eq!(code, Some(0));
    let settings = home.path().canonicalize().unwrap().join("etc/ringmaster.toml");
    assert!(said.contains(&format!("\nstop.grace_seconds = 3  # {}:6\n", settings.display())), "{said}");
    assert!(said.contains("\nshards.cores = [0]  # command line\n"), "{said}");
    assert!(said.contains("\nagents.replay = \"strict\"  # default\n"), "{said}");

    fs::write(&settings, "[stop]\ngrace = 3\n").unwrap();
    let (code, said, complaint) = text(&home.command(&["check"]));
    assert_eq!((code, said.as_str()), (Some(1), ""));
    let expected =
        format!("ringmaster: {}:2:1: unknown field `grace`, expected `grace_seconds`\n", settings.display());
    assert_eq!(complaint, expected);
}

#[test]
fn check_names_lines_of_client_keys_that_are_wrong() {
    let home = TestHome::new("001 web any k\nbad\n", "");
    let (code, _, complaint) = text(&home.command(&["check"]));
    assert_eq!(code, Some(1));
    assert!(complaint.contains("etc/client.keys:2: skipped"), "{complaint}");
}

#[test]
fn tune_check_needs_neither_root_nor_a_home_and_its_status_says_what_it_found() {
    let nobody = tempfile::tempdir().unwrap();
    let home = TestHome::new("001 web any k\n002 db any k\n", "");
    for home in [home.path().to_owned(), nobody.path().join("none")] {
        let run = |arguments: &[&str]| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringmaster"));
            text(&command.arg("--home").arg(&home).args(["tune", "check"]).args(arguments).output().unwrap())
        };
        let (code, said, _) = run(&["--json"]);
        let findings: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
        let found = |states: &[&str]| {
            findings.iter().any(|finding| states.contains(&finding["state"].as_str().unwrap()))
        };
        let expected = match (found(&["low", "high", "wrong"]), found(&["not readable"])) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 0,
        };
        assert_eq!(code, Some(expected), "{said}");
        let somaxconn = findings.iter().find(|finding| finding["name"] == "net.core.somaxconn").unwrap();
        // Two agents need no more than the least; nobody knows of how many a home that is not there is.
        let backlog = if home.ends_with("none") { 4_096 } else { 128 };
        assert_eq!(somaxconn["want"]["at_least"], backlog, "{said}");

        let (code, said, _) = run(&[]);
        assert_eq!(code, Some(expected));
        let names = findings.iter().map(|finding| finding["name"].as_str().unwrap());
        let lines = said.lines().skip(1).zip(names);
        lines.for_each(|(line, name)| assert!(line.starts_with(name), "{line:?} is not of {name}"));
        assert_eq!(said.lines().count(), findings.len() + 2, "a heading and a verdict:\n{said}");

        let (code, _, complaint) = run(&["--rate", "much"]);
        assert_eq!(code, Some(2), "{complaint}");
    }
    fs::write(home.path().join("etc/ringmaster.toml"), "[listen]\nbacklog = -1\n").unwrap();
    let (code, said, complaint) = text(&home.command(&["tune", "check"]));
    assert_eq!((code, said.as_str()), (Some(2), ""), "{complaint}");
}

#[test]
fn keys_are_added_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("new");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringmaster"));
        text(&command.arg("--home").arg(&home).args(arguments).output().unwrap())
    };
    let (code, line, _) = run(&["keys", "add", "web"]);
    assert_eq!(code, Some(0));
    let fields: Vec<&str> = line.trim_end().split(' ').collect();
    assert_eq!(&fields[..3], ["001", "web", "any"]);
    assert_eq!(fields[3].len(), 64);
    assert_eq!(fs::read_to_string(home.join("etc/client.keys")).unwrap(), line);
    let mode = fs::metadata(home.join("etc/client.keys")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "nobody else reads keys: {mode:o}");

    let (code, said, complaint) = run(&["keys", "add", "web"]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert_eq!(complaint, "ringmaster: the name web is taken by agent 001: choose another\n");
    assert_eq!(run(&["keys", "add", "mail", "--id", "17", "--ip", "10.0.0.0/8"]).0, Some(0));
    assert_eq!(
        run(&["keys", "list"]),
        (Some(0), "001 web any\n17 mail 10.0.0.0/8\n".to_owned(), String::new())
    );
}

#[test]
fn keys_are_exported_imported_extracted_and_removed() {
    let home = TestHome::new("001 web any secret\n002 db 10.0.0.1 k\n", "");
    let said = |arguments: &[&str]| {
        let (code, said, complaint) = text(&home.command(arguments));
        assert_eq!((code, complaint.as_str()), (Some(0), ""), "{arguments:?}");
        said
    };
    assert_eq!(
        said(&["keys", "extract", "1"]),
        "\nAgent key information for '001' is: \nMDAxIHdlYiBhbnkgc2VjcmV0\n"
    );
    let exported = said(&["keys", "export"]);
    assert_eq!(exported, "MDAxIHdlYiBhbnkgc2VjcmV0\nMDAyIGRiIDEwLjAuMC4xIGs=\n");
    assert_eq!(said(&["keys", "remove", "001"]), "Agent '001' removed.\n");
    assert_eq!(home.read("etc/client.keys"), "001 #*#*#*#*#*#*#*\n002 db 10.0.0.1 k\n");
    assert_eq!(said(&["keys", "list"]), "002 db 10.0.0.1\n");
    let (code, _, complaint) = text(&home.command(&["keys", "import", exported.lines().next().unwrap()]));
    assert_eq!((code, complaint.contains("the id 001 is taken")), (Some(1), true), "{complaint}");

    let other = TestHome::new("002 db 10.0.0.1 k\n", "");
    let (code, said, _) = text(&other.command_with_input(&["keys", "import"], &exported));
    assert_eq!((code, said.as_str()), (Some(0), "001 web any\n"));
    assert_eq!(other.read("etc/client.keys"), "002 db 10.0.0.1 k\n001 web any secret\n");
    let (code, _, complaint) = text(&home.command(&["keys", "extract", "9"]));
    assert_eq!(code, Some(1));
    assert!(complaint.contains("no agent has the id \"9\""), "{complaint}");
}

#[test]
fn a_home_and_a_port_are_taken_once() {
    let home = TestHome::new("", "");
    let program = home.start();
    let (code, _, complaint) = text(&home.command(&[]));
    assert_eq!(code, Some(1));
    assert!(complaint.contains(&format!("another ringmaster (pid {})", program.pid())), "{complaint}");

    let other = TestHome::new("", "");
    let (code, _, complaint) = text(&other.command(&["--listen", &program.address.to_string()]));
    assert_eq!(code, Some(1));
    let expected = format!("can't listen on {} (UDP): another program has it", program.address);
    assert!(complaint.contains(&expected), "{complaint}");

    let taken =
        format!("[listen]\naddresses = [\"127.0.0.1:0\"]\n[metrics]\naddress = \"{}\"\n", program.metrics);
    fs::write(other.path().join("etc/ringmaster.toml"), taken).unwrap();
    let (code, _, complaint) = text(&other.command(&[]));
    assert_eq!(code, Some(1));
    assert!(
        complaint.contains(&format!("can't serve metrics on {}: address in use", program.metrics)),
        "{complaint}"
    );
}

#[test]
fn a_host_that_forbids_io_uring_is_told_the_cure_in_one_line() {
    let home = TestHome::new("", "");
    // A filter is of the thread that applies it and of what that starts, and ends with them: as in a container.
    let refused = std::thread::spawn(move || {
        let rules = BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]);
        let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let architecture = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        text(&home.command(&[]))
    });
    let (code, said, complaint) = refused.join().unwrap();
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert!(complaint.contains("io_uring") && complaint.contains("seccomp"), "{complaint}");
}
