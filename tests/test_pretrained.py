"""What ships: every file loads, its card is true, and a damaged file is named instead of half-loaded."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_core import accounting, data, generate, load_pretrained, presets, pretrained, tokenizer
from llm_core.config import ModelConfig
from llm_core.pretrained.store import load_weights, save_weights
from llm_core.training.card import PROMPTS, minis_table, sample
from llm_core.training.evaluate import bits_per_byte
from tests.tiny_configs import CONFIGS, build, some_ids

MINIS = presets.mini_names()


@pytest.mark.parametrize("name", [*MINIS, *presets.grid_names()])
def test_each_shipped_model_is_its_preset(name):
    model, course = load_pretrained(name)
    card = pretrained.card(name)
    assert model.config == presets.get(name) == ModelConfig.from_dict(card["config"])
    counts = accounting.count_parameters(model.config)
    assert (card["parameters"], card["active_parameters"]) == (counts.total, counts.active)
    assert sum(p.numel() for p in model.parameters()) == counts.total + counts.mtp
    assert course.vocab_size == model.config.vocab_size and not model.training


@pytest.mark.parametrize("name", [*MINIS, "tiny-mha-w24-l1", "tiny-mla-w96-l3"])
def test_card_figure_is_the_stored_files_own(name):
    """Measured again: small models on all windows, the minis on every twelfth, within what a part can say."""
    model, course = load_pretrained(name)
    card, corpus = pretrained.card(name), data.shakespeare()
    inputs, targets = data.windows(data.tokens(corpus, course)[1], card["recipe"]["context"])
    if name in MINIS:
        inputs, targets = inputs[::12], targets[::12]
        scored = targets[targets >= 0]
        n_bytes = len(b"".join(course.token_bytes(i) for i in scored.tolist() if i != course.end_of_text))
        assert bits_per_byte(model, inputs, targets, n_bytes) == pytest.approx(card["bits_per_byte"], abs=0.06)
    else:
        assert bits_per_byte(model, inputs, targets, data.held_out_bytes(corpus)) == pytest.approx(
            card["bits_per_byte"], abs=2e-3
        )


@pytest.mark.parametrize("name", MINIS)
def test_minis_hold_what_the_course_promises(name):
    card = pretrained.card(name)
    assert card["bits_per_byte"] < 1.75
    assert 2_000_000 <= card["parameters"] <= 4_000_000
    if presets.get(name).n_mtp_modules:
        ahead = card["second_token"]
        assert ahead["MTP"]["greedy"] > ahead["bigram table"]["greedy"] + 0.05
    assert card["epochs"] == pytest.approx(
        card["tokens_read"] / len(data.tokens(data.shakespeare(), tokenizer.get("course"))[0]), abs=0.01
    )
    text = (pretrained.FOLDER / name / "README.md").read_text(encoding="utf-8")
    assert str(card["bits_per_byte"]) in text and all(s in text for s in card["samples"])


@pytest.mark.parametrize("name", MINIS)
def test_samples_on_the_card_are_what_the_model_writes(name):
    """Drawn tokens may part after a while on another processor, so their first words are compared."""
    model, _ = load_pretrained(name)
    for prompt, shown in zip(PROMPTS, pretrained.card(name)["samples"], strict=True):
        written = sample(model, prompt)
        assert written.startswith(prompt) and written[: len(prompt) + 15] == shown[: len(prompt) + 15]


def test_trained_models_beat_untrained_ones_and_write_words():
    model, course = load_pretrained("deepseek-mini")
    ids = generate(model, course.encode("ROMEO:\n"), 60)[0].tolist()
    words = set(" ".join(data.shakespeare().train).lower().split())
    written = course.decode(ids).lower().split()
    assert sum(w in words for w in written) / len(written) > 0.9


def test_bigger_grid_models_predict_better():
    for kind in presets.GRID_ATTENTIONS:
        at = {
            (d, n): pretrained.card(presets.grid_name(d, n, kind))["bits_per_byte"]
            for d in presets.GRID_WIDTHS
            for n in presets.GRID_LAYERS
        }
        assert at[96, 3] < at[48, 3] < at[24, 3] and at[96, 3] < at[96, 1] < at[24, 1]


def test_cached_decoding_of_the_minis_equals_uncached():
    for name in MINIS:
        model, course = load_pretrained(name)
        ids = course.encode("A true friend accepts you")
        assert torch.equal(generate(model, ids, 60), generate(model, ids, 60, use_cache=False)), name


@pytest.fixture
def folder(tmp_path):
    model = build("DeepSeek-V3")
    save_weights(tmp_path / "model.safetensors", {"": model})
    (tmp_path / "card.json").write_text(json.dumps({"config": model.config.to_dict()}))
    pretrained._read_card.cache_clear()
    return tmp_path


def test_a_folder_of_ones_own_loads_without_a_tokenizer(folder):
    model, none = load_pretrained(folder)
    wanted = build("DeepSeek-V3").to(torch.bfloat16).float()
    wanted.load_state_dict({k: v for k, v in build("DeepSeek-V3").state_dict().items() if "bias" in k}, strict=False)
    assert none is None
    torch.testing.assert_close(model(some_ids()).logits, wanted(some_ids()).logits)


def test_many_models_share_a_file(tmp_path):
    save_weights(tmp_path / "m.safetensors", {"a": build("MHA"), "b": build("MLA")})
    a = load_weights(tmp_path / "m.safetensors", CONFIGS["MHA"], "a")
    torch.testing.assert_close(
        a.blocks[0].attention.q_proj.weight, build("MHA").blocks[0].attention.q_proj.weight, atol=2e-3, rtol=1e-2
    )


def test_damaged_weight_files_are_named(folder):
    path = folder / "model.safetensors"
    good = path.read_bytes()
    for size in (0, 4, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged or cut off"):
            load_pretrained(folder)
    path.write_bytes(b"\xff" * 8 + good[8:])  # a header that claims to be longer than the file
    with pytest.raises(ValueError, match="damaged"):
        load_pretrained(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("final_norm.weight"), "lacks 1 of .* tensors, first final_norm.weight"),
        (lambda t: t.update(extra=torch.zeros(1)), "holds 1 tensors that this model has no place for, first extra"),
        (
            lambda t: t.update({"final_norm.weight": torch.zeros(7)}),
            r"final_norm.weight has shape \[7\], the model needs \[32\]",
        ),
        (lambda t: t.update({"final_norm.weight": torch.zeros(32, dtype=torch.int32)}), "holds torch.int32"),
    ],
)
def test_files_that_do_not_fit_are_named_by_tensor_and_expectation(folder, change, says):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=says):
        load_pretrained(folder)


@pytest.mark.parametrize("text", ["", "not json", "[1]", "{}", '{"config": {"type": "Nothing"}}', '{"config": 3}'])
def test_a_bad_card_gets_a_sentence(folder, text):
    (folder / "card.json").write_text(text)
    with pytest.raises(ValueError):
        load_pretrained(folder)


def test_unknown_names_are_suggested():
    with pytest.raises(FileNotFoundError, match="nearest: gpt-mini"):
        load_pretrained("gpt-mimi")
    with pytest.raises(FileNotFoundError):
        load_pretrained("")


def test_shipped_folders_hold_nothing_else():
    for folder in (*MINIS, pretrained.GRID):
        assert sorted(p.name for p in (pretrained.FOLDER / folder).iterdir()) == [
            "README.md",
            "card.json",
            "model.safetensors",
        ]


def test_readme_shows_the_cards_figures():
    readme = (pretrained.FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- minis:start -->")[1].split("<!-- minis:end -->")[0]
    assert minis_table() in shown, "after training, put the table of `python -m llm_core.training.card` into README.md"
