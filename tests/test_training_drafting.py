"""MTP modules trained alone: they come to say what their model says, and the model itself stays bit for bit."""

import dataclasses
import json

import pytest
import torch

from llm_core import generate, load_pretrained, pretrained
from llm_core.acceptance import mtp_acceptance
from llm_core.training.__main__ import main as train_main
from llm_core.training.drafting import RECIPE, TOLD, disagreement, main, teach
from tests.test_mtp import build
from tests.tiny_configs import some_ids

TINY = dataclasses.replace(RECIPE, steps=60, batch_size=4, context=24, learning_rate=5e-3, warmup_steps=5)


@pytest.mark.parametrize("modules", [1, 2])
def test_it_is_the_cross_entropy_of_places_that_know_the_same(modules):
    """Against sums place by place, in the order that the lesson on MTP writes down."""
    model, ids = build("DeepSeek-V3", modules), some_ids(2, 12)
    out = model(ids)
    says = out.logits.double().log_softmax(-1)
    total = 0.0
    for k, depth in enumerate(model.predict_ahead(out.hidden, ids), start=1):
        guess = depth.logits.double().log_softmax(-1)
        places = [-(says[b, i + k].exp() * guess[b, i]).sum() for b in range(2) for i in range(12 - k)]
        total += sum(places) / len(places) / modules
    assert disagreement(model, ids).item() == pytest.approx(total.item(), rel=1e-5)


@pytest.mark.parametrize("modules", [1, 2])
def test_only_the_modules_learn_and_they_learn_to_agree(modules):
    model, text = build("DeepSeek-V3", modules), some_ids(1, 600)[0]
    ids = some_ids(8, 24, seed=5)  # another text: it is the model that they learn, and not the text
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, steps = mtp_acceptance(model, ids), []
    teach(model, text, TINY, lambda step, loss: steps.append((step, loss)))
    after = model.state_dict()
    assert all(torch.equal(after[name], was) for name, was in before.items() if not name.startswith("mtp."))
    assert all(not torch.equal(p, before[f"mtp.{name}"]) for name, p in model.mtp.named_parameters())
    for a, b in zip(first, mtp_acceptance(model, ids), strict=True):
        assert b.expected > a.expected + 0.05
    assert [step for step, _ in steps] == list(range(1, 61)) and steps[-1][1] < steps[0][1]
    assert all(p.requires_grad for p in model.parameters()) and not model.training


def test_a_folder_is_made_anew_and_its_model_writes_what_it_wrote(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("The king is dead. Long live the king!\n" * 400)
    out, given = tmp_path / "mine", ["--data", str(tmp_path / "text.txt")]
    assert train_main(["--model", "deepseek-mini", *given, "--steps", "2", "--out", str(out)]) == 0
    before, course = load_pretrained(out)
    card = json.loads((out / "card.json").read_text())
    assert main([str(out), *given, "--steps", "20"]) == 0
    assert "before in" in capsys.readouterr().out
    after, _ = load_pretrained(out)
    ids = course.encode("The king")
    assert torch.equal(generate(before, ids, 20), generate(after, ids, 20))
    assert not torch.equal(before.mtp[0].eh_proj.weight, after.mtp[0].eh_proj.weight)
    now = json.loads((out / "card.json").read_text())
    assert {k: v for k, v in now.items() if k not in ("second_token", "drafting")} == {
        k: v for k, v in card.items() if k != "second_token"}
    assert now["drafting"]["before"] == card["second_token"]["MTP"] != now["second_token"]["MTP"]
    assert [row["step"] for row in now["drafting"]["curve"]] == [20] and now["drafting"]["recipe"]["steps"] == 20
    page = (out / "README.md").read_text()
    assert "says: 20 steps of" in page and "python -m llm_core.training.drafting" in page


def test_what_cannot_be_trained_so_is_a_sentence(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("The king is dead. Long live the king!\n" * 400)
    out, given = tmp_path / "mine", ["--data", str(tmp_path / "text.txt")]
    assert train_main(["--model", "gpt-mini", *given, "--steps", "1", "--out", str(out)]) == 0
    kept = (out / "model.safetensors").read_bytes()
    for arguments, sentence in (([str(out), *given], "no MTP modules"), ([str(tmp_path / "none")], "no trained model"),
                                ([str(out), "--steps", "0"], "steps must be"),
                                ([str(out), "--data", str(tmp_path / "none.txt")], "none.txt")):
        capsys.readouterr()
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert sentence in said and "Traceback" not in said, said
    assert (out / "model.safetensors").read_bytes() == kept


def test_the_shipped_module_was_made_by_this_recipe_and_gained():
    about = pretrained.card("deepseek-mini")
    made = about["drafting"]
    assert made["recipe"] == {name: getattr(RECIPE, name) for name in TOLD}
    assert [row["step"] for row in made["curve"]] == list(range(500, RECIPE.steps + 1, 500))
    assert about["second_token"]["MTP"]["greedy"] > made["before"]["greedy"] + 0.04
    assert about["second_token"]["MTP"]["expected"] > made["before"]["expected"] + 0.02
    assert abs(made["curve"][-1]["greedy"] - about["second_token"]["MTP"]["greedy"]) < 0.01  # what 16 bits changed
