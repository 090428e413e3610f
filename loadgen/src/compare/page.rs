//! The comparison as one HTML page that needs nothing else: curves as inline SVG, and the table. Pure.

use crate::compare::comparison::{Comparison, LatencyAtHalf, Point};
use crate::compare::crossing::Spread;
use crate::compare::plot::{Dot, Plot, Scale, Series, escape, table_row};
use crate::compare::search::Limit;
use crate::compare::table::{HEADINGS, cells, setting_lines};

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #fff; --ink: #1c2128; --faint: #d8dde3; --tcp: #0b62c4; --udp: #c2410c; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14181d; --ink: #e3e7ec; --faint: #3a424c; --tcp: #6cb2ff; --udp: #ff9a5c; }
}
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--faint); stroke-width: 1; }
.line { fill: none; stroke-width: 2; } .line.p99 { stroke-dasharray: 6 4; }
.line.tcp { stroke: var(--tcp); } .line.udp { stroke: var(--udp); }
.dot { stroke-width: 2; } .dot.tcp { fill: var(--tcp); stroke: var(--tcp); } .dot.udp { fill: var(--udp); stroke: var(--udp); }
.dot.bound { fill: var(--ground); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; white-space: nowrap; }
th, td { border-bottom: 1px solid var(--faint); padding: .2rem .8rem .2rem 0; text-align: right; font-variant-numeric: tabular-nums; }
th { white-space: normal; vertical-align: bottom; } td:last-child, th:last-child { text-align: left; white-space: normal; min-width: 9rem; }
code { overflow-wrap: anywhere; }
";

impl Comparison {
    /// The page.
    pub fn to_html(&self) -> String {
        let plots = [
            ("The manager's CPU an event", self.cpu_words(), self.cpu_plot()),
            ("The highest rate without loss", RATE_WORDS.into(), self.rate_plot()),
            ("Latency at half of that rate", LATENCY_WORDS.into(), self.latency_plot()),
        ];
        let plots: String = plots
            .iter()
            .map(|(title, words, plot)| format!("<h2>{title}</h2>\n<p>{words}</p>\n{}", plot.to_svg()))
            .collect();
        let setting = setting_lines(&self.setting);
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>The cost of TCP against UDP</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n<h1>The cost of TCP against UDP</h1>\n\
             <p>TCP takes less of the manager's CPU than UDP: <strong>{}</strong></p>\n\
             <h2>What was run</h2>\n<p><code>{}</code></p>\n{}{plots}\
             <h2>All points</h2>\n<div class=\"scroll\"><table>\n{}</table></div>\n{}{}</body>\n</html>\n",
            escape(&self.crossing_words),
            escape(&setting[0]),
            list(&setting[1..]),
            self.rows(),
            section("What limited", &self.limits()),
            section("What was not measured, or is doubtful", &[&self.left_out[..], &self.doubts].concat()),
        )
    }

    fn cpu_words(&self) -> String {
        format!(
            "User and system, from /proc, at {:.0} events a second: median, least and greatest of {} turns.",
            self.setting.rate, self.setting.turns
        )
    }

    fn cpu_plot(&self) -> Plot {
        let dots = |point: &Point| point.cpu_ns_per_event.map(|cpu| dot(point, cpu, 1e3, "us"));
        let series = ["tcp", "udp"].map(|protocol| self.series(protocol, protocol, protocol, dots));
        Plot { label: "CPU an event, us", scale: Scale::Linear, series: series.into() }
    }

    fn rate_plot(&self) -> Plot {
        let dots = |point: &Point| {
            let highest = point.highest.as_ref()?;
            let rate = highest.rate?;
            // The truth is between what held and what failed.
            let max = if highest.limit == Limit::Manager { highest.failed.unwrap_or(rate) } else { rate };
            Some(Dot {
                segment: point.events_per_segment,
                value: rate,
                min: rate,
                max,
                words: format!("{}: {}", point.name(), highest.words()),
                is_bound: highest.limit != Limit::Manager,
            })
        };
        let series = ["tcp", "udp"].map(|protocol| self.series(protocol, protocol, protocol, dots));
        Plot { label: "events a second", scale: Scale::Linear, series: series.into() }
    }

    fn latency_plot(&self) -> Plot {
        type Part = fn(&LatencyAtHalf) -> Spread;
        let lines: [(&str, &str, &'static str, Part); 4] = [
            ("tcp", "tcp, p50", "tcp", |latency| latency.p50_ns),
            ("tcp", "tcp, p99", "tcp p99", |latency| latency.p99_ns),
            ("udp", "udp, p50", "udp", |latency| latency.p50_ns),
            ("udp", "udp, p99", "udp p99", |latency| latency.p99_ns),
        ];
        let series = lines.map(|(protocol, name, class, part)| {
            self.series(protocol, name, class, |point| {
                point.latency.as_ref().map(|latency| dot(point, part(latency), 1e3, "us"))
            })
        });
        Plot { label: "latency, us", scale: Scale::Logarithmic, series: series.into() }
    }

    fn series(
        &self,
        protocol: &str,
        name: &str,
        class: &'static str,
        dots: impl Fn(&Point) -> Option<Dot>,
    ) -> Series {
        Series { name: name.into(), class, dots: self.of_protocol(protocol).filter_map(dots).collect() }
    }

    fn rows(&self) -> String {
        let points: String = self.points.iter().map(|point| table_row("td", &cells(point))).collect();
        table_row("th", &HEADINGS.map(String::from)) + &points
    }

    /// What kept each point's rate from being higher.
    fn limits(&self) -> Vec<String> {
        let limit = |point: &Point| {
            let highest = point.highest.as_ref()?;
            let next = match (highest.failed, highest.failed_why.as_str()) {
                (Some(failed), "") => format!("; {failed:.0}/s did not hold"),
                (Some(failed), why) => format!("; at {failed:.0}/s: {why}"),
                (None, _) => String::new(),
            };
            Some(format!("{}: {}{next}", point.name(), highest.words()))
        };
        self.points.iter().filter_map(limit).collect()
    }
}

