//! The report as one self-contained HTML file with charts in SVG.

use std::io;
use std::path::Path;

use hdrhistogram::Histogram;

use crate::environment;
use crate::messages::{MEASURES, Measure};
use crate::report::chart::{self, Chart, escape, push};
use crate::report::histogram;
use crate::report::quantity;
use crate::report::{self, Report};

/// Writes the report.
pub(crate) fn write(path: &Path, report: &Report) -> io::Result<()> {
    std::fs::write(path, page(report))
}

/// Writes each chart of the report to its own file in a folder, which is created if missing.
pub(crate) fn write_charts(folder: &Path, report: &Report) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for measure in MEASURES {
        for (kind, chart) in charts(report, measure) {
            let name = format!("{}-{}-{kind}.svg", report.scenario, report::name(measure));
            std::fs::write(folder.join(name), chart.file())?;
        }
    }
    Ok(())
}

/// The charts of a measure, each with its kind; none for a few times, for which the row of figures is enough.
fn charts(report: &Report, measure: Measure) -> Vec<(&'static str, Chart)> {
    let Some(total) = report.times.total(measure).filter(|total| total.len() >= CHART_TIMES_MIN) else {
        return Vec::new();
    };
    let mut lines: Vec<(&str, &Histogram<u64>)> = vec![(report.scenario.as_str(), total)];
    if measure == Measure::Delivery {
        let beside = report.beside.iter().filter(|(_, times)| times.len() >= CHART_TIMES_MIN);
        lines.extend(beside.map(|(name, times)| (name.as_str(), times)));
    }
    let name = report::name(measure);
    let spectrum = Chart::spectrum(&format!("{name} times by percentile"), &lines);
    let timeline = Chart::timeline(&format!("{name} times, second by second"), report, measure);
    [("spectrum", Some(spectrum)), ("timeline", timeline)]
        .into_iter()
        .filter_map(|(kind, chart)| Some((kind, chart?)))
        .collect()
}

