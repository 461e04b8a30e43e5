"""Rows that tests of the repository measure, with counts instead of times; and rows that cannot be measured."""

import os
import re
import subprocess

from rig import ROOT, TARGET, Options, row


def cargo(*arguments, **environment):
    """Runs a cargo command; its output, and whether it passed."""
    done = subprocess.run(
        ["cargo", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env={**os.environ, **environment},
    )
    return done.stdout, done.returncode == 0


def tests(*filters):
    """Runs tests by `SUITE FILTER...`; how many passed, and whether any failed."""
    passed, good, notes = 0, True, []
    for each in filters:
        suite, *names = each.split()
        output, whole = cargo("test", "--locked", *(["--test", suite] if suite != "lib" else ["--lib"]), "--", *names)
        count = sum(int(number) for number in re.findall(r"^test result: .*? (\d+) passed", output, re.M))
        passed, good = passed + count, good and whole and count > 0
        notes += re.findall(r"^(?:skipped|SKIPPED): .*$|^test .* FAILED$", output, re.M)
    return f"{passed} tests" + "".join(f"; {note}" for note in notes), good and not notes


@row("R1", "0 failed, 0 NON-STRICT")
def autobahn():
    return tests("conformance autobahn::")


@row("R10", "0 images corrupt, what was acknowledged is always a prefix")
def power_loss():
    return tests("reliability power_loss")


@row("R11", "delivery goes on, changes are refused with the cause, 0 acknowledged changes lost")
def full_disk():
    return tests("system store::a_full_disk_loses_nothing store::a_full_store_loses_nothing")


@row("R15", "documented code and text at each limit, one below and one above")
def limits():
    return tests("conformance limits:: request_auth::timestamp_window publish::data_limit publish::event_name_limit "
                 "messages::message_size_limit subscribe::channels_per_connection_limit presence::member_limit "
                 "presence::size_limits client_events::size_limits client_events::rate_limit")


@row("R17", "abs t < 4.5 in three runs of a million samples")
def timing():
    found = []
    for _ in range(Options.pick(3, 1)):
        output, good = cargo("bench", "--locked", "--bench", "timing")
        if not good:
            return output[-300:], False
        found.append({name.strip(): float(t) for name, t in re.findall(r"^(.+?) +t = +(\S+) after", output, re.M)})
    text = "; ".join(f"{name}: t = " + ", ".join(f"{run[name]:.2f}" for run in found) for name in found[0])
    return text, all(abs(t) < 4.5 for run in found for name, t in run.items() if not name.startswith("naive"))


@row("R20", "0 broken invariants in 100,000 seeds")
def simulation():
    seeds = Options.pick(100_000, 200)
    output, good = cargo("test", "--locked", "--release", "--test", "simulation", RELAY_SIM_SEEDS=str(seeds))
    failed = re.findall(r"^.*(?:seed \d+|panicked).*$", output, re.M)
    return f"{seeds} seeds" + "".join(f"; {line}" for line in failed[:3]), good


@row("R28", "licences, sources and bans hold")
def dependencies():
    """As .ci/run does. Advisories need the RustSec database, which is fetched: `cargo deny check advisories`."""
    folder = TARGET / "tools/deny"
    subprocess.run([ROOT / "tests/install", "deny", folder], check=True, capture_output=True)
    command = [folder / "bin/cargo-deny", "--offline", "check", "bans", "licenses", "sources"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[-1], done.returncode == 0


@row("R29", "0 connections to internal addresses, 0 scripts run")
def internal_addresses():
    text, good = tests(
        "lib webhook::", "conformance wandering_paths_are_404",
        "conformance webhooks::internal_addresses_need_leave connection::origins_are_checked_by_host",
    )
    return text + "; the dashboard is not built, so no script can run", good


@row("R8", "0 refused, 0 failed requests over 10 upgrades")
def hot_upgrade():
    return "cannot be measured here, because handing descriptors to a new process is not built: a new version drains", None
