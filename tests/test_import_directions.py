"""Imports go one way. Files that are not written yet are fine; a module that is not on the map must close no circle.

The design's arrows themselves (a model knows no tokenizer, an engine neither), and what must work without torch.
"""

import ast
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import llm_core

ROOT = Path(__file__).resolve().parents[1]

# A module may import what reaches it along these arrows. First the design's own, then what building it added.
ARROWS = """
config > presets cache_layout
presets cache_layout > accounting
config cache_layout > norms positions cache
norms positions cache > attention feed_forward moe
attention feed_forward moe > block
block > mtp
mtp > model
model > generation quantization
attention generation model moe positions > trace
model sampling > drafts
drafts generation > speculative
speculative > acceptance
acceptance > training
model mtp quantization > checkpoint
checkpoint > pretrained training
tokenizer > data
data > token_files
data token_files balancing > training
accounting > plots
presets validation > as_python
attention model validation > low_rank
accounting > ladder
ladder > plots
low_rank accounting data generation pretrained > shrinking

validation > config tokenizer sampling quantization data
config > quantization hf_config
hf_config accounting > checkpoint
feed_forward > moe
moe validation > balancing
sampling > generation
bpe presets > tokenizer
tokenizer > pretrained checkpoint
accounting generation pretrained > training
accounting pretrained > grid
positions > turning
pretrained training > past_context
data generation moe quantization training > few_bits
programs > checkpoint pretrained training token_files
hub > pretrained token_files
"""
ON_TOP = {"checks", "mistakes"}  # may import all others
TORCH_FREE = ("validation", "config", "hf_config", "presets", "cache_layout", "accounting", "ladder")

# Who may import these; everybody else may not, not even inside a function.
ONLY = {
    "gradio": ("apps/", "tests/apps/"),  # the tests look at the very objects that the pages are made of
    "plotly": ("llm_core/plots/", "course/", "tests/"),  # a lesson may draw what only it needs, a test look into it
    "transformers": ("tests/parity/", "tests/benchmarks/"),
    "apps": ("apps/", "tests/apps/"),  # the browser tests have to start the site that they look at
    "course": ("course/",),
    "tests": ("tests/",),
}


def may_import() -> dict[str, set[str]]:
    """module -> all modules that reach it along the arrows."""
    direct: dict[str, set[str]] = {}
    for line in filter(None, ARROWS.splitlines()):
        sources, targets = (side.split() for side in line.split(" > "))
        for module in sources + targets:
            direct.setdefault(module, set())
        for target in targets:
            direct[target] |= set(sources)
    order = list(TopologicalSorter(direct).static_order())  # raises if the map itself runs in a circle
    reach: dict[str, set[str]] = {}
    for module in order:
        reach[module] = direct[module].union(*(reach[source] for source in direct[module]))
    return reach


