//! A plan as one page: no script, nothing from elsewhere, readable on a light and on a dark screen.

use std::fmt::Write;

use super::demand::Protocol;
use super::model::{Line, Plan};
use super::table::table;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Room for the axes' numbers and names.
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 20.0;
const RIGHT: f64 = 120.0;
/// Lines of the grid on each axis.
const STEPS: u32 = 5;

const STYLE: &str = "\
:root { color-scheme: light dark; --udp: #b45309; --tcp: #1d4ed8; }
@media (prefers-color-scheme: dark) { :root { --udp: #fbbf24; --tcp: #93c5fd; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { white-space: pre-wrap; font-size: 13px; line-height: 1.35; }
svg { width: 100%; height: auto; } svg text { fill: currentColor; font-size: 12px; }
.grid { stroke: currentColor; stroke-opacity: 0.2; } .axis { stroke: currentColor; }
.udp { stroke: var(--udp); } .tcp { stroke: var(--tcp); } .udp, .tcp { fill: none; stroke-width: 2; }
";

/// The page of a plan: cores against the rate, CPU of an event against the events a segment, and the table.
pub fn html(plan: &Plan) -> String {
    let demand = &plan.demand;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Capacity of Ringmaster</title>\n\
         <style>\n{STYLE}</style></head><body>\n<h1>Capacity of Ringmaster</h1>\n\
         <p>{} agents with {} events/s each, {} bytes of text, {}, into the {}; {:.0} % of each core left free.</p>\n",
        demand.agents,
        demand.events_a_second_each,
        demand.text_bytes,
        demand.cipher.name(),
        demand.sink.name(),
        demand.margin * 100.0,
    );
    page.push_str("<h2>Cores against the rate</h2>\n");
    page.push_str(&cores_chart(plan));
    page.push_str("<h2>CPU of an event against the events a segment</h2>\n");
    page.push_str(&cpu_chart(plan));
    let _ = writeln!(page, "<h2>The plan</h2>\n<pre>{}</pre>\n</body></html>", escaped(&table(plan)));
    page
}

/// How many cores each rate takes, up to twice the rate that was asked for.
fn cores_chart(plan: &Plan) -> String {
    let rate_max = ceiling(2.0 * plan.events_a_second);
    let free = 1.0 - plan.demand.margin;
    let cores_at = |line: &Line, rate: f64| rate * line.cpu.total.ns / 1e9 / free;
    let cores_max = plan.lines.iter().map(|line| cores_at(line, rate_max)).fold(0.0, f64::max);
    let axes = Axes {
        x_name: "events/s",
        y_name: "cores, with the margin",
        x_max: rate_max,
        y_max: ceiling(cores_max),
        x_marks: (0..=STEPS).map(|step| rate_max * f64::from(step) / f64::from(STEPS)).collect(),
        x_place: |value| value,
    };
    let mut ends: Vec<f64> = Vec::new();
    axes.draw(|chart| {
        for line in &plan.lines {
            let end = cores_at(line, rate_max);
            chart.line(line.protocol, &[(0.0, 0.0), (rate_max, end)], line.events_a_segment);
            let (x, y) = chart.place(rate_max, end);
            // Names that would lie on one another move down.
            let y = ends.iter().fold(y, |y, taken| if (y - taken).abs() < 12.0 { taken + 12.0 } else { y });
            ends.push(y);
            chart.text(x + 6.0, y + 4.0, "start", &label(line));
        }
        let (x, bottom) = chart.place(plan.events_a_second, 0.0);
        let _ = writeln!(
            chart.out,
            "<path class=\"axis\" stroke-dasharray=\"4 4\" d=\"M{x:.1} {bottom:.1}V{TOP}\"/>"
        );
        chart.text(x + 4.0, TOP + 12.0, "start", "the fleet");
    })
}

/// CPU of an event, with its interval, for each protocol.
fn cpu_chart(plan: &Plan) -> String {
    let most = plan.lines.iter().map(|line| line.cpu.total.high_ns / 1e3).fold(0.0, f64::max);
    let segments: Vec<f64> = plan.lines.iter().map(|line| line.events_a_segment as f64).collect();
    let last = segments.iter().copied().fold(1.0, f64::max);
    let axes = Axes {
        x_name: "events a segment",
        y_name: "CPU of an event, in microseconds",
        x_max: last,
        y_max: ceiling(most),
        x_marks: segments[..segments.len() / 2].to_vec(),
        x_place: f64::ln,
    };
    axes.draw(|chart| {
        for protocol in Protocol::ALL {
            let lines: Vec<&Line> = plan.lines.iter().filter(|line| line.protocol == protocol).collect();
            let point = |line: &&Line| (line.events_a_segment as f64, line.cpu.total.ns / 1e3);
            let points: Vec<_> = lines.iter().map(point).collect();
            chart.line(protocol, &points, 1);
            for line in &lines {
                let x = line.events_a_segment as f64;
                let (place, high) = chart.place(x, line.cpu.total.high_ns / 1e3);
                let (_, low) = chart.place(x, line.cpu.total.low_ns / 1e3);
                let (_, middle) = chart.place(x, line.cpu.total.ns / 1e3);
                let class = protocol.name();
                let _ = writeln!(
                    chart.out,
                    "<path class=\"{class}\" d=\"M{place:.1} {low:.1}V{high:.1}\"/>\
                     <circle class=\"{class}\" cx=\"{place:.1}\" cy=\"{middle:.1}\" r=\"3\"/>"
                );
            }
            let (x, y) = points.last().map_or((0.0, 0.0), |(x, y)| chart.place(*x, *y));
            chart.text(x + 8.0, y + 4.0, "start", protocol.name());
        }
    })
}

fn label(line: &Line) -> String {
    format!("{} {}/segment", line.protocol.name(), line.events_a_segment)
}

/// The axes of a chart.
struct Axes {
    x_name: &'static str,
    y_name: &'static str,
    x_max: f64,
    y_max: f64,
    x_marks: Vec<f64>,
    /// Where a value lies on the x axis, in units of its own: linear or logarithmic.
    x_place: fn(f64) -> f64,
}

/// A chart on its way into the page.
struct Chart<'a> {
    axes: &'a Axes,
    out: String,
}

