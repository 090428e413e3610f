//! One plot as inline SVG: a few series over the events in one segment, each dot with its spread. Pure.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 40.0;
/// Width of one entry of the legend, above the plot.
const LEGEND: f64 = 120.0;
const BOTTOM: f64 = 52.0;
/// About so many lines across the plot.
const TICKS: f64 = 6.0;

/// A plot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plot {
    /// What the vertical axis shows, with its unit.
    pub(crate) label: &'static str,
    /// How it is divided.
    pub(crate) scale: Scale,
    /// What is drawn.
    pub(crate) series: Vec<Series>,
}

/// Division of the vertical axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From 0.
    Linear,
    /// By powers of ten.
    Logarithmic,
}

/// A line with its dots.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    /// In the legend.
    pub(crate) name: String,
    /// Classes of the page's style: the colour, and perhaps a dash.
    pub(crate) class: &'static str,
    /// From left to right.
    pub(crate) dots: Vec<Dot>,
}

/// One measured point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dot {
    /// Events in one segment.
    pub(crate) segment: u32,
    /// Median, least and greatest, in the unit of the axis.
    pub(crate) value: f64,
    /// See `value`.
    pub(crate) min: f64,
    /// See `value`.
    pub(crate) max: f64,
    /// What it says in words.
    pub(crate) words: String,
    /// Whether it is a bound only: the true value may be higher.
    pub(crate) is_bound: bool,
}

impl Plot {
    /// The plot as an `svg` element; words if there is nothing to draw.
    pub(crate) fn to_svg(&self) -> String {
        let dots = || self.series.iter().flat_map(|series| &series.dots);
        let Some(axes) = Axes::around(dots(), self.scale) else {
            return "<p>Nothing was measured.</p>\n".into();
        };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(self.label)
        );
        axes.draw(self.label, dots(), &mut svg);
        for (place, series) in self.series.iter().enumerate() {
            draw_series(&axes, series, &mut svg);
            draw_legend(place, series, &mut svg);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Text as HTML has it.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A row of an HTML table; `cell` is `td` or `th`.
pub(crate) fn table_row(cell: &str, cells: &[String]) -> String {
    let cells: String = cells.iter().map(|text| format!("<{cell}>{}</{cell}>", escape(text))).collect();
    format!("<tr>{cells}</tr>\n")
}

/// From values to places.
struct Axes {
    scale: Scale,
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    fn around<'d>(dots: impl Iterator<Item = &'d Dot>, scale: Scale) -> Option<Axes> {
        let mut axes = Axes { scale, x: (f64::MAX, f64::MIN), y: (f64::MAX, f64::MIN) };
        for dot in dots {
            let x = f64::from(dot.segment).log2();
            axes.x = (axes.x.0.min(x), axes.x.1.max(x));
            axes.y = (axes.y.0.min(dot.min), axes.y.1.max(dot.max));
        }
        if axes.x.0 > axes.x.1 {
            return None;
        }
        axes.x = (axes.x.0 - 0.25, axes.x.1 + 0.25);
        axes.y = match scale {
            Scale::Linear => (0.0, axes.y.1.max(1e-9) * 1.08),
            Scale::Logarithmic => (axes.y.0.max(1e-9) / 1.3, axes.y.1.max(1e-9) * 1.3),
        };
        Some(axes)
    }

    fn x(&self, segment: u32) -> f64 {
        let share = (f64::from(segment).log2() - self.x.0) / (self.x.1 - self.x.0);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.y.0) / (self.y.1 - self.y.0),
            Scale::Logarithmic => (value.max(1e-9) / self.y.0).ln() / (self.y.1 / self.y.0).ln(),
        };
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }

    fn ticks(&self) -> Vec<f64> {
        let power = |value: f64| 10_f64.powf(value.log10().floor());
        match self.scale {
            Scale::Linear => {
                let rough = self.y.1 / TICKS;
                let step = [1.0, 2.0, 5.0, 10.0].map(|part| part * power(rough));
                let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
                (0..=(self.y.1 / step) as u32).map(|number| f64::from(number) * step).collect()
            }
            Scale::Logarithmic => {
                let powers = std::iter::successors(Some(power(self.y.0)), |power| Some(power * 10.0));
                let within = powers.take_while(|power| *power <= self.y.1);
                let ticks = within.flat_map(|power| [1.0, 2.0, 5.0].map(|part| part * power));
                ticks.filter(|tick| (self.y.0..=self.y.1).contains(tick)).collect()
            }
        }
    }

    fn draw<'d>(&self, label: &str, dots: impl Iterator<Item = &'d Dot>, svg: &mut String) {
        let right = WIDTH - RIGHT;
        for tick in self.ticks() {
            let y = self.y(tick);
            put(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
                ),
            );
            let (x, y) = (LEFT - 8.0, y + 4.0);
            put(svg, format_args!("<text class=\"end\" x=\"{x}\" y=\"{y:.1}\">{}</text>", tick_words(tick)));
        }
        let bottom = HEIGHT - BOTTOM;
        let segments: std::collections::BTreeSet<u32> = dots.map(|dot| dot.segment).collect();
        for segment in segments {
            let x = self.x(segment);
            put(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"
                ),
            );
            let y = bottom + 18.0;
            put(svg, format_args!("<text class=\"middle\" x=\"{x:.1}\" y=\"{y}\">{segment}</text>"));
        }
        let (x, y) = (f64::midpoint(LEFT, right), HEIGHT - 12.0);
        put(
            svg,
            format_args!(
                "<text class=\"middle\" x=\"{x}\" y=\"{y}\">events in one TCP segment, datagrams back to back over UDP</text>"
            ),
        );
        let y = f64::midpoint(TOP, bottom);
        put(
            svg,
            format_args!(
                "<text class=\"middle\" transform=\"translate(16 {y}) rotate(-90)\">{}</text>",
                escape(label)
            ),
        );
    }
}

