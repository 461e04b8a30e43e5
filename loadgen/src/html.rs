//! A report as one HTML file with charts in SVG and nothing to load from elsewhere.

use std::fmt::Write;
use std::io;
use std::path::Path;

use hdrhistogram::Histogram;

use crate::messages::{MEASURES, Measure};
use crate::report::{self, Report};

/// Writes the report.
pub(crate) fn write(path: &Path, report: &Report) -> io::Result<()> {
    std::fs::write(path, page(report))
}

fn page(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>{0}</title><style>{STYLE}</style><main><h1>{0} <small class={1}>{1}</small></h1>",
        escape(&report.scenario),
        report.verdict().name()
    );
    for (kind, text) in report.remarks() {
        push(&mut page, format_args!("<p class={kind}>{}</p>", escape(&text)));
    }
    for measure in MEASURES {
        let Some(total) = report.times.total(measure) else { continue };
        push(&mut page, format_args!("<h2>{}</h2><div class=charts>", escape(report::title(measure))));
        page.push_str(&spectrum(total));
        page.push_str(&timeline(report, measure));
        page.push_str("</div>");
    }
    page.push_str("<h2>figures</h2><table>");
    for figure in &report.figures {
        let value = report::number(figure.value);
        push(&mut page, format_args!("<tr><td>{}<td class=n>{value}<td>{}", escape(&figure.name), figure.unit));
    }
    page.push_str("</table>");
    if !report.reasons.is_empty() {
        page.push_str("<h2>why connections and requests failed or ended</h2><table>");
        for (reason, count) in &report.reasons {
            push(&mut page, format_args!("<tr><td>{}<td class=n>{count}", escape(reason)));
        }
        page.push_str("</table>");
    }
    let json = serde_json::to_string_pretty(&report.json()).unwrap_or_default();
    push(
        &mut page,
        format_args!("<details><summary>everything as JSON</summary><pre>{}</pre></details>", escape(&json)),
    );
    page.push_str("</main></html>\n");
    page
}

/// Latency by percentile; the further right, the rarer.
fn spectrum(histogram: &Histogram<u64>) -> String {
    let nines = (histogram.len() as f64).log10().clamp(1.0, 7.0);
    let steps = 200;
    let points: Vec<(f64, f64)> = (0..=steps)
        .map(|step| {
            let x = nines * f64::from(step) / f64::from(steps);
            let percentile = 100.0 * (1.0 - 10_f64.powf(-x));
            (x, histogram.value_at_percentile(percentile) as f64 / 1e6)
        })
        .collect();
    let labels = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"];
    let ticks = labels.iter().enumerate().map(|(at, label)| (at as f64, (*label).to_owned()));
    let ticks: Vec<_> = ticks.filter(|(at, _)| *at <= nines).collect();
    chart("percentile spectrum", "ms", nines, &ticks, &[("latency", "a", &points)])
}

/// Percentiles second by second.
fn timeline(report: &Report, measure: Measure) -> String {
    let seconds: Vec<(u64, &Histogram<u64>)> = report.times.by_second(measure).collect();
    let (Some((first, _)), Some((last, _))) = (seconds.first(), seconds.last()) else { return String::new() };
    let line = |value: fn(&Histogram<u64>) -> u64| -> Vec<(f64, f64)> {
        seconds.iter().map(|(second, histogram)| ((second - first) as f64, value(histogram) as f64 / 1e6)).collect()
    };
    let lines = [
        ("max", "c", &line(Histogram::max)),
        ("p99", "b", &line(|histogram| histogram.value_at_percentile(99.0))),
        ("p50", "a", &line(|histogram| histogram.value_at_percentile(50.0))),
    ]
    .map(|(name, class, points)| (name, class, points.clone()));
    let lines: Vec<_> = lines.iter().map(|(name, class, points)| (*name, *class, points.as_slice())).collect();
    let width = ((last - first) as f64).max(1.0);
    let ticks: Vec<_> = (0..=4).map(|at| width * f64::from(at) / 4.0).map(|x| (x, format!("{x:.0} s"))).collect();
    chart("timeline", "ms", width, &ticks, &lines)
}

/// Name, class and points of a line.
type Line<'a> = (&'a str, &'a str, &'a [(f64, f64)]);

