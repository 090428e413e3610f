//! `loadgen compare` itself, small and short, with the embedded manager.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_small_comparison_has_every_point_in_table_json_and_page() {
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("compare.json"), folder.path().join("compare.html"));
    let words = "compare --agents 20 --segments 1,4 --turns 1 --duration 100ms --rate 1000 --rate-max 2000 --budget 1m";
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(words.split_whitespace())
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let found: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let points = found["points"].as_array().unwrap();
    let name = |point: &Value| {
        format!("{}, {} a segment: ", point["protocol"].as_str().unwrap(), point["events_per_segment"])
    };
    let names: Vec<String> = points.iter().map(name).collect();
    let expected = ["tcp, 1", "udp, 1", "tcp, 4", "udp, 4"].map(|name| format!("{name} a segment: "));
    assert_eq!(names, expected);
    let (table, page) = (String::from_utf8_lossy(&output.stdout), std::fs::read_to_string(&html).unwrap());
    for point in points {
        assert!(point["cpu_ns_per_event"]["median"].as_f64().unwrap() > 0.0, "{point}");
        let first = &point["trials"][0];
        assert_eq!(
            (&first["due"], &first["lost"], &first["harmed"]),
            (&100.into(), &0.into(), &0.into()),
            "{point}"
        );
        assert!(point["highest"].is_object(), "{point}");
        assert!(page.contains(&name(point)), "{point} is not in the page");
    }
    assert!(!page.contains("http"), "the page needs nothing else");
    assert!(table.contains("TCP takes less of the manager's CPU than UDP: "), "{table}");
    assert_eq!(found["left_out"].as_array().unwrap().len(), 0, "{found}");
}

#[test]
fn what_there_was_no_time_for_is_said_and_is_status_1() {
    let words = "compare --agents 20 --segments 1 --turns 9 --duration 100ms --rate 1000 --rate-max 1000 --budget 500ms";
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).args(words.split_whitespace()).output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    let line = table.lines().find(|line| line.starts_with("not measured: CPU: no time: "));
    assert!(line.is_some_and(|line| line.contains("udp, 1 a segment (")), "{table}");
}
