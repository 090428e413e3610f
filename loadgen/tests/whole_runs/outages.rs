//! The program `loadgen outage`, whole: short outages on every kind of path.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Plays it; says what it found, its table, and how many timelines its page has.
fn played(words: &str) -> (Value, String, usize) {
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("outage.json"), folder.path().join("outage.html"));
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .arg("outage")
        .args(words.split(' '))
        .args([OsStr::new("--json"), json.as_os_str(), "--html".as_ref(), html.as_os_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let timelines = std::fs::read_to_string(html).unwrap().matches("<svg").count();
    (found, String::from_utf8(output.stdout).unwrap(), timelines)
}

/// The two programs beside loadgen: there in a test of the whole workspace, else built now.
fn with_programs() {
    let folder = Path::new(env!("CARGO_BIN_EXE_loadgen")).parent().unwrap();
    if !["ringmaster-broker", "ringmaster-agent"].iter().all(|program| folder.join(program).exists()) {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "-p", "ringmaster-broker", "-p", "ringmaster-agent", "--target-dir"]);
        cargo.arg(folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the programs beside loadgen can't be built");
    }
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or_else(|| panic!("no {key} in {of}"))
}

#[test]
fn an_outage_is_played_on_every_path_and_every_event_is_accounted_for() {
    let words = "--paths udp,tcp --agents 2 --scale 60 --cuts network,manager-killed --outage 2m --before 20s --after 40s \
                 --notify-time 10s --time-reconnect 30s";
    let (found, table, timelines) = played(words);
    let scenes = found["scenes"].as_array().unwrap();
    assert_eq!(scenes.len(), 4, "two cuts over two paths");
    for scene in scenes {
        let number = |key: &str| number(scene, key);
        let name = format!("{} {}", scene["path"], scene["cut"]);
        assert!(number("made") > 200 && number("delivered") > 0, "{name}");
        assert_eq!(number("made"), number("delivered") + number("lost"), "{name}");
        assert_eq!((number("repeated"), number("strangers")), (0, 0), "{name}");
        // What an agent says into the void before it takes its manager for gone can't arrive over UDP.
        if scene["path"] == "udp" && scene["cut"] == "network" {
            let hole = &scene["hole_seconds"];
            assert!(number("lost") > 0 && hole[0].as_f64().unwrap() > -10.0, "{name}: {hole}");
        }
    }
    assert_eq!(table.matches("agent over").count(), 4, "{table}");
    assert_eq!(timelines, 4);
}

#[test]
fn programs_stand_between_and_lose_nothing_in_an_outage_that_they_are_made_for() {
    with_programs();
    let words = "--paths broker-relay,agent-plain --cuts network-reset,broker-server-killed --agents 2 --scale 60 --outage 60s \
                 --before 20s --after 40s --notify-time 60s --time-reconnect 240s";
    let (found, table, timelines) = played(words);
    let scenes = found["scenes"].as_array().unwrap();
    assert_eq!(scenes.len(), 3, "only the broker has a server");
    for scene in scenes {
        let name = format!("{} {}", scene["path"], scene["cut"]);
        assert!(number(scene, "made") > 200, "{name}: {scene}");
        assert_eq!((number(scene, "lost"), number(scene, "strangers")), (0, 0), "{name}: {table}");
    }
    assert!(table.contains("notify_time 1 s") && timelines == 3, "{table}");
}

#[test]
fn a_relay_keeps_its_promise_over_outages_that_a_seed_draws() {
    with_programs();
    let words = "--paths broker-relay --cuts network,network-reset,broker-client-killed,broker-server-killed --repeat 3 --seed 5 \
                 --outage 60s --after 20s --agents 2";
    let (found, table, _) = played(words);
    let storm = &found["storms"][0];
    assert_eq!(
        (number(storm, "lost"), number(storm, "repeated"), number(storm, "out_of_order")),
        (0, 0, 0),
        "{table}"
    );
    assert!(
        number(storm, "repetitions") == 3 && number(storm, "kills") > 0 && number(storm, "made") > 500,
        "{table}"
    );
}
