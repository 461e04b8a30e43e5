//! The documents: every link resolves, every page is in the book, the book builds, and the tables that repeat the code
//! match it.

mod links;
mod troubleshooting;

use std::process::Command;

use relay::auth::explain::Cause;
use relay::label::Label;

use crate::common;
use crate::tree::{self, Source};

const TROUBLESHOOTING: &str = "docs/troubleshooting.md";

/// The pages for readers, with the paths of all possible link targets.
fn pages() -> Vec<Source> {
    let mut pages = tree::sources("docs", &[".md"]);
    pages.extend(["README.md", "CONTRIBUTING.md"].map(tree::source));
    pages
}

#[test]
fn links_lead_somewhere() {
    let findings = links::check(&pages(), |path| tree::root().join(path).exists());
    crate::assert_clean(&findings);
}

#[test]
fn every_page_is_in_the_book() {
    let findings = links::check_summary(&tree::source("docs/SUMMARY.md").text, &tree::sources("docs", &[".md"]));
    crate::assert_clean(&findings);
}

/// Goal: close codes, statuses and reasons on the page match the code, each with cause and fix.
#[test]
fn troubleshooting_is_current() {
    let current = troubleshooting::with_tables(&tree::source(TROUBLESHOOTING).text);
    tree::assert_current(TROUBLESHOOTING, &current, "cargo test --test tidy troubleshooting");
}

/// R-EXPLAIN-2: the specification lists every cause that the code knows, and no other.
#[test]
fn causes_are_specified() {
    let specification = tree::source("docs/protocol/relay.md").text;
    let (_, list) = specification.split_once("The causes (").expect("the list");
    let (list, _) = list.split_once("\n##").expect("its end");
    let mut listed: Vec<&str> = list.split('`').skip(1).step_by(2).filter(|word| !word.contains(' ')).collect();
    let mut known = Cause::LABELS.to_vec();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
}

/// Goal: mdBook builds the book from docs/ without a warning, below the build directory.
#[test]
fn the_book_builds() {
    let folder = common::tools::installed("mdbook").expect("cargo is here");
    let output = Command::new(folder.join("bin/mdbook"))
        .arg("build")
        .arg(tree::root().join("docs"))
        .arg("--dest-dir")
        .arg(folder.join("book"))
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert!(folder.join("book/troubleshooting.html").is_file(), "{log}");
}
