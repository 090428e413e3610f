//! The program `loadgen outage`, whole: a short outage on every path.

use std::process::Command;

use serde_json::Value;

#[test]
fn an_outage_is_played_on_every_path_and_every_event_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("outage.json"), folder.path().join("outage.html"));
    let words = "outage --agents 2 --scale 300 --cuts network,manager-killed --outage 2m --before 20s --after 40s --notify-time 10s --time-reconnect 30s";
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(words.split(' '))
        .args([std::ffi::OsStr::new("--json"), json.as_os_str(), "--html".as_ref(), html.as_os_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let scenes = found["scenes"].as_array().unwrap();
    assert_eq!(scenes.len(), 4, "two cuts over two paths");
    for scene in scenes {
        let number = |key: &str| scene[key].as_u64().unwrap();
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
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(table.matches("agent over").count(), 4, "{table}");
    assert_eq!(std::fs::read_to_string(html).unwrap().matches("<svg").count(), 4);
}
