"""`python -m llm_core.checks`: a working copy of the lessons, what is solved in it, and what a teacher needs.

It reads notebooks and never runs them.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import llm_core
from llm_core import programs

with programs.starting():
    from llm_core.checks.workbook import class_table, copies, files, results, students
    from llm_core.checks.workbook.files import Trouble

PROGRAM = "python -m llm_core.checks"
EXAMPLES = f"""
for a learner:
  {PROGRAM} start                  the lessons, in the folder my-course
  {PROGRAM} status                 which exercises are solved there
for a teacher:
  {PROGRAM} student handout        the lessons without their solutions
  {PROGRAM} export submissions     class.csv: a row a learner, a column an exercise
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog=PROGRAM, epilog=EXAMPLES, allow_abbrev=False, description=(
        "A working copy of the lessons, what is solved in it, and what a teacher needs. It reads notebooks and never "
        "runs them."), formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, does: str, more: str) -> argparse.ArgumentParser:
        about = f"{does[0].upper()}{does[1:]}. {more}"
        one = commands.add_parser(name, help=does, allow_abbrev=False, description=about)
        one.add_argument("--course", type=Path, metavar="FOLDER",
                         help="where the lessons are; without it, beside the installed package")
        return one

    start = add("start", "copy the lessons to a folder of your own", (
        "Run it again after an update of the course: new lessons are added, and those that you did not change are "
        "refreshed. A file that you changed is never overwritten; if the course changed it too, the new one is put "
        "beside it as NAME.new.ipynb. To have a lesson as it was, rename yours and run this again."))
    start.add_argument("folder", type=Path, nargs="?", default=Path("my-course"), metavar="FOLDER",
                       help="the working folder; my-course if you name none")

    status = add("status", "list which exercises are solved", (
        "It reads what each check printed when it was last run, and says where a function was run again after its "
        "check. A change that was not run it cannot see: to be sure, restart the kernel, run all cells, save, and ask "
        "again."))
    status.add_argument("folder", type=Path, nargs="?", default=Path("my-course"), metavar="FOLDER",
                        help="the working folder; my-course if you name none")

    export = add("export", "write a class as a CSV table", (
        "A row a learner, named as the folder is; a column an exercise; the last row counts who solved it. Nobody's "
        "code is run. The table shows what the notebooks say, and a notebook can be edited by hand: it is no exam."))
    export.add_argument("folders", type=Path, nargs="+", metavar="FOLDER",
                        help="learners' folders, or a folder that holds learners' folders")
    export.add_argument("--out", type=Path, default=Path("class.csv"), metavar="FILE", help="the table; class.csv")
    export.add_argument("--semicolons", action="store_true",
                        help="between the columns, for spreadsheets of languages that write 1,5")

    student = add("student", "write the lessons without their folded solutions", (
        "Hints and stored outputs stay, and each lesson still runs from top to bottom. Run it again after an update, "
        "as with start: what was changed by hand is kept."))
    student.add_argument("folder", type=Path, metavar="FOLDER", help="where to write them")
    student.add_argument("--without-hints", action="store_true", help="leave the hints out too")
    return top


def find_course(told: Path | None) -> Path:
    """The folder of the lessons. Trouble if there is none."""
    course = (told or Path(llm_core.__file__).parents[1] / "course").resolve()
    if not any(course.glob("*/*.ipynb")):
        raise Trouble(f"there are no lessons in {course}. They come with the project's folder: install the course from "
                      "there with `python -m pip install -e . --no-deps`, or say with --course where they are")
    return course


def update(course: Path, folder: Path, made_by: str, change) -> None:
    """start and student."""
    target = folder.resolve()
    if target.is_relative_to(course) or course.is_relative_to(target):
        raise Trouble(f"{folder} is the course's own folder, or holds it; name a folder of its own, as my-course")
    if target.exists() and not target.is_dir():
        raise Trouble(f"{folder} is there already and is not a folder")
    for line in copies.copy(course, target, made_by, change):
        print(f"{line}.")


def show_status(course: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise Trouble(f"there is no folder {folder}. `{PROGRAM} start {_quoted(folder)}` makes it")
    lessons = results.lessons(course)
    states, remarks = results.results(folder, [e for lesson in lessons for e in lesson.exercises])
    for lesson in lessons:
        mine = [states[exercise.name] for exercise in lesson.exercises]
        solved = mine.count(results.SOLVED)
        print(f"{lesson.number} {lesson.title}: {solved} of {len(mine)} solved ({lesson.place})")
        for number, (exercise, state) in enumerate(zip(lesson.exercises, mine), 1):
            print(f"   {number}. {exercise.title} ({exercise.name}): {state}")
    solved = list(states.values()).count(results.SOLVED)
    print(f"In all, {solved} of {len(states)} exercises are solved.")
    if results.CHANGED in states.values():
        print("Where something was changed since it was run: restart the kernel, run all cells, and save.")
    for remark in remarks:
        print(files.plain(f"Note: {remark}."))


def export(course: Path, folders: list[Path], out: Path, separator: str) -> None:
    lessons = results.lessons(course)
    people = class_table.learners(folders, lessons)
    table = class_table.rows(people, lessons)
    class_table.save(table, out, separator)
    for row in table[1:-1]:
        if row[-1]:
            print(files.plain(f"Note: {row[0]}: {row[-1]}."))
    print(f"{out} has {len(people)} {'learner' if len(people) == 1 else 'learners'} "
          f"and {len(table[0]) - 4} exercises; {table[-1][1]} of {table[-1][2]} are solved.")


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)


def _stop(why: str) -> int:
    print(files.plain(f"{PROGRAM}: {why}."), file=sys.stderr)
    return 2


def _no_more_output() -> None:
    """What could not be printed would be tried again at the end, with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):  # a name that the console cannot show must not stop anything
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    told = parser().parse_args(arguments)
    try:
        course = find_course(told.course)
        if told.command == "start":
            update(course, told.folder, "start", lambda data, name: data)
            print(f"Open your lessons with: python -m jupyter lab --ServerApp.root_dir={_quoted(told.folder)}")
        elif told.command == "status":
            show_status(course, told.folder)
        elif told.command == "export":
            export(course, told.folders, told.out, ";" if told.semicolons else ",")
        else:
            made_by = "student --without-hints" if told.without_hints else "student"
            update(course, told.folder, made_by, partial(students.without_solutions, hints=not told.without_hints))
        sys.stdout.flush()
    except Trouble as problem:
        return _stop(str(problem))
    except BrokenPipeError:  # `… status | head` has seen enough
        _no_more_output()
    except OSError as problem:
        _no_more_output()
        return _stop(f"{problem.filename or 'the output'} cannot be used ({programs.reason(problem)})")
    except KeyboardInterrupt:
        print("Stopped. What was written is whole; run it again to go on.", file=sys.stderr)
        return programs.STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
