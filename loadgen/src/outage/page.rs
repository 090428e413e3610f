//! What was found as one self-contained page: the table, and a timeline of each scene, so that one sees the hole.

use std::fmt::Write as _;

use crate::compare::plot::{escape, table_row};
use crate::outage::table::{HEADINGS, STORM_HEADINGS, cells, storm_cells};
use crate::outage::{Outages, Scene};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 24.0;

const STYLE: &str = "
:root { --ink: #1b1f24; --faint: #d0d7de; --ground: #fff; --good: #1a7f37; --late: #9a6700; --lost: #cf222e; --away: #eaeef2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #30363d; --ground: #0d1117; --good: #3fb950; --late: #d29922; --lost: #f85149; --away: #21262d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { border-bottom: 1px solid var(--faint); padding: .2rem .8rem .2rem 0; text-align: right; font-variant-numeric: tabular-nums; }
td:nth-child(-n+2), th:nth-child(-n+2) { text-align: left; } .storms td:nth-child(2) { text-align: right; }
svg { width: 100%; height: auto; } text { font: 11px system-ui, sans-serif; fill: var(--ink); }
.away { fill: var(--away); } .axis { stroke: var(--faint); }
.good { stroke: var(--good); } .late { stroke: var(--late); } .lost { stroke: var(--lost); }
.key span { margin-right: 1.5rem; } .key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .3rem; }
";

const KEY: &str = "<h2>The first agent's events</h2>
<p>Each stroke is an event, where it was written; it reaches as high as it came late. A red one never came. Shaded: the outage.</p>
<p class=\"key\"><span><i style=\"background:var(--good)\"></i>arrived</span>
<span><i style=\"background:var(--late)\"></i>arrived late</span>
<span><i style=\"background:var(--lost)\"></i>lost</span></p>
";

impl Outages {
    /// The page.
    pub fn to_html(&self) -> String {
        let setting: String =
            self.setting().iter().map(|line| format!("<li>{}</li>\n", escape(line))).collect();
        let mut body = String::new();
        if !self.scenes.is_empty() {
            let rows: String = self.scenes.iter().map(|scene| table_row("td", &cells(scene))).collect();
            let timelines: String = self.scenes.iter().map(timeline).collect();
            let head = table_row("th", &HEADINGS.map(String::from));
            body += &format!("<table>\n{head}{rows}</table>\n{KEY}{timelines}");
        }
        for why in &self.failed {
            body += &format!("<p>not played: {}</p>\n", escape(why));
        }
        if !self.storms.is_empty() {
            let rows: String = self.storms.iter().map(|storm| table_row("td", &storm_cells(storm))).collect();
            let head = table_row("th", &STORM_HEADINGS.map(String::from));
            body += &format!("<table class=\"storms\">\n{head}{rows}</table>\n");
            for line in self.broken_promises() {
                body += &format!("<p>{}</p>\n", escape(&line));
            }
        }
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>What an outage costs</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n<h1>What an outage costs</h1>\n<ul>\n{setting}</ul>\n\
             {body}</body>\n</html>\n"
        )
    }
}

/// The events of a scene's first agent over time.
fn timeline(scene: &Scene) -> String {
    let events = &scene.became.timeline;
    let end = events.iter().map(|(made, _)| *made).fold(scene.outage[1], f64::max);
    let latest = events
        .iter()
        .filter_map(|(made, arrived)| arrived.map(|arrived| arrived - made))
        .fold(10.0, f64::max);
    let x = |time: f64| LEFT + time / end * (WIDTH - LEFT - 28.0);
    let floor = HEIGHT - BOTTOM;
    let height = |late: f64| 6.0 + late / latest * (floor - 18.0);
    let [from, to] = scene.outage;
    let mut svg = format!(
        "<h3>{}, {}</h3>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
         <rect class=\"away\" x=\"{:.1}\" y=\"0\" width=\"{:.1}\" height=\"{floor}\"/>\n\
         <line class=\"axis\" x1=\"{LEFT}\" y1=\"{floor}\" x2=\"{WIDTH}\" y2=\"{floor}\"/>\n",
        scene.path.words(),
        scene.cut.words(),
        x(from),
        x(to) - x(from)
    );
    for (made, arrived) in events {
        let (class, late) = match arrived {
            Some(arrived) if arrived - made > 10.0 => ("late", arrived - made),
            Some(_) => ("good", 0.0),
            None => ("lost", latest),
        };
        let top = floor - height(late);
        writeln!(svg, "<path class=\"{class}\" d=\"M{:.1} {floor}V{top:.1}\"/>", x(*made))
            .expect("a String takes all");
    }
    for step in 0..=6 {
        let time = end * f64::from(step) / 6.0;
        let label = format!("{time:.0} s");
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            x(time),
            HEIGHT - 6.0
        )
        .expect("a String takes all");
    }
    writeln!(svg, "<text x=\"0\" y=\"14\">{latest:.0} s late</text>\n</svg>").expect("a String takes all");
    svg
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::outage::account::Account;
    use crate::outage::{Cut, Outages, Path, Scene, Times};

    #[test]
    fn page_and_table_show_every_scene_and_event() {
        let mut account = Account::new(1);
        for second in 0..40 {
            let made = Duration::from_secs(second);
            let sequence = account.make(0, made);
            match second {
                0..10 => account.arrive(0, sequence, made),
                10..20 => {}
                _ => account.arrive(0, sequence, Duration::from_secs(45)),
            }
        }
        let became = account.became(Duration::from_secs(9));
        let scene = Scene { path: Path::Udp, cut: Cut::Network, outage: [9.0, 30.0], became };
        let times =
            Times { before: 9.0, outage: 21.0, after: 10.0, notify_time: 80.0, time_reconnect: 240.0 };
        let outages = Outages {
            command: "loadgen outage <x>".into(),
            date: "2026-11-22".into(),
            times,
            programs: None,
            scale: 60.0,
            agents: 1,
            rate: 1.0,
            seed: 3,
            left_out: vec!["broker-relay".into()],
            failed: vec!["tcp: no port".into()],
            storms: Vec::new(),
            scenes: vec![scene.clone(), Scene { cut: Cut::ManagerKilled, ..scene }],
            is_cut_short: true,
        };
        let page = outages.to_html();
        assert_eq!(page.matches("<svg").count(), 2);
        for (class, count) in [("good", 30), ("late", 30), ("lost", 20)] {
            assert_eq!(page.matches(&format!("<path class=\"{class}\"")).count(), count, "{class}");
        }
        assert!(page.contains("loadgen outage &lt;x&gt;") && !page.contains("http"));
        let table = outages.to_string();
        for expected in [
            "network cut",
            "manager killed",
            "1 to 10",
            "60 times as fast",
            "interrupted",
            "time-reconnect 240 s",
            "left out: broker-relay",
            "not played: tcp: no port",
        ] {
            assert!(table.contains(expected), "no {expected} in\n{table}");
        }
    }
}
