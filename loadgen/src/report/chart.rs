//! Charts as SVG: the spectrum of percentiles, and percentiles per second. The axis of times is logarithmic, because they
//! range from microseconds to seconds. Used in the HTML page and as separate files.

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::messages::Measure;
use crate::report::Report;

/// A line of a chart; each part of it is drawn without a connection to the next.
struct Line {
    name: String,
    parts: Vec<Vec<(f64, f64)>>,
}

/// A chart of times in milliseconds.
pub(crate) struct Chart {
    title: String,
    /// Label of the horizontal axis.
    across: &'static str,
    width: f64,
    ticks: Vec<(f64, String)>,
    lines: Vec<Line>,
}

impl Chart {
    /// Latency by percentile; the further right, the rarer. One line for each histogram.
    pub(crate) fn spectrum(title: &str, histograms: &[(&str, &Histogram<u64>)]) -> Self {
        let nines = |histogram: &Histogram<u64>| (histogram.len() as f64).log10().clamp(1.0, 6.0);
        let width = histograms.iter().map(|(_, histogram)| nines(histogram)).fold(1.0, f64::max);
        let line = |(name, histogram): &(&str, &Histogram<u64>)| {
            let end = nines(histogram);
            let point = |step: u32| {
                let x = end * f64::from(step) / f64::from(SPECTRUM_STEPS);
                let percentile = 100.0 * (1.0 - 10_f64.powf(-x));
                (x, histogram.value_at_percentile(percentile) as f64 / 1e6)
            };
            Line { name: (*name).to_owned(), parts: vec![(0..=SPECTRUM_STEPS).map(point).collect()] }
        };
        let labels = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"];
        let mut ticks: Vec<_> = labels.iter().enumerate().map(|(at, label)| (at as f64, (*label).to_owned())).collect();
        if width < WIDTH_WITH_MEDIAN {
            ticks.push((2_f64.log10(), "50 %".to_owned()));
        }
        ticks.retain(|(at, _)| *at <= width);
        let lines = histograms.iter().map(line).collect();
        Self { title: title.to_owned(), across: "share of times that are at most this long", width, ticks, lines }
    }

    /// Percentiles per second; `None` with fewer than three seconds.
    pub(crate) fn timeline(title: &str, report: &Report, measure: Measure) -> Option<Self> {
        let seconds: Vec<(u64, &Histogram<u64>)> = report.times.by_second(measure).collect();
        let (first, last) = (seconds.first()?.0, seconds.last()?.0);
        if seconds.len() < SECONDS_MIN {
            return None;
        }
        let line = |name: &str, value: fn(&Histogram<u64>) -> u64| {
            let mut parts: Vec<Vec<(f64, f64)>> = Vec::new();
            let mut then = None;
            for (second, histogram) in &seconds {
                // Where nothing was measured, there is no line.
                if then.is_none_or(|then| *second > then + 1) {
                    parts.push(Vec::new());
                }
                then = Some(*second);
                let point = ((second - first) as f64, value(histogram) as f64 / 1e6);
                parts.last_mut().expect("one was pushed").push(point);
            }
            Line { name: name.to_owned(), parts }
        };
        let lines = vec![
            line("p50", |histogram| histogram.value_at_percentile(50.0)),
            line("p99", |histogram| histogram.value_at_percentile(99.0)),
            line("max", Histogram::max),
        ];
        let width = ((last - first) as f64).max(1.0);
        let step = [1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1_800.0];
        let step = step.into_iter().find(|step| width / step <= 8.0).unwrap_or(3_600.0);
        let ticks = (0..=(width / step) as u32).map(|at| f64::from(at) * step).map(|x| (x, format!("{x:.0} s")));
        Some(Self { title: title.to_owned(), across: "time since the first", width, ticks: ticks.collect(), lines })
    }

    /// As a part of a page that has the styles.
    pub(crate) fn inline(&self) -> String {
        let mut svg = format!("<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{}'>", escape(&self.title));
        self.draw(&mut svg);
        svg.push_str("</svg>");
        svg
    }

