"""The table of goals for people: in a terminal, as Markdown, and as the head of the HTML report."""

from __future__ import annotations

from html import escape
from pathlib import Path

from rich.markup import escape as escape_markup

from bench.goals.table import Goal, GoalTable, save_table
from bench.machine import is_busy
from bench.report import page, parts_of, table_html
from bench.results import ResultError
from bench.tables import BUSY, machine_line
from gateway.cli.showing import console, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- the table of goals: python -m bench goals --record -->", "<!-- end of the table -->"
COLUMNS = ("#", "work", "figure", "compared with", "value (least … greatest)", "goal", "")


def cells(goal: Goal) -> list[list[str]]:
    """A goal's rows; one that says why, for a goal that was not measured."""
    if not goal.rows:
        return [[str(goal.number), goal.work, "", "", "", "", goal.state]]
    rows = []
    for at, row in enumerate(goal.rows):
        several = len(goal.rows) > 1
        work = goal.work if not several else f"{goal.work}: {row.what}"
        said = "reached" if row.reached else "NOT REACHED"
        rows.append(
            [
                str(goal.number) if not at else "",
                work if not at else row.what,
                row.figure,
                row.comparison,
                row.value_text,
                row.wanted_text,
                said,
            ]
        )
    return rows


def notes(found: GoalTable) -> list[str]:
    """What must be said beside the table."""
    said = [f"{goal.number}: {goal.note}" for goal in found.goals if goal.note]
    said += [f"{goal.number}: {row.what}: {row.note}" for goal in found.goals for row in goal.rows if row.note]
    return said + [f"{figures.name}: {note}" for figures in found.figures for note in figures.notes]


def show_goals(found: GoalTable) -> None:
    """In a terminal."""
    out = console()
    out.print(escape_markup(machine_line(found.result)), highlight=False)
    if is_busy(found.result.machine):
        out.print(f"[bold red]{BUSY}[/]")
    table("performance goals", COLUMNS, [row for goal in found.goals for row in cells(goal)])
    for note in notes(found):
        out.print(escape_markup(note), highlight=False)
    out.print(found.summary)


def markdown(found: GoalTable) -> str:
    """For the documentation."""
    lines = [machine_line(found.result) + (f". **{BUSY}**" if is_busy(found.result.machine) else ""), ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for goal in found.goals:
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells(goal)]
    return "\n".join([*lines, "", f"{found.summary}.", *(f"* {note}" for note in notes(found))]) + "\n"


def record_goals(found: GoalTable, reports: Path) -> list[Path]:
    """Into the folder of reports, and into the documentation where its marks are."""
    paths = [reports / "goals.json", reports / "goals.html", PAGE]
    save_table(found, paths[0])
    write_goals_html(found, paths[1])
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ResultError(f"{PAGE} has no place for the table: {BEGIN} … {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{markdown(found)}{END}{after}", encoding="utf-8")
    return paths


def write_goals_html(found: GoalTable, path: Path) -> None:
    """One file: the table, then everything that was measured for it."""
    rows = [row for goal in found.goals for row in cells(goal)]
    head = "<h2>Performance goals</h2>" + table_html(COLUMNS, rows) + f"<p>{escape(found.summary)}.</p>"
    head += "".join(f'<p class="note">{escape(note)}</p>' for note in notes(found))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page("Stockade: performance goals", head + parts_of([found.result])), encoding="utf-8")