fn chart(title: &str, unit: &str, width: f64, ticks: &[(f64, String)], lines: &[Line<'_>]) -> String {
    let highest = lines.iter().flat_map(|(_, _, points)| points.iter()).map(|(_, y)| *y).fold(0.001, f64::max) * 1.05;
    let x = |value: f64| LEFT + value / width * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / highest * (HEIGHT - BOTTOM - TOP);
    let mut svg = format!(
        "<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{title}'><text x={LEFT} y=14 class=t>{title}</text>"
    );
    for step in 0..=4 {
        let value = highest * f64::from(step) / 4.0;
        let at = y(value);
        let label = report::number((value * 1_000.0).round() / 1_000.0);
        push(&mut svg, format_args!("<path class=g d='M{LEFT} {at:.1}H{}'/>", WIDTH - RIGHT));
        push(&mut svg, format_args!("<text x={} y={:.1} text-anchor=end>{label} {unit}</text>", LEFT - 6.0, at + 4.0));
    }
    for (value, label) in ticks {
        push(&mut svg, format_args!("<text x={:.1} y={} text-anchor=middle>{label}</text>", x(*value), HEIGHT - 8.0));
    }
    for (at, (name, class, points)) in lines.iter().enumerate() {
        svg.push_str(&format!("<polyline class={class} points='"));
        for (px, py) in *points {
            push(&mut svg, format_args!("{:.1},{:.1} ", x(*px), y(*py)));
        }
        let legend = WIDTH - RIGHT - 60.0 * at as f64;
        push(&mut svg, format_args!("'/><text class='{class} t' x={legend} y=14 text-anchor=end>{name}</text>"));
        // A line of one point would not be seen.
        if let [(px, py)] = points {
            push(&mut svg, format_args!("<circle class={class} r=3 cx={:.1} cy={:.1} />", x(*px), y(*py)));
        }
    }
    svg.push_str("</svg>");
    svg
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes all");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;").replace('"', "&quot;")
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 28.0;
const STYLE: &str = "\
:root{color-scheme:light dark;--a:#1668b8;--b:#c0561a;--c:#8a8a8a;--g:#8883}\
@media(prefers-color-scheme:dark){:root{--a:#6cb2f5;--b:#f0a06a;--c:#9a9a9a}}\
body{font:15px/1.45 system-ui,sans-serif;margin:0}main{max-width:1320px;margin:auto;padding:1rem}\
h1 small{font-size:.55em;padding:.15em .5em;border-radius:.3em;background:#1a7f37;color:#fff}\
h1 small.failed{background:#b3261e}h1 small.invalid,h1 small.threshold{background:#9a6700}\
h2{font-size:1rem;margin:1.6em 0 .3em}.charts{display:flex;flex-wrap:wrap;gap:1rem}svg{flex:1 1 28rem;max-width:640px}\
svg text{font:11px system-ui,sans-serif;fill:currentColor}svg .t{font-size:12px;font-weight:600}\
svg .g{stroke:var(--g);fill:none}polyline{fill:none;stroke-width:1.6}\
polyline.a,circle.a{stroke:var(--a)}polyline.b,circle.b{stroke:var(--b)}polyline.c,circle.c{stroke:var(--c)}\
svg text.a{fill:var(--a)}svg text.b{fill:var(--b)}svg text.c{fill:var(--c)}\
td{padding:.1em 1.2em .1em 0;border-bottom:1px solid var(--g)}td.n{text-align:right;font-variant-numeric:tabular-nums}\
p.failed{color:#b3261e}p.invalid,p.threshold{color:#9a6700}pre{overflow:auto}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Verdict;
    use crate::recorder::Recorder;

    /// Goal: a report has both charts, loads nothing from elsewhere, and a server's words cannot become markup.
    #[test]
    fn a_page_is_self_contained() {
        let mut report = Report::default();
        report.begin("fan-out", &());
        let mut recorder = Recorder::new();
        for second in 1..4 {
            recorder.record(Measure::Delivery, 0, second * 1_000_000);
            recorder.take(second).iter().for_each(|interval| report.times.add(interval));
        }
        report.problem(Verdict::Failed, "<script>alert('a')</script>");
        let page = page(&report);
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }
}
