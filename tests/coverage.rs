//! Which test shows which rule of the specification: generates and checks `docs/protocol/coverage.md`.
//!
//! Method: a test cites a rule by its id, in its doc comment, a comment or a message. A citation belongs to the
//! function that encloses it, or else to the next one; in a script to the file. Citations outside of tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::tree::{self, Source};

const TABLE: &str = "docs/protocol/coverage.md";

/// Set to regenerate the table.
const UPDATE_VARIABLE: &str = "RELAY_UPDATE";

/// The implemented families; the rules of all others come later. A family is listed completely, or by its implemented
/// numbers.
const BUILT: &[(&str, &[u32])] = &[
    ("P-SDK", &[]),
    ("P-CONN", &[]),
    ("P-LIVE", &[]),
    ("P-CLOSE", &[]),
    ("P-IN", &[]),
    ("P-OUT", &[]),
    ("P-CHAN", &[]),
    ("P-LIM", &[]),
    ("P-SUB", &[]),
    ("P-FAIL", &[]),
    ("P-AUTH", &[]),
    ("P-PRES", &[]),
    ("P-CEV", &[]),
    ("P-ENC", &[]),
    ("P-CACHE", &[]),
    ("P-COUNT", &[]),
    ("P-USER", &[]),
    ("P-WATCH", &[]),
    ("P-AUTHZ", &[]),
    ("P-HTTP", &[]),
    ("P-STAT", &[]),
    ("P-SIGN", &[]),
    ("R-BASE", &[]),
    ("R-ERR", &[]),
    ("R-AUTH", &[]),
    ("R-TOKEN", &[]),
    ("R-CHAN", &[]),
    ("R-LIM", &[]),
    ("R-READ", &[1]),
    ("R-HIST", &[1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
    ("R-REPLAY", &[]),
    ("R-AUTHREQ", &[1, 2, 3]),
    ("R-AUTHEP", &[]),
    ("R-RECIPE", &[]),
    ("R-CLIENT", &[]),
    // Of streams, which come later: 7 and 11.
    ("R-PIT", &[1, 2, 3, 4, 5, 6, 8, 9, 10]),
    ("R-LOAD", &[]),
    ("P-HOOK", &[]),
    ("P-FALL", &[]),
    ("P-CFG", &[]),
    ("R-HOOK", &[]),
    ("R-PROC", &[]),
    ("R-ADMIN", &[]),
    ("R-DIAG", &[]),
    ("R-EXPLAIN", &[1, 2, 3, 4, 5, 6, 7]),
];

/// Rules of implemented families that need no test now, each with its reason.
const EXCUSED: &[(&str, &str)] = &[("R-TOKEN-7", "later: streams and polls")];

/// A test's name in the table: its file and its name.
type Citations = BTreeMap<String, BTreeSet<(String, String)>>;

fn family_and_number(id: &str) -> (&str, u32) {
    let (family, number) = id.rsplit_once('-').expect("rule ids end in a number");
    (family, number.parse().expect("rule ids end in a number"))
}

fn is_built(id: &str) -> bool {
    let (family, number) = family_and_number(id);
    BUILT.iter().any(|(name, numbers)| *name == family && (numbers.is_empty() || numbers.contains(&number)))
}

fn excuse(id: &str) -> Option<&'static str> {
    EXCUSED.iter().find(|(excused, _)| *excused == id).map(|(_, reason)| *reason)
}

/// Collects the rules that the tests cite.
fn citations(sources: &[Source]) -> Citations {
    let mut citations = Citations::new();
    for source in sources {
        let rules = tree::rule_ids(&source.text);
        let is_rust = source.path.ends_with(".rs") && !rules.is_empty();
        let read = is_rust.then(|| (source.test_lines(), tree::functions(&source.text)));
        for (line, id) in rules {
            let test = match &read {
                Some((tests, functions)) => test_at(source, tests, functions, line),
                None => Some(String::new()),
            };
            if let Some(test) = test {
                citations.entry(id).or_default().insert((source.path.clone(), test));
            }
        }
    }
    citations
}

/// Name of the function that a line of a test belongs to: the innermost that encloses it, else the next one.
fn test_at(source: &Source, tests: &[(usize, usize)], functions: &[tree::Function], line: usize) -> Option<String> {
    let text = source.text.lines().nth(line - 1).unwrap_or_default().trim_start();
    if text.starts_with("//!") {
        return None; // It introduces the file and shows nothing yet.
    }
    if !tests.iter().any(|&(first, last)| first <= line && line <= last) {
        return None;
    }
    let encloses = |f: &&tree::Function| f.first_line <= line && line <= f.last_line;
    let enclosing = functions.iter().filter(encloses).max_by_key(|f| f.first_line);
    let next = functions.iter().filter(|f| f.first_line > line).min_by_key(|f| f.first_line);
    enclosing.or(next).map(|f| f.name.clone())
}

fn own_citations() -> Citations {
    let mut sources = tree::sources("src", &[".rs"]);
    sources.extend(tree::sources("loadgen", &[".rs"]));
    sources.extend(tree::sources("tests", &[".rs", ".js", ".mjs", ".cjs", ".ts", ".py"]));
    sources.retain(|source| !crate::is_checker(&source.path));
    citations(&sources)
}

/// The table as a document.
fn render(rules: &[String], citations: &Citations) -> String {
    let built = rules.iter().filter(|id| is_built(id)).count();
    let shown = rules.iter().filter(|id| is_built(id) && citations.contains_key(*id)).count();
    let mut out = format!(
        "# Which test shows which rule\n\n\
         Made by `{UPDATE_VARIABLE}=1 cargo test --test tidy the_table`; do not edit. The rules are those of\n\
         [pusher.md](pusher.md) and [relay.md](relay.md).\n\n\
         Of {} rules {built} are in scope; a test cites {shown} of them.\n\n\
         | rule | tests that cite it |\n| --- | --- |\n",
        rules.len()
    );
    for id in rules {
        let cell = match (citations.get(id), excuse(id)) {
            (Some(tests), _) => cell(tests),
            (None, Some(reason)) => reason.to_owned(),
            (None, None) if is_built(id) => "**none**".to_owned(),
            (None, None) => "later".to_owned(),
        };
        writeln!(out, "| {id} | {cell} |").expect("a string takes everything");
    }
    out
}

fn cell(tests: &BTreeSet<(String, String)>) -> String {
    let mut by_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (file, test) in tests {
        by_file.entry(file).or_default().push(test);
    }
    let files = by_file.iter().map(|(file, tests)| format!("{file} {}", tests.join(", ")).trim_end().to_owned());
    files.collect::<Vec<_>>().join("; ")
}

fn rules() -> Vec<String> {
    tree::defined_rules(&tree::specification())
}

/// Goal: the committed table is the one generated from the tests.
#[test]
fn the_table_is_current() {
    let table = render(&rules(), &own_citations());
    tree::assert_current(TABLE, &table, "cargo test --test tidy the_table");
}

/// Goal: every rule in scope is cited by a test or excused with a reason.
#[test]
fn every_rule_in_scope_is_shown() {
    let citations = own_citations();
    let missing: Vec<_> =
        rules().into_iter().filter(|id| is_built(id) && excuse(id).is_none() && !citations.contains_key(id)).collect();
    println!("{} rules in scope without a test: {}", missing.len(), missing.join(", "));
    assert!(missing.is_empty(), "no test cites {}", missing.join(", "));
}

/// Goal: the lists above name only rules that exist, so that a slip in them cannot hide a rule.
#[test]
fn the_lists_name_rules_that_exist() {
    let rules = rules();
    for (family, numbers) in BUILT {
        let exists = |number: &u32| rules.contains(&format!("{family}-{number}"));
        assert!(numbers.iter().all(exists) && exists(&1), "{family} {numbers:?}");
    }
    for (id, reason) in EXCUSED {
        assert!(rules.iter().any(|rule| rule == id), "{id} does not exist");
        assert!(is_built(id), "{id} is not in scope and needs no excuse: {reason}");
    }
}

/// Goal: a citation is found in place, attributed to the right test, and ignored outside of tests.
#[test]
fn citations_are_found_and_attributed() {
    let unit = "//! P-IN-9\n/// P-IN-1\nfn shipped() {\n    // P-IN-2\n}\n// P-IN-2\n#[cfg(test)]\nmod tests {\n    /// P-IN-3: goal\n    \
                #[test]\n    fn first() {\n        check(\"P-IN-4\");\n    }\n    // P-IN-3\n    fn second() {}\n}\n";
    let whole = "/// P-IN-5\n#[test]\nfn third() {}\n";
    let found = citations(&[
        Source::sample("src/wire/a.rs", unit),
        Source::sample("tests/b.rs", whole),
        Source::sample("tests/sdk/c.mjs", "// P-IN-6\n"),
    ]);
    let tests = |id: &str| found.get(id).map(cell);
    assert_eq!(tests("P-IN-1"), None);
    assert_eq!(tests("P-IN-2"), None);
    assert_eq!(tests("P-IN-3").as_deref(), Some("src/wire/a.rs first, second"));
    assert_eq!(tests("P-IN-4").as_deref(), Some("src/wire/a.rs first"));
    assert_eq!(tests("P-IN-5").as_deref(), Some("tests/b.rs third"));
    assert_eq!(tests("P-IN-6").as_deref(), Some("tests/sdk/c.mjs"));
    assert_eq!(tests("P-IN-9"), None);
}