    /// As a file of its own, readable on a light and on a dark page: it brings its background.
    pub(crate) fn file(&self) -> String {
        let mut svg = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' \
             role='img' aria-label='{}'><style>:root{{color:#1f2328}}.back{{fill:#fff}}{COLORS}{STYLE}\
             @media(prefers-color-scheme:dark){{:root{{color:#e6edf3;{COLORS_DARK}}}.back{{fill:#161b22}}}}</style>\
             <rect class='back' width='{WIDTH}' height='{HEIGHT}' rx='6'/>",
            escape(&self.title)
        );
        self.draw(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn draw(&self, svg: &mut String) {
        let scale = Scale::of(self.lines.iter().flat_map(|line| line.parts.iter().flatten()).map(|(_, y)| *y));
        let x = |value: f64| LEFT + value / self.width * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - scale.share(value) * (HEIGHT - BOTTOM - TOP);
        push(svg, format_args!("<text x='{LEFT}' y='18' class='t'>{}</text>", escape(&self.title)));
        for tick in &scale.ticks {
            let at = y(*tick);
            push(svg, format_args!("<path class='g' d='M{LEFT} {at:.1}H{}'/>", WIDTH - RIGHT));
            let label = duration(*tick);
            push(svg, format_args!("<text x='{}' y='{:.1}' class='e'>{label}</text>", LEFT - 7.0, at + 4.0));
        }
        for (value, label) in &self.ticks {
            let (at, bottom) = (x(*value), HEIGHT - BOTTOM);
            push(svg, format_args!("<path class='g' d='M{at:.1} {bottom}v5'/>"));
            push(svg, format_args!("<text x='{at:.1}' y='{}' class='m'>{label}</text>", bottom + 18.0));
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        push(svg, format_args!("<text x='{middle}' y='{}' class='m'>{}</text>", HEIGHT - 7.0, self.across));
        let mut legend = WIDTH - RIGHT;
        for (at, line) in self.lines.iter().enumerate().rev() {
            let class = CLASSES[at % CLASSES.len()];
            for part in &line.parts {
                draw_part(svg, class, part.iter().map(|(px, py)| (x(*px), y(*py))));
            }
            push(svg, format_args!("<text x='{legend}' y='18' class='e t f{class}'>{}</text>", escape(&line.name)));
            legend -= 7.0 * line.name.len() as f64 + 14.0;
        }
    }
}

/// A line, or a dot where it is one point.
fn draw_part(svg: &mut String, class: &str, points: impl ExactSizeIterator<Item = (f64, f64)>) {
    if points.len() == 1 {
        for (x, y) in points {
            push(svg, format_args!("<circle class='f{class}' r='3' cx='{x:.1}' cy='{y:.1}'/>"));
        }
        return;
    }
    push(svg, format_args!("<polyline class='{class}' points='"));
    let mut last = None;
    for (x, y) in points {
        let text = format!("{x:.1},{y:.1} ");
        // Steps that cannot be told apart need no bytes.
        if last.as_ref() != Some(&text) {
            svg.push_str(&text);
        }
        last = Some(text);
    }
    svg.push_str("'/>");
}

/// A logarithmic axis from one round number to another.
struct Scale {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values.fold((f64::INFINITY, 0.0), |(least, most), value| {
            let value = f64::max(value, LEAST_MS);
            (f64::min(least, value), f64::max(most, value))
        });
        let (least, most) = if least <= most { (least, most) } else { (1.0, 1.0) };
        let round: Vec<f64> =
            (-3..7).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power))).collect();
        let low = round.iter().rev().copied().find(|tick| *tick <= least).unwrap_or(LEAST_MS);
        let high = round.iter().copied().find(|tick| *tick >= most && *tick > low).unwrap_or(most * 2.0);
        let mut ticks: Vec<f64> = round.into_iter().filter(|tick| (low..=high).contains(tick)).collect();
        if ticks.len() > TICKS_MAX {
            // Powers of ten alone, and both ends.
            let is_power = |tick: &f64| (tick.log10() - tick.log10().round()).abs() < 1e-9;
            ticks.retain(|tick| is_power(tick));
        }
        Self { low, high, ticks }
    }

    /// 0 at the low end, 1 at the high one.
    fn share(&self, value: f64) -> f64 {
        (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
    }
}