impl Axes {
    fn draw(&self, content: impl FnOnce(&mut Chart<'_>)) -> String {
        let mut chart = Chart { axes: self, out: String::new() };
        let _ = writeln!(chart.out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for step in 0..=STEPS {
            let value = self.y_max * f64::from(step) / f64::from(STEPS);
            let y = bottom - (bottom - TOP) * f64::from(step) / f64::from(STEPS);
            let _ = writeln!(chart.out, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>");
            chart.text(LEFT - 6.0, y + 4.0, "end", &number(value));
        }
        for mark in &self.x_marks {
            let (x, _) = chart.place(*mark, 0.0);
            let _ = writeln!(chart.out, "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>");
            chart.text(x, bottom + 18.0, "middle", &number(*mark));
        }
        let _ =
            writeln!(chart.out, "<path class=\"axis\" fill=\"none\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>");
        chart.text((LEFT + right) / 2.0, HEIGHT - 10.0, "middle", self.x_name);
        let middle = (TOP + bottom) / 2.0;
        let _ = writeln!(
            chart.out,
            "<text text-anchor=\"middle\" transform=\"translate(14 {middle}) rotate(-90)\">{}</text>",
            self.y_name
        );
        content(&mut chart);
        chart.out.push_str("</svg>\n");
        chart.out
    }
}

impl Chart<'_> {
    /// Where a point lies in the picture.
    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        let Axes { x_max, y_max, x_place, ref x_marks, .. } = *self.axes;
        let first = x_place(x_marks.first().copied().unwrap_or(0.0));
        let part = (x_place(x) - first) / (x_place(x_max) - first);
        let (width, height) = (WIDTH - RIGHT - LEFT, HEIGHT - BOTTOM - TOP);
        (LEFT + width * part, HEIGHT - BOTTOM - height * y / y_max)
    }

    /// A line through points; dashed the more, the more events a segment.
    fn line(&mut self, protocol: Protocol, points: &[(f64, f64)], segment: u64) {
        let places: Vec<String> =
            points.iter().map(|(x, y)| self.place(*x, *y)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dashes = match segment {
            0 | 1 => "none",
            2..=4 => "12 3",
            5..=16 => "6 4",
            17.. => "2 4",
        };
        let (class, places) = (protocol.name(), places.join(" "));
        let _ = writeln!(
            self.out,
            "<polyline class=\"{class}\" stroke-dasharray=\"{dashes}\" points=\"{places}\"/>"
        );
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escaped(text);
        let _ = writeln!(self.out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    }
}

/// The next round number: 1, 2, 2.5 or 5 times a power of ten.
fn ceiling(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|round| *round >= value).unwrap_or(10.0 * power)
}

fn number(value: f64) -> String {
    if value >= 1e6 {
        format!("{} M", value / 1e6)
    } else if value >= 1e4 {
        format!("{} k", value / 1e3)
    } else {
        format!("{}", (value * 100.0).round() / 100.0)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::{Cipher, Demand, Figure, Figures, SEGMENTS, Sink, needed, plan};
    use super::*;

    fn page() -> String {
        let figure = Figure { ns: 2_000.0, low_ns: 1_900.0, high_ns: 2_100.0 };
        let figures: Figures =
            needed(Cipher::Aes, Sink::Archive).into_iter().map(|name| (name, figure)).collect();
        let demand = Demand {
            agents: 50_000,
            events_a_second_each: 5.0,
            text_bytes: 200,
            message_bytes: 260,
            cipher: Cipher::Aes,
            protocol: Protocol::Tcp,
            sink: Sink::Archive,
            margin: 0.5,
            cores: 8,
        };
        html(&plan(&figures, &demand).unwrap())
    }

    #[test]
    fn the_page_has_every_curve_and_refers_to_nothing_elsewhere() {
        let page = page();
        for protocol in Protocol::ALL {
            for segment in SEGMENTS {
                let label = format!("{} {segment}/segment", protocol.name());
                assert!(page.contains(&label), "no curve {label}");
            }
            // Its curves against the rate, and one against the events a segment.
            let lines = page.matches(&format!("<polyline class=\"{}\"", protocol.name())).count();
            assert_eq!(lines, SEGMENTS.len() + 1);
        }
        for foreign in ["http:", "https:", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(foreign), "the page has {foreign}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf "), "every place is a number");
        assert!(page.contains("prefers-color-scheme: dark"));
        assert!(page.contains("daemon/hand-over/archive/200"), "what it was computed from");
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, expected) in
            [(0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (2.2, 2.5), (260_000.0, 500_000.0), (7.0, 10.0)]
        {
            assert!((ceiling(value) - expected).abs() < 1e-9 * expected, "{value}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([number(2_500_000.0), number(50_000.0), number(0.5)], ["2.5 M", "50 k", "0.5"]);
    }
}
