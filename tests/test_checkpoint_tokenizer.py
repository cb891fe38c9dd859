"""tokenizer.json in and out, and load_pretrained on others' folders and the hub's names (never over a network)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_core import load_pretrained, pretrained, tokenizer
from llm_core.bpe import train_bpe
from llm_core.checkpoint.hf_folder import save_hf
from llm_core.checkpoint.tokenizer_json import pairs, read_tokenizer, write_tokenizer
from llm_core.tokenizer import SMOLLM_PATTERN, Tokenizer
from tests.tiny_configs import CONFIGS, build

TEXT = "ROMEO: it's naïve, 日本 in 1984\n\n  a\tb <|endoftext|>"


@pytest.fixture
def folder(tmp_path):
    write_tokenizer(tokenizer.get("course"), tmp_path / "tokenizer.json", 256)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 2047}))
    return tmp_path


def edit(folder, change):
    path = folder / "tokenizer.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


@pytest.mark.parametrize("name", ["course", "gpt2"])
def test_what_is_written_is_read_back(tmp_path, name):
    ours = tokenizer.get(name)
    write_tokenizer(ours, tmp_path / "tokenizer.json", 256)
    (tmp_path / "config.json").write_text("{}")
    read = read_tokenizer(tmp_path)
    assert (read.ranks, read.end_of_text, read.vocab_size) == (ours.ranks, ours.end_of_text, ours.vocab_size)
    assert read.encode(TEXT) == ours.encode(TEXT)


def test_digits_cut_off_first_are_smollms_pattern(tmp_path):
    ours = Tokenizer("digits", {bytes([i]): i for i in range(256)} | {b"19": 256, b" a": 257}, pattern=SMOLLM_PATTERN)
    write_tokenizer(ours, tmp_path / "tokenizer.json", 8)
    (tmp_path / "config.json").write_text("{}")
    assert "Digits" in (tmp_path / "tokenizer.json").read_text()
    assert read_tokenizer(tmp_path).encode("19 a") == ours.encode("19 a") == [49, 57, 257]


def test_every_merge_makes_its_token_of_older_ones():
    ranks = tokenizer.get("course").ranks
    for token, rank in ranks.items():
        made_of = pairs(token, ranks)
        assert bool(made_of) == (len(token) > 1)
        assert all(a + b == token and ranks[a] < rank and ranks[b] < rank for a, b in made_of)
    assert pairs(b"abc", {b"a": 0, b"b": 1, b"c": 2, b"ab": 3, b"abc": 4, b"bc": 5}) == [(b"ab", b"c")]


def test_ids_do_not_depend_on_the_merges_spelling(folder):
    edit(folder, lambda t: t["model"].update(merges=[" ".join(pair) for pair in t["model"]["merges"]]))  # as of old
    assert read_tokenizer(folder).ranks == tokenizer.get("course").ranks


def test_what_ends_a_text(folder):
    for eos, end in ((2047, 2047), ([2047, 5], 2047), (None, 2047), (5, 2047), ("x", 2047)):
        (folder / "config.json").write_text(json.dumps({"eos_token_id": eos}))
        assert read_tokenizer(folder).end_of_text == end
    edit(folder, lambda t: t["added_tokens"][0].update(content="</s>"))
    assert read_tokenizer(folder).end_of_text is None
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 2047}))
    assert read_tokenizer(folder).end_of_text == 2047


def move_ids(about):
    vocab, (a, b) = about["model"]["vocab"], ("Ġt", "he")
    vocab[a], vocab[b] = vocab[b], vocab[a]


def forget_a_merge(about):
    about["model"]["merges"] = [pair for pair in about["model"]["merges"] if "".join(pair) != "Ġthe"]


@pytest.mark.parametrize("change", [
    lambda t: t["pre_tokenizer"].update(add_prefix_space=True),
    lambda t: t["pre_tokenizer"].update(use_regex=False),
    lambda t: t.update(pre_tokenizer={"type": "Metaspace"}), lambda t: t.update(pre_tokenizer=None),
    lambda t: t.update(normalizer={"type": "NFC"}), lambda t: t["model"].update(type="Unigram"),
    lambda t: t["model"].update(byte_fallback=True), lambda t: t["model"].update(ignore_merges=True),
    forget_a_merge, move_ids, lambda t: t["model"]["merges"].reverse(),
    lambda t: t["added_tokens"][0].update(id=2050), lambda t: t["added_tokens"].clear() or t["model"]["vocab"].pop("!"),
    lambda t: t["model"]["vocab"].update({"日": 2048})])
def test_other_kinds_of_tokenizers_are_none(folder, change):
    edit(folder, change)
    assert read_tokenizer(folder) is None


def test_no_tokenizer_is_none_and_a_damaged_one_is_named(folder):
    path = folder / "tokenizer.json"
    for change in (lambda t: t.pop("model"), lambda t: t["model"].pop("vocab"), lambda t: t["model"].update(merges=3),
                   lambda t: t["model"]["merges"].append(["zz", "zz"]), lambda t: t.update(added_tokens=[7]),
                   lambda t: t.update(pre_tokenizer=[1])):
        whole = path.read_text()
        edit(folder, change)
        with pytest.raises(ValueError, match="tokenizer.json is damaged"):
            read_tokenizer(folder)
        path.write_text(whole)
    path.write_text("{")
    with pytest.raises(ValueError, match="tokenizer.json is not JSON"):
        read_tokenizer(folder)
    path.unlink()
    assert read_tokenizer(folder) is None


def test_a_pattern_that_cannot_be_written_is_refused(tmp_path):
    other = Tokenizer("words", {bytes([i]): i for i in range(256)}, pattern=r"\w+|\W")
    with pytest.raises(ValueError, match="cannot be written as tokenizer.json"):
        write_tokenizer(other, tmp_path / "tokenizer.json", 8)


@given(text=st.text("abcd \n", min_size=20, max_size=200), sample=st.text("abcd \n", max_size=40))
def test_any_learned_vocabulary_comes_back(tmp_path_factory, text, sample):
    folder = tmp_path_factory.mktemp("t")
    ours = Tokenizer("any", train_bpe(text, 280))
    write_tokenizer(ours, folder / "tokenizer.json", 8)
    (folder / "config.json").write_text("{}")
    assert read_tokenizer(folder).encode(sample) == ours.encode(sample)


# load_pretrained -----------------------------------------------------------------------------------------------------

def test_a_folder_in_hugging_faces_form(tmp_path):
    save_hf(build("GPT-2"), tmp_path / "mine")
    model, none = load_pretrained(tmp_path / "mine")
    assert model.config == CONFIGS["GPT-2"] and none is None
    model, course = load_pretrained("gpt-mini")
    save_hf(model, tmp_path / "mini", course)
    assert load_pretrained(str(tmp_path / "mini"))[1].encode(TEXT) == course.encode(TEXT)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """huggingface_hub's download, which never happens: it answers from a folder, or fails as it is told."""
    asked = []

    def snapshot_download(hub_id, allow_patterns, ignore_patterns, **_):
        asked.append((hub_id, allow_patterns, ignore_patterns))
        if isinstance(answer[0], Exception):
            raise answer[0]
        return str(answer[0])

    answer = [tmp_path / "snapshot"]
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked, answer