fn draw_series(axes: &Axes, series: &Series, svg: &mut String) {
    let class = series.class;
    let place = |dot: &Dot| format!("{:.1},{:.1}", axes.x(dot.segment), axes.y(dot.value));
    let line: Vec<String> = series.dots.iter().map(place).collect();
    put(svg, format_args!("<polyline class=\"line {class}\" points=\"{}\"/>", line.join(" ")));
    for dot in &series.dots {
        let (x, y) = (axes.x(dot.segment), axes.y(dot.value));
        let (low, high) = (axes.y(dot.min), axes.y(dot.max));
        put(
            svg,
            format_args!(
                "<path class=\"line {class}\" d=\"M{x:.1} {low:.1}V{high:.1}M{:.1} {low:.1}h8M{:.1} {high:.1}h8\"/>",
                x - 4.0,
                x - 4.0
            ),
        );
        let bound = if dot.is_bound { " bound" } else { "" };
        let words = escape(&dot.words);
        put(
            svg,
            format_args!(
                "<circle class=\"dot {class}{bound}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"><title>{words}</title></circle>"
            ),
        );
    }
}

fn draw_legend(place: usize, series: &Series, svg: &mut String) {
    let (x, y) = (LEFT + LEGEND * place as f64, TOP - 18.0);
    put(svg, format_args!("<path class=\"line {}\" d=\"M{x} {:.1}h24\"/>", series.class, y - 4.0));
    put(svg, format_args!("<text x=\"{:.1}\" y=\"{y}\">{}</text>", x + 32.0, escape(&series.name)));
}

fn tick_words(tick: f64) -> String {
    match tick {
        tick if tick >= 1e6 => format!("{}M", short(tick / 1e6)),
        tick if tick >= 1e4 => format!("{}k", short(tick / 1e3)),
        tick => short(tick),
    }
}

/// Without the digits that adding up steps leaves behind.
fn short(number: f64) -> String {
    ((number * 1e6).round() / 1e6).to_string()
}

fn put(svg: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(svg, "{element}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(values: &[(u32, f64)], scale: Scale) -> Plot {
        let dot = |(segment, value): &(u32, f64)| Dot {
            segment: *segment,
            value: *value,
            min: value * 0.9,
            max: value * 1.1,
            words: format!("{segment} -> {value}"),
            is_bound: *segment == 4,
        };
        let dots = values.iter().map(dot).collect();
        let series = vec![Series { name: "a <series>".into(), class: "tcp", dots }];
        Plot { label: "CPU, us", scale, series }
    }

    #[test]
    fn every_dot_is_inside_with_its_spread_and_words() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            for values in [&[(1, 8.0), (2, 4.5), (4, 0.3)][..], &[(1, 500_000.0)], &[(16, 0.0)]] {
                let svg = plot(values, scale).to_svg();
                assert_eq!(svg.matches("<circle").count(), values.len());
                assert!(svg.contains("a &lt;series&gt;") && !svg.contains("NaN"), "{svg}");
                let places = svg.split("cy=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
                for y in places.map(|place| place.parse::<f64>().unwrap()) {
                    assert!((TOP..=HEIGHT - BOTTOM + 0.1).contains(&y), "{y} in {svg}");
                }
                assert!(svg.matches("class=\"grid\"").count() >= 2, "{svg}");
                assert_eq!(svg.contains("bound"), values.len() == 3);
            }
        }
        assert!(plot(&[], Scale::Linear).to_svg().contains("Nothing was measured"));
    }

    #[test]
    fn ticks_are_round_and_short() {
        for (tick, words) in
            [(0.0, "0"), (0.3 + 0.3, "0.6"), (2_000.0, "2000"), (250_000.0, "250k"), (1.5e6, "1.5M")]
        {
            assert_eq!(tick_words(tick), words);
        }
    }
}
