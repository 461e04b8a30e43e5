//! Reads the links and headings of Markdown as far as the pages of this project use them.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::Source;

/// A line for each relative link without a file, and for each anchor without a heading.
pub(crate) fn check(pages: &[Source], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        pages.iter().map(|page| (page.path.as_str(), anchors(&page.text))).collect();
    let mut findings = Vec::new();
    for page in pages {
        for (line, target) in links(&page.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { page.path.clone() } else { resolve(&page.path, file) };
            if !exists(&path) {
                findings.push(format!("{}:{line}: {target} does not exist", page.path));
            } else if !anchor.is_empty() && !anchors.get(path.as_str()).is_some_and(|known| known.contains(anchor)) {
                findings.push(format!("{}:{line}: {path} has no heading #{anchor}", page.path));
            }
        }
    }
    findings
}

/// A line for each page below docs/ that the summary does not list.
pub(crate) fn check_summary(summary: &str, pages: &[Source]) -> Vec<String> {
    let listed: BTreeSet<String> = links(summary).into_iter().map(|(_, target)| format!("docs/{target}")).collect();
    let is_missing = |page: &&Source| page.path != "docs/SUMMARY.md" && !listed.contains(&page.path);
    pages.iter().filter(is_missing).map(|page| format!("{} is not in docs/SUMMARY.md", page.path)).collect()
}

/// Targets of inline links and images outside of code, each with its line.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code_spans(line);
        let mut rest = line.as_str();
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let Some(end) = rest.find(')') else { break };
            let target = rest[..end].split_whitespace().next().unwrap_or_default();
            found.push((number, target.to_owned()));
        }
    }
    found
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let slug: String = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter_map(|character| match character {
                ' ' => Some('-'),
                '-' | '_' => Some(character),
                _ => character.is_alphanumeric().then_some(character),
            })
            .collect();
        let repeated = (1..).map(|number| format!("{slug}-{number}"));
        let free = std::iter::once(slug.clone()).chain(repeated).find(|slug| !anchors.contains(slug));
        anchors.extend(free);
    }
    anchors
}

/// The lines outside of fenced code, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((number + 1, line))
    })
}

fn without_code_spans(line: &str) -> String {
    line.split('`').enumerate().filter(|(index, _)| index % 2 == 0).map(|(_, part)| part).collect()
}

/// A relative path as seen from the folder of `page`.
fn resolve(page: &str, relative: &str) -> String {
    let mut names: Vec<&str> = page.split('/').collect();
    names.pop();
    for name in relative.trim_end_matches('/').split('/') {
        match name {
            "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

/// Goal: a link to a missing file or heading is found, and links of every form that the pages use are followed.
#[test]
fn the_link_check_can_fail() {
    let findings = |text: &str| {
        let other =
            Source::sample("docs/b/other.md", "# Other page\n\n## A `code` heading (1.2)\n\n## Twice\n\n## Twice\n");
        check(&[Source::sample("docs/a.md", text), other], |path| {
            matches!(path, "docs/a.md" | "docs/b/other.md" | "docs/b" | "tuning" | "README.md")
        })
        .len()
    };
    assert_eq!(findings("[a](b/other.md) [b](../tuning) ![c](b/) [d](https://example.com/x#y) [e](../README.md)"), 0);
    assert_eq!(findings("# Here\n[a](#here) [b](b/other.md#a-code-heading-12) [c](b/other.md#twice-1)"), 0);
    assert_eq!(findings("`[a](missing.md)`\n```\n[a](missing.md)\n```"), 0);
    assert_eq!(findings("[a](missing.md)"), 1);
    assert_eq!(findings("[a](b/missing.md) and [b](other.md)"), 2);
    assert_eq!(findings("[a](b/other.md#nowhere) [b](#here) [c](b/other.md#twice-2)"), 3);
}

/// Goal: a page that is missing from the summary is found.
#[test]
fn the_summary_check_can_fail() {
    let pages =
        [Source::sample("docs/SUMMARY.md", ""), Source::sample("docs/a.md", ""), Source::sample("docs/b/c.md", "")];
    assert_eq!(check_summary("- [A](a.md)\n  - [C](b/c.md)\n", &pages), [""; 0]);
    assert_eq!(check_summary("- [A](a.md)\n", &pages), ["docs/b/c.md is not in docs/SUMMARY.md"]);
}
