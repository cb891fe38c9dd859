"""The code that a page offers for its config makes that very config: read back without running it."""

import ast

import pytest

from llm_core import config as parts
from llm_core import presets
from llm_core.as_python import as_python
from llm_core.config import LatentAttentionConfig, ModelConfig


def read(code: str) -> ModelConfig:
    """Follow the code's syntax tree by hand; only names that it imports may be used."""
    tree = ast.parse(code)
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}

    def value(node):
        if not isinstance(node, ast.Call):
            return ast.literal_eval(node)
        given = {k.arg: value(k.value) for k in node.keywords}
        if isinstance(node.func, ast.Name):
            assert node.func.id in imported
            return getattr(parts, node.func.id)(**given)
        assert isinstance(node.func, ast.Attribute)
        if node.func.attr == "preset":
            return ModelConfig.preset(ast.literal_eval(node.args[0]))
        assert node.func.attr == "replace"
        return value(node.func.value).replace(**given)

    [assigned] = [node for node in tree.body if isinstance(node, ast.Assign)]
    return value(assigned.value)


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_from_nothing_and_by_its_name(name):
    config = presets.get(name)
    assert read(as_python(config)) == config
    assert f'config = ModelConfig.preset("{name}")\n' in as_python(config, name)
    assert max(map(len, as_python(config).splitlines())) <= 120


@pytest.mark.parametrize("base", ["gpt2", "deepseek-v3", "mixtral-8x7b"])
def test_what_differs_from_a_preset(base):
    attention = LatentAttentionConfig(4, 64, 16, 0, 16)
    changed = presets.get(base).replace(n_layers=3, attention=attention, moe=None, rope=None)
    code = as_python(changed, base)
    assert read(code) == changed
    assert "vocab_size" not in code


def test_the_code_runs():
    namespace = {}
    exec(as_python(presets.get("deepseek-mini")), namespace)  # our own text, in a test
    assert namespace["config"] == presets.get("deepseek-mini")