/// Milliseconds in the unit that needs the fewest digits.
fn duration(milliseconds: f64) -> String {
    let (value, unit) = match milliseconds {
        small if small < 0.9999 => (small * 1_000.0, "µs"),
        large if large >= 999.9 => (large / 1_000.0, "s"),
        middle => (middle, "ms"),
    };
    format!("{value:.0} {unit}")
}

pub(crate) fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes all");
}

/// Text as it may occur between tags and in attributes.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;").replace('"', "&quot;")
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 38.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 48.0;
const LEAST_MS: f64 = 0.001;
/// Fewer seconds are no line.
const SECONDS_MIN: usize = 3;
const TICKS_MAX: usize = 11;
const SPECTRUM_STEPS: u32 = 160;
/// Nines on a spectrum's axis above which 50 % would be too near to 0 %.
const WIDTH_WITH_MEDIAN: f64 = 4.5;
/// First line first: the one that the chart is about.
const CLASSES: [&str; 4] = ["a", "b", "c", "d"];

/// Colours that can be read on white and on near black.
pub(crate) const COLORS: &str = ":root{--a:#2374c6;--b:#cf5c1f;--c:#7d8590;--d:#2f9e5b;--g:#8b949e55}";
/// The same, lighter, where the page is dark for sure.
pub(crate) const COLORS_DARK: &str = "--a:#58a6ff;--b:#f0883e;--c:#9aa4af;--d:#56d364";
/// Everything else about charts.
pub(crate) const STYLE: &str = "\
svg text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:currentColor}svg text.t{font-weight:600}\
svg text.e{text-anchor:end}svg text.m{text-anchor:middle}svg .g{stroke:var(--g);fill:none}\
polyline{fill:none;stroke-width:2;stroke-linejoin:round}\
polyline.a{stroke:var(--a)}polyline.b{stroke:var(--b)}polyline.c{stroke:var(--c)}polyline.d{stroke:var(--d)}\
svg .fa{fill:var(--a)}svg .fb{fill:var(--b)}svg .fc{fill:var(--c)}svg .fd{fill:var(--d)}";

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: axes begin and end at round numbers around all values, however many decades they span.
    #[test]
    fn axes_are_round() {
        let scale = Scale::of([0.37, 8.1].into_iter());
        assert_eq!((scale.low, scale.high), (0.2, 10.0));
        assert_eq!(scale.ticks.len(), 6);
        assert!((scale.share(0.2)).abs() < 1e-9 && (scale.share(10.0) - 1.0).abs() < 1e-9);
        let wide = Scale::of([0.002, 900.0].into_iter());
        assert!(wide.ticks.len() <= TICKS_MAX && wide.ticks.contains(&1.0), "{:?}", wide.ticks);
        for none in [Scale::of(std::iter::empty()), Scale::of([0.0].into_iter()), Scale::of([1e9].into_iter())] {
            assert!(none.high > none.low && none.low > 0.0);
        }
        assert_eq!([0.2, 1.0, 50.0, 2_000.0].map(duration), ["200 µs", "1 ms", "50 ms", "2 s"]);
    }

    /// Goal: a spectrum shows the histogram's own percentiles. Method: the point at 90 % of a known histogram.
    #[test]
    fn a_spectrum_is_right() {
        let mut histogram = crate::recorder::histogram();
        (1..=1_000).for_each(|value| histogram.record(value * 1_000_000).expect("in bounds"));
        let chart = Chart::spectrum("t", &[("all", &histogram)]);
        assert_eq!(chart.width, 3.0);
        let (_, at_90) = chart.lines[0].parts[0].iter().find(|(x, _)| *x >= 1.0).expect("it goes to 99.9 %");
        assert!((at_90 - 900.0).abs() < 20.0, "{at_90}");
        assert!(chart.ticks.iter().any(|(at, label)| *at == 2.0 && label == "99 %"));
    }
}