def test_a_hub_name_is_downloaded_without_pickles_or_code(hub):
    asked, (folder,) = hub
    save_hf(build("GPT-2"), folder)
    model, _ = load_pretrained("openai-community/gpt2")
    assert model.config == CONFIGS["GPT-2"]
    assert asked == [("openai-community/gpt2", ["*.safetensors", "*.json"], ["*/*", "consolidated*"])]


def test_a_folder_of_that_name_comes_first(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_hf(build("GPT-2"), tmp_path / "runs" / "mine")
    assert load_pretrained("runs/mine")[0].config == CONFIGS["GPT-2"] and hub[0] == []


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("proxy"), TimeoutError()])
def test_without_a_network_one_sentence_says_what_there_is(hub, error):
    hub[1][0] = error
    with pytest.raises(FileNotFoundError, match="openai-community/gpt2 could not be had: the hub cannot be reached, "
                       "and this model was not downloaded before .* there are gpt-mini, deepseek-mini, smollm2"):
        load_pretrained("openai-community/gpt2")


def test_the_real_client_offline(monkeypatch):
    """HF_HUB_OFFLINE is set for all tests: the client itself refuses, and its reason becomes the sentence."""
    with pytest.raises(FileNotFoundError, match="no-one-at-all/nothing could not be had"):
        load_pretrained("no-one-at-all/nothing")


@pytest.mark.parametrize("name", ["a/b/c", "../x", "/x", "a/../b", "https://x/y", "a b/c", "a/", "-/-", ".a/b"])
def test_what_is_no_hub_name_is_not_asked_for(hub, name):
    with pytest.raises((FileNotFoundError, ValueError)):
        load_pretrained(name)
    assert hub[0] == []


def test_names_stay_what_they_were():
    assert pretrained.names()[:3] == ["gpt-mini", "deepseek-mini", pretrained.SMOLLM2]
