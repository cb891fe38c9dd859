"""What holds for the project as a whole: its files, notebooks, requirements, README and Makefile agree."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"llm_core", "apps"}
MIB = 2**20


@cache
def project_files() -> tuple[Path, ...]:
    """What is committed or would be. Where there is no git (an unpacked archive): everything but hidden folders."""
    try:
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not path.relative_to(ROOT).parts[0].startswith(".")]
    return tuple(sorted({path for path in paths if path.is_file()}))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_files(*folders: str) -> list[Path]:
    return [p for p in project_files() if p.suffix == ".py" and relative(p).split("/")[0] in folders]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def prints(code: str) -> bool:
    """Whether a cell calls print at its top level, so that it must have left an output."""
    try:
        statements = ast.parse(code).body
    except SyntaxError:  # a magic line
        return False
    return any(isinstance(s, ast.Expr) and isinstance(s.value, ast.Call) and getattr(s.value.func, "id", "") == "print"
               for s in statements)


def notebook_faults(notebook: dict) -> list[str]:
    """Why strict nbval would compare nothing in some cell of this notebook, or would compare a failed run."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and source(cell).strip()]
    faults = [] if cells else ["no code cell"]
    for number, cell in enumerate(cells, start=1):
        if cell["execution_count"] != number:
            faults.append(f"code cell {number} is counted {cell['execution_count']}")
        if any(output["output_type"] == "error" for output in cell["outputs"]):
            faults.append(f"code cell {number} ended with an error")
        if prints(source(cell)) and not cell["outputs"]:
            faults.append(f"code cell {number} prints, but no output is stored")
    if not any(cell["outputs"] for cell in cells):
        faults.append("no output is stored in any cell")
    return faults


NOTEBOOKS = [path for path in project_files() if path.suffix == ".ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_notebook_was_run_from_top_to_bottom_and_kept_its_outputs(path):
    faults = notebook_faults(json.loads(path.read_text(encoding="utf-8")))
    assert faults == [], "run all cells afresh, from top to bottom, and save"


def test_notebook_check_sees_stripped_and_disordered_notebooks():
    def cell(count, text, *outputs):
        return {"cell_type": "code", "execution_count": count, "source": text, "outputs": list(outputs)}

    shown = {"output_type": "stream", "name": "stdout", "text": "1\n"}
    good = [cell(1, "x = 1"), cell(2, "print(x)", shown)]
    assert notebook_faults({"cells": good}) == []
    assert notebook_faults({"cells": [cell(None, "x = 1"), cell(None, "print(x)")]})
    assert notebook_faults({"cells": [cell(1, "x = 1"), cell(3, "print(x)", shown)]})
    assert notebook_faults({"cells": [*good, cell(3, "print(x)")]})
    assert notebook_faults({"cells": [*good, cell(3, "1 / 0", {"output_type": "error"})]})


def test_python_files_stay_short():
    lengths = {relative(p): len(p.read_text(encoding="utf-8").splitlines()) for p in python_files(*OURS)}
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > 320} == {}


def test_shipped_weights_are_small():
    weights = [p for p in project_files() if p.suffix in {".safetensors", ".pt", ".pth", ".bin", ".npz", ".gguf"}]
    assert sum(p.stat().st_size for p in weights) < 20 * MIB


# A folder of somebody's machine: it would mean nothing on another one.
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:home|root|work|Users)/\w|\b[A-Za-z]:(?:\\+|/)Users\b")


@pytest.mark.parametrize("text", ["/" + "home/ada/x", '"/' + 'work/main"', "C:" + "\\Users\\ada", "C:" + "\\\\Users"])
def test_machine_paths_are_recognised(text):
    assert MACHINE_PATH.search(text)


def test_no_committed_text_holds_a_path_of_a_machine():
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not text
        found += [f"{relative(path)}: {match.group()}" for match in MACHINE_PATH.finditer(text)]
    assert found == []


def imports(path: Path):
    """The packages that a file imports, also inside its functions; its own package's relative imports left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def distribution_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_requirements_name_every_package_that_the_code_imports():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    named = {distribution_name(re.match(r"[\w.-]+", line).group()) for line in lines if line and line[0].isalnum()}
    provided_by = importlib.metadata.packages_distributions()
    missing = {}
    for path in python_files(*OURS):
        for module in set(imports(path)) - OURS - sys.stdlib_module_names:
            if named.isdisjoint(distribution_name(d) for d in provided_by.get(module, [module])):
                missing.setdefault(module, []).append(relative(path))
    assert missing == {}


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def readme_tree() -> dict[str, str]:
    """Path -> description, from the indented tree in the README: a line a file, two spaces a level."""
    block = re.search(r"```text\n(.*?)```", readme(), re.DOTALL).group(1)
    tree, parents = {}, []
    for line in block.splitlines():
        indent, name, description = re.fullmatch(r"( *)(\S+)\s*(.*)", line).groups()
        parents = [*parents[: len(indent) // 2], name]
        tree["".join(parents)] = description
    return tree


def test_readme_tree_names_every_folder_and_module():
    names = [relative(path) for path in project_files()]
    folders = {name.split("/")[0] + "/" for name in names if "/" in name}
    modules = {name for name in names if re.fullmatch(r"llm_core/\w+\.py", name)}
    packages = {name.removesuffix("__init__.py") for name in names if re.fullmatch(r"llm_core/\w+/__init__.py", name)}
    assert sorted((folders | modules | packages) - readme_tree().keys() - {"llm_core/__init__.py"}) == []


def test_readme_tree_names_nothing_that_is_not_there():
    gone = [name for name, description in readme_tree().items()
            if not (ROOT / name).exists() and "(later)" not in description]
    assert gone == []


def test_readme_tree_says_one_thing_about_each_file():
    assert [name for name, description in readme_tree().items() if not description] == []


def test_make_targets_in_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    mentioned = set(re.findall(r"(?:^|`|\s{4})make ([a-z][a-z-]*)", readme(), re.MULTILINE))
    assert mentioned >= {"app", "test"}
    assert mentioned <= targets
