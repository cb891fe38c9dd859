"""Lessons keep to one form, and the glossary and the map of lessons name things that exist."""

import ast
import dataclasses
import importlib
import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from llm_core import checks, config, load_pretrained, presets
from llm_core.training.recipe import Recipe

COURSE = Path(__file__).resolve().parents[1] / "course"
LESSONS = sorted(COURSE.glob("*/*.ipynb"))
STEPS = ["Where we are", "Build it", "Check it", "Measure it", "Break it", "Exercises", "See it"]


def cells(path: Path, kind: str) -> list[str]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def prose(path: Path) -> str:
    return "\n\n".join(cells(path, "markdown"))


lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def test_there_are_lessons():
    assert LESSONS


@lesson
def test_a_lesson_says_first_how_to_get_llm_core(path):
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    assert first["cell_type"] == "markdown"
    said = " ".join("".join(first["source"]).split())
    for words in ("No module named 'llm_core'", "make lab", "pip install -e . --no-deps"):
        assert words in said


@lesson
def test_a_lesson_has_the_seven_steps_in_order(path):
    headings = re.findall(r"^## (\d)\. (.*)$", prose(path), re.MULTILINE)
    assert [int(number) for number, _ in headings] == list(range(1, 8))
    assert all(title.startswith(step) for (_, title), step in zip(headings, STEPS))


@lesson
def test_code_cells_are_short(path):
    assert [code.splitlines()[0] for code in cells(path, "code") if len(code.splitlines()) > 25] == []


