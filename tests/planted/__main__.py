"""``python -m tests.planted [NAME…]``: put each planted bug into a copy of the tree and show what catches it, how soon.

Seconds are of CPU, all checkers asked until then included.

First every check runs on an unharmed copy: a check that fails there catches nothing. Exit code 1 when that happens, when a
bug is caught by nothing, or when too few are caught by the general checkers.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.planted.catalog import ROOT, Bug, load_bugs, plant
from tests.planted.detectors import DETECTORS, Detector, Finding, run

GENERAL_SHARE_MIN = 15 / 22  # of all bugs, by general checkers rather than by a test of that very thing


def findings_of(bug: Bug | None, detectors: Sequence[Detector], seeds: int) -> list[Finding]:
    """Show a bug to the general checkers until one catches it, then to the tests of single things."""
    folder = Path(tempfile.mkdtemp(prefix="stockade-planted-"))
    try:
        plant(bug, folder, ROOT)
        found: list[Finding] = []
        for detector in detectors:
            if bug is not None and detector.general and any(one.caught for one in found):
                continue
            found.append(run(detector, bug, folder, seeds))
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cell(findings: Sequence[Finding], *, general: bool, width: int = 400) -> str:
    """What the checkers of one kind said of a bug: the first that caught it, by which seed or test, after how much CPU."""
    names = {detector.name for detector in DETECTORS if detector.general == general}
    spent_s = 0.0
    for finding in findings:
        if finding.detector in names:
            spent_s += finding.seconds
            if finding.caught:
                name = f"{finding.detector}: " if general else ""
                said = name + finding.evidence
                return f"{spent_s:5.1f} s  {said if len(said) <= width else said[: width - 1] + '…'}"
    return f"{spent_s:5.1f} s  -" if spent_s else "not asked"


def show(bug: Bug, findings: Sequence[Finding], *, verbose: bool) -> None:
    print(f"\n{bug.name}")
    print(textwrap.indent(textwrap.fill(bug.story, 116), "    "))
    print(f"    general  {cell(findings, general=True)}")
    print(f"    single   {cell(findings, general=False)}", flush=True)
    for finding in findings if verbose else ():
        print(textwrap.indent(f"--- {finding.detector}\n{finding.output}", "    | "))


def total(table: Sequence[tuple[Bug, Sequence[Finding]]]) -> bool:
    """The table in short; True when all were caught and enough of them by general checkers."""
    rows = [("bug", "by a general checker", "by a test of single things")]
    rows += [
        (bug.name, cell(found, general=True, width=64), cell(found, general=False, width=110)) for bug, found in table
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    print()
    for row in rows:
        print(f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}")
    general = {detector.name for detector in DETECTORS if detector.general}
    caught = [bug for bug, findings in table if any(one.caught for one in findings)]
    generally = [bug for bug, findings in table if any(one.caught and one.detector in general for one in findings)]
    print(f"\n{len(table)} bugs, {len(caught)} caught, {len(generally)} of them by the general checkers")
    for bug, _ in table:
        if bug not in caught:
            print(f"NOT CAUGHT: {bug.name}")
    return len(caught) == len(table) and (len(table) < 2 or len(generally) >= GENERAL_SHARE_MIN * len(table))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("names", nargs="*", help="words that a bug's name holds; none: all bugs")
    parser.add_argument("--seeds", type=int, default=300, help="seeds a checker may take until it gives up")
    parser.add_argument("--jobs", type=int, default=2, help="bugs at the same time")
    parser.add_argument("--only", default="", help="a word that the detector's name holds")
    parser.add_argument("--list", action="store_true", help="show names and stories, run nothing")
    parser.add_argument("--no-baseline", action="store_true", help="do not run the checks on an unharmed copy first")
    parser.add_argument("--verbose", action="store_true", help="show what the checks printed")
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    bugs = [bug for bug in load_bugs() if not asked.names or any(word in bug.name for word in asked.names)]
    detectors = [detector for detector in DETECTORS if asked.only in detector.name]
    if not bugs or not detectors:
        print("no bug or no detector has such a name", file=sys.stderr)
        return 2
    if asked.list:
        for bug in bugs:
            print(f"{bug.name}\n{textwrap.indent(textwrap.fill(bug.story, 116), '    ')}")
        return 0
    if not asked.no_baseline:
        print("without a bug:")
        for finding in findings_of(None, detectors, asked.seeds):
            print(
                f"    {finding.detector}: {'FAILS: ' + finding.evidence if finding.caught else 'passes'} ({finding.seconds:.1f} s)",
                flush=True,
            )
            if finding.caught:
                print(finding.output)
                return 1
    found: dict[str, list[Finding]] = {}
    with ThreadPoolExecutor(asked.jobs) as pool:
        shown = {pool.submit(findings_of, bug, detectors, asked.seeds): bug for bug in bugs}
        for future in as_completed(shown):
            bug = shown[future]
            found[bug.name] = future.result()
            show(bug, found[bug.name], verbose=asked.verbose)
    table = [(bug, found[bug.name]) for bug in bugs]
    return 0 if total(table) else 1


if __name__ == "__main__":
    sys.exit(main())