def imported(tree: ast.AST, package: list[str], inside_functions: bool = True) -> set[str]:
    """Dotted names that code imports. package: where the code lives, for relative imports."""
    names, waiting = set(), [tree]
    while waiting:
        node = waiting.pop()
        if not inside_functions and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join(base + ([node.module] if node.module else []))
            names |= {f"{base}.{alias.name}" for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return names


def module_of(name: str) -> str | None:
    """llm_core's module behind a dotted name: "llm_core.cache.Cache" -> "cache", "llm_core.stream" -> "generation"."""
    head, _, rest = name.partition(".")
    if head != "llm_core" or not rest:
        return None
    home = llm_core._HOME.get(rest)
    return (home.partition(".")[2] if home else rest).split(".")[0]


def edges(folder: Path) -> dict[str, set[str]]:
    """module -> modules of llm_core that it imports when it is itself imported."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        module = parts[0].removesuffix(".py")
        if module == "__init__":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        targets = {module_of(name) for name in imported(tree, ["llm_core", *parts[:-1]], inside_functions=False)}
        found.setdefault(module, set()).update(targets - {None, module})
    return found


def against_the_arrows(found: dict[str, set[str]]) -> list[str]:
    allowed = may_import()
    return sorted(f"{module} imports {other}" for module, others in found.items() if module in allowed
                  for other in others if other in allowed.keys() | ON_TOP and other not in allowed[module])


def code_of(path: Path) -> ast.AST:
    """The syntax tree of a file or of a notebook's code cells, their magic lines left out."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        text = "\n".join(line for line in "\n".join(cells).splitlines() if not line.lstrip().startswith(("%", "!")))
    return ast.parse(text, filename=path.name)


def forbidden(path: str, names: set[str]) -> list[str]:
    return sorted(f"{path} imports {top}" for top in {name.partition(".")[0] for name in names} & ONLY.keys()
                  if not path.startswith(ONLY[top]))


def test_llm_core_follows_the_arrows():
    assert against_the_arrows(edges(ROOT / "llm_core")) == []


def test_llm_core_has_no_circle():
    try:
        TopologicalSorter(edges(ROOT / "llm_core")).prepare()
    except CycleError as problem:
        pytest.fail(f"imports run in a circle: {' -> '.join(problem.args[1])}")


def test_packages_are_imported_only_where_they_may_be():
    paths = [path for top in ("llm_core", "apps", "course", "tests") for end in ("py", "ipynb")
             for path in (ROOT / top).rglob(f"*.{end}") if ".ipynb_checkpoints" not in path.parts]
    assert paths
    wrong = []
    for path in paths:
        place = path.relative_to(ROOT)
        wrong += forbidden(place.as_posix(), imported(code_of(path), list(place.parts[:-1])))
    assert wrong == []


def test_what_counts_needs_nothing_but_python():
    wrong = []
    for module in TORCH_FREE:
        paths = [ROOT / "llm_core" / f"{module}.py", *(ROOT / "llm_core" / module).rglob("*.py")]
        for path in filter(Path.exists, paths):
            for name in imported(code_of(path), list(path.relative_to(ROOT).parts[:-1])):
                if name.split(".")[0] not in sys.stdlib_module_names and module_of(name) not in TORCH_FREE:
                    wrong.append(f"{path.name} imports {name}")
    assert wrong == []


def test_accounting_works_where_there_is_no_torch():
    code = """if True:
        import sys
        for name in ("torch", "numpy", "plotly", "gradio", "transformers", "tiktoken", "safetensors"):
            sys.modules[name] = None  # importing it now raises ImportError
        from llm_core import ModelConfig, accounting, cache_layout, config, presets
        for name in presets.names():
            accounting.count_parameters(presets.get(name))
        v3 = ModelConfig.preset("deepseek-v3")
        accounting.decode_bound(v3, accounting.HARDWARE["h100"])
        print(accounting.count_parameters(v3).total, accounting.cache_bytes_per_token(v3))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stderr == "" and done.stdout.split() == ["671026404352", "70272"]


# The checks above must be able to fail

def test_a_wrong_direction_is_seen(tmp_path):
    (tmp_path / "attention").mkdir()
    (tmp_path / "attention" / "latent.py").write_text("from ..model import LanguageModel\nfrom ..cache import Cache\n")
    (tmp_path / "cache.py").write_text("import llm_core.cache_layout\n\ndef f():\n    from llm_core import model\n")
    (tmp_path / "model.py").write_text("try:\n    from llm_core import tokenizer, generate, checks\nexcept: pass\n")
    (tmp_path / "brand_new.py").write_text("from llm_core.model import LanguageModel\n")  # not on the map: free
    found = edges(tmp_path)
    assert found["cache"] == {"cache_layout"}  # the import inside the function is made when it is called
    assert against_the_arrows(found) == ["attention imports model", "model imports checks", "model imports generation",
                                         "model imports tokenizer"]


@pytest.mark.parametrize(("place", "line", "wrong"), [
    ("llm_core/moe.py", "import plotly.graph_objects as go", True),
    ("llm_core/plots/stage.py", "import plotly.graph_objects as go", False),
    ("apps/kv_cache.py", "import plotly", True),
    ("apps/kv_cache.py", "import gradio as gr", False),
    ("llm_core/plots/stage.py", "def f():\n    import gradio", True),
    ("tests/test_moe.py", "from transformers import AutoModel", True),
    ("tests/parity/test_gpt2.py", "from transformers import AutoModel", False),
    ("course/01/lesson.ipynb", "from apps import site", True),
    ("apps/site.py", "from tests.tiny_configs import CONFIGS", True),
    ("tests/test_moe.py", "import apps.kv_cache", True)])
def test_a_package_in_the_wrong_place_is_seen(place, line, wrong):
    assert bool(forbidden(place, imported(ast.parse(line), place.split("/")[:-1]))) is wrong