@lesson
def test_a_lesson_runs_in_the_kernel_that_everyone_has(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"] == {
        "display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    assert {key for cell in notebook["cells"] for key in cell["metadata"]} <= {"tags"}  # no timings of the machine


def is_stub(code: str) -> bool:
    body = ast.parse(code).body
    return len(body) == 1 and isinstance(body[0], ast.FunctionDef) and ast.unparse(body[0].body[-1]) == "..."


@lesson
def test_exercises_have_stub_check_hint_and_solution(path):
    text, code = prose(path), cells(path, "code")
    titles = re.findall(r"^### Exercise (\d) \(★{1,3}, \d+ min\): \S", text, re.MULTILINE)
    assert [int(number) for number in titles] == list(range(1, len(titles) + 1)) and len(titles) >= 4
    called = [re.fullmatch(r"checks\.(\w+)\((\w+)\)", cell.strip()) for cell in code]
    called = [match for match in called if match]
    assert len(called) == len(titles)
    for match in called:
        name, argument = match.groups()
        stub = code[[cell.strip() for cell in code].index(match[0]) - 1]
        assert name == argument and name in checks.__all__ and is_stub(stub) and f"def {name}(" in stub
    for part in ("Hint", "Solution"):
        assert text.count(f"<summary>{part}</summary>") == len(titles)
    assert text.count("<details>") == text.count("</details>") == 2 * len(titles)


@lesson
def test_unsolved_exercises_say_so_in_the_stored_output(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code" and re.match(r"checks\.\w+\(", "".join(cell["source"])):
            assert ["".join(output["text"]) for output in cell["outputs"]] == ["not solved yet\n"]


@lesson
def test_links_to_the_app_are_well_formed(path):
    links = re.findall(r"\]\((https?://(?:127\.0\.0\.1|localhost)[^)\s]*)\)", prose(path))
    assert links
    for link in links:
        parts = urlsplit(link)
        assert (parts.scheme, parts.netloc) == ("http", "127.0.0.1:7860") and re.fullmatch(r"/[a-z][a-z-]*", parts.path)
        for name in parse_qs(parts.query, strict_parsing=True).get("preset", []):
            presets.get(name)  # ValueError if there is none
        if parts.path == "/journey":
            model, sentence, *places = (parse_qs(parts.query, strict_parsing=True).pop(name)[0] for name in (
                "model", "sentence", "token", "layer", "head"))
            token, layer, head = map(int, places)
            built, tokenizer = load_pretrained(model)
            assert 0 <= token < len(tokenizer.encode(sentence))
            assert 0 <= layer < built.config.n_layers and 0 <= head < built.config.attention.n_heads


@lesson
def test_sizes_that_nobody_published_are_marked_as_estimates(path):
    """A paragraph with GPT-4 in it says how its size is known, wherever it stands."""
    for paragraph in re.split(r"\n\n+", prose(path)):
        if "GPT-4" in paragraph:
            said = " ".join(paragraph.split())
            assert "estimate" in said and re.search(r"never published by (its|their) maker", said)


@lesson
def test_presets_named_in_a_lesson_exist(path):
    for name in re.findall(r'preset\("([^"]+)"\)', "\n".join(cells(path, "code"))):
        presets.get(name)


def exists(name: str) -> bool:
    """Whether a name of the glossary is a config field, or something under llm_core."""
    parts = [cls for cls in vars(config).values() if dataclasses.is_dataclass(cls)]
    if name in {field.name for cls in [*parts, Recipe] for field in dataclasses.fields(cls)}:
        return True
    path = name.split(".")
    for cut in range(len(path) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(["llm_core", *path[:cut]]))
        except ModuleNotFoundError:
            continue
        for part in path[cut:]:
            if dataclasses.is_dataclass(found) and part in {field.name for field in dataclasses.fields(found)}:
                return True
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_names_that_do_not_exist_are_noticed():
    assert exists("kv_lora_rank") and exists("accounting.Parameters.active") and exists("attention.causal.causal_mask")
    assert not exists("kv_rank") and not exists("accounting.Parameters.alive") and not exists("nowhere.causal_mask")


def glossary() -> list[list[str]]:
    """The glossary's rows: term, what it is, symbol, name in the code."""
    lines = (COURSE / "GLOSSARY.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if row[0] != "term" and not set("".join(row)) <= {"-"}]


def test_the_glossarys_names_exist_in_llm_core():
    rows = glossary()
    assert len(rows) > 40 and all(len(row) == 4 for row in rows)
    names = [re.fullmatch(r"`([\w.]+)`", row[3]) for row in rows]
    assert [row[0] for row, match in zip(rows, names) if not match] == []
    assert [match[1] for match in names if not exists(match[1])] == []
    assert len({row[0] for row in rows}) == len(rows)


def test_the_glossary_has_every_config_field_that_papers_have_a_symbol_for():
    named = {row[3].strip("`") for row in glossary()}
    assert named >= set("""
        d_model n_layers n_heads head_dim n_kv_heads kv_lora_rank q_lora_rank qk_nope_head_dim qk_rope_head_dim
        v_head_dim n_routed_experts n_experts_per_token n_shared_experts n_limited_groups routed_scaling_factor
        bias_update_speed vocab_size max_seq_len""".split())


def test_the_map_leads_from_each_lecture_to_sections_that_are_there():
    """Every lecture of the series has a row; a row with a lesson names sections of it, word for word."""
    text = (COURSE / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and ("watch?v=" in line or ".ipynb" in line)]
    assert len({match for row in rows for match in re.findall(r"watch\?v=([\w-]{11})", row)}) == 25
    for row in rows:
        lecture, where = row.strip("|").split("|")[:2]
        if where.strip() == "to come":
            continue
        path, = re.findall(r"\]\(([^)]+\.ipynb)\)", where)
        sections = re.findall(r"\*([^*]+)\*", where)
        assert sections, row
        headings = re.findall(r"^##+ (.*)$", prose(COURSE / path), re.MULTILINE)
        assert [section for section in sections if section not in headings] == [], row
        video = re.search(r"watch\?v=([\w-]{11})", lecture)
        assert video is None or video[1] in prose(COURSE / path)  # the lesson names its lecture too


def test_the_map_names_every_lesson_and_nothing_else():
    text = (COURSE / "README.md").read_text(encoding="utf-8")
    linked = {link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")}
    assert {link for link in linked if link.endswith(".ipynb")} == {p.relative_to(COURSE).as_posix() for p in LESSONS}
    assert [link for link in linked if not (COURSE / link).exists()] == []
    assert len(set(re.findall(r"youtube\.com/watch\?v=[\w-]{11}\)", text))) == 25  # two lessons may share a lecture