fn page(report: &Report) -> String {
    let verdict = report.verdict().name();
    let name = escape(&report.scenario);
    let (colors, dark, charts_style) = (chart::COLORS, chart::COLORS_DARK, chart::STYLE);
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>{name}: {verdict}</title><style>{colors}{charts_style}{STYLE}\
         @media(prefers-color-scheme:dark){{:root{{{dark}}}}}</style><main>\
         <h1>{name} <small class={verdict}>{verdict}</small></h1>"
    );
    push(&mut page, format_args!("<p class=dim>{}</p>", escape(&environment::line())));
    for (kind, text) in report.remarks() {
        push(&mut page, format_args!("<p class='remark {kind}'><b>{kind}</b> {}</p>", escape(&text)));
    }
    for measure in MEASURES {
        let Some(total) = report.times.total(measure) else { continue };
        push(&mut page, format_args!("<h2>{}</h2>", escape(report::title(measure))));
        page.push_str(&percentiles(total));
        let charts = charts(report, measure);
        if !charts.is_empty() {
            page.push_str("<div class=charts>");
            charts.iter().for_each(|(_, chart)| page.push_str(&chart.inline()));
            page.push_str("</div>");
        }
    }
    page.push_str("<h2>figures</h2><table>");
    for figure in &report.figures {
        let value = quantity::readable(figure.value, figure.unit);
        let (name, label) = (escape(&figure.name), escape(figure.label()));
        push(&mut page, format_args!("<tr><td title='{name}'>{label}<td class=n>{value}"));
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

/// A row of tiles: the number of times, and the values of [`histogram::summary`].
fn percentiles(total: &Histogram<u64>) -> String {
    let mut row = String::from("<div class=tiles>");
    let mut tile = |name: &str, value: String| {
        push(&mut row, format_args!("<div><span class=dim>{name}</span><b>{value}</b></div>"));
    };
    tile("times", quantity::number(total.len() as f64));
    for (name, value_ns) in histogram::summary(total) {
        tile(name, quantity::time(value_ns as f64));
    }
    row.push_str("</div>");
    row
}

/// Fewer times have no chart: with a hundred there is a p99.
const CHART_TIMES_MIN: u64 = 100;

const STYLE: &str = "\
:root{color-scheme:light dark;--ok:#1a7f37;--bad:#b3261e;--warn:#9a6700}\
@media(prefers-color-scheme:dark){:root{--bad:#ff7b72;--warn:#d9a528}}\
body{font:15px/1.45 system-ui,-apple-system,'Segoe UI',sans-serif;margin:0}\
main{max-width:1480px;margin:auto;padding:1rem 1.5rem 3rem}h1{margin:.4em 0 0}\
h1 small{font-size:.5em;padding:.25em .7em;border-radius:1em;background:#1a7f37;color:#fff;vertical-align:middle}\
h1 small.failed{background:#b3261e}h1 small.invalid,h1 small.threshold,h1 small.interrupted{background:#9a6700}\
h2{font-size:1.05rem;margin:1.8em 0 .4em}.dim{opacity:.7}p.dim{margin:.2em 0 1em}\
.remark{margin:.3em 0;padding:.4em .8em;border-left:4px solid var(--c);background:#8881}\
.remark.failed{border-color:var(--bad)}.remark.failed b{color:var(--bad)}\
.remark.invalid,.remark.threshold,.remark.interrupted{border-color:var(--warn)}\
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;margin:.4em 0 .8em}\
.tiles div{background:#8881;border-radius:.4em;padding:.35em .8em;min-width:6.2em}\
.tiles span{display:block;font-size:.8em}.tiles b{font-variant-numeric:tabular-nums}\
.charts{display:flex;flex-wrap:wrap;gap:1rem}.charts svg{flex:1 1 30rem;max-width:720px;min-width:0}\
table{border-collapse:collapse}td{padding:.15em 1.2em .15em 0;border-bottom:1px solid var(--g)}\
td.n{text-align:right;font-variant-numeric:tabular-nums}tr:hover td{background:#8881}\
details{margin-top:2em}pre{overflow:auto;font-size:13px}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Verdict;
    use crate::recorder::Recorder;

    fn report() -> Report {
        let mut report = Report::default();
        report.begin("fan-out", &());
        let mut recorder = Recorder::new();
        for second in 1..4 {
            (1..=100).for_each(|time| recorder.record(Measure::Delivery, 0, second * time * 1_000_000));
            recorder.take(second).iter().for_each(|interval| report.times.add(interval));
        }
        report
    }

    /// Goal: a report has both charts, loads nothing from elsewhere, and a server's words cannot become markup.
    #[test]
    fn a_page_is_self_contained() {
        let mut report = report();
        report.problem(Verdict::Failed, "<script>alert('a')</script>");
        let page = page(&report);
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    /// Goal: a handful of times is a row of figures in a unit that people read, and no chart, on the page and as files.
    #[test]
    fn a_handful_of_times_is_no_chart() {
        let mut report = Report::default();
        report.begin("idle", &());
        report.figure("last-delivery-ms", 5_083.496, "ms");
        let mut recorder = Recorder::new();
        (0..5).for_each(|_| recorder.record(Measure::Delivery, 0, 5_083_496_000));
        recorder.take(1).iter().for_each(|interval| report.times.add(interval));
        let page = page(&report);
        let (page, _) = page.split_once("<details>").expect("JSON comes last");
        assert!(!page.contains("<svg") && !page.contains("p99"), "{page}");
        assert!(page.contains("<b>5.08 s</b>") && page.contains(">last-delivery<td class=n>5.08 s"), "{page}");
        let text = report.text();
        assert!(text.contains("5.08 s") && !text.contains("5083") && !text.contains('#'), "{text}");
        assert!(charts(&report, Measure::Delivery).is_empty());
    }

    /// Goal: charts are files that need no page: they bring their colours and their background.
    #[test]
    fn charts_stand_alone() {
        let folder = std::env::temp_dir().join(format!("relay-loadgen-charts-{}", std::process::id()));
        write_charts(&folder, &report()).expect("the folder can be written");
        for kind in ["spectrum", "timeline"] {
            let svg = std::fs::read_to_string(folder.join(format!("fan-out-delivery-{kind}.svg"))).expect("written");
            assert!(svg.starts_with("<svg xmlns='http://www.w3.org/2000/svg'"), "{svg}");
            assert!(svg.contains("class='back'") && svg.contains("--a:#") && !svg.contains("NaN"));
        }
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