const RATE_WORDS: &str = "No event lost, and at least 98 % of the offered rate. The line up from a dot ends at the next rate \
that did not hold; a hollow dot is a lower bound: loadgen, the bound of the search or the time was the limit, and not the manager.";
const LATENCY_WORDS: &str = "From an event's intended time to its arrival at loadgen's reader; the generator's own turn of up to \
0.25 ms is in it. Each point at half of its own highest rate.";

fn dot(point: &Point, spread: Spread, divisor: f64, unit: &str) -> Dot {
    let [value, min, max] = [spread.median, spread.min, spread.max].map(|value| value / divisor);
    let words = format!("{}: {value:.2} {unit} ({min:.2} to {max:.2})", point.name());
    Dot { segment: point.events_per_segment, value, min, max, words, is_bound: false }
}

fn section(title: &str, lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!("<h2>{title}</h2>\n{}", list(lines)) }
}

fn list(lines: &[String]) -> String {
    let items: String = lines.iter().map(|line| format!("<li>{}</li>\n", escape(line))).collect();
    format!("<ul>\n{items}</ul>\n")
}

#[cfg(test)]
mod tests {
    use crate::compare::comparison::tests::comparison;

    #[test]
    fn the_page_has_every_point_and_refers_to_nothing_outside() {
        let comparison = comparison();
        let page = comparison.to_html();
        for point in &comparison.points {
            let name = point.name();
            // CPU, rate, and both latencies.
            assert_eq!(page.matches(&format!("<title>{name}: ")).count(), 4, "{name}");
            assert!(page.contains(&format!("<li>{name}: ")), "what limited {name}");
        }
        assert_eq!(page.matches("<svg").count(), 3);
        assert_eq!(page.matches("<tr>").count(), 1 + comparison.points.len());
        for outside in ["http", "src=", "href=", "url(", "@import", "<script", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
        for expected in [
            "prefers-color-scheme: dark",
            "--agents 3 &amp; more &lt;b&gt;",
            "a processor, 2 cores",
            "2026-11-22 04:00 UTC",
            "at about 2.8 events a segment",
            "udp, 64 a segment: no time",
            "a doubt",
            "at 220000/s: lost 9 of 100000 events",
            "CPU an event, us",
        ] {
            assert!(page.contains(expected), "no {expected}");
        }
    }
}
