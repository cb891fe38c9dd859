"""Folders whose files were broken on purpose: each is the model that the files say, or a sentence, and soon.

Each property is tried on a few hundred folders in the ordinary tests; `make test-long` tries 20,000 (marked long).
Single faults that happen without anybody's purpose stand in test_checkpoint_hf_faults.py.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core import pretrained
from llm_core.checkpoint.hf_folder import load_hf
from llm_core.checkpoint.safetensors_files import INDEX
from tests.hostile_folders import CARELESS, broken, fill, opens_or_says, save_small, split, tensors_file
from tests.small_folders import FILE, shard

with tempfile.TemporaryDirectory() as place:
    FILES = save_small(Path(place) / "small")
HEADER, NUMBERS = split(FILES[FILE])
NORM = "model.norm.weight"  # 4 numbers in 16 bytes
PLACE = HEADER[NORM]["data_offsets"]
CONFIG = json.loads(FILES["config.json"])


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "sent", FILES)


def test_the_folder_itself_is_its_model(folder):
    assert opens_or_says(folder) is not None


# safetensors by hand -------------------------------------------------------------------------------------------------

def norm(**changes) -> bytes:
    return tensors_file({**HEADER, NORM: {**HEADER[NORM], **changes}}, NUMBERS)


GOOD = json.dumps(HEADER).encode()
FAULTS = {
    "a header of no length": tensors_file(GOOD, NUMBERS, 0),
    "a header of 2^63 bytes": tensors_file(GOOD, NUMBERS, 2**63),
    "a header of all the numbers there are": tensors_file(GOOD, NUMBERS, 2**64 - 1),
    "a header past the end": tensors_file(GOOD, NUMBERS, len(GOOD) + len(NUMBERS) + 1),
    "a header cut short": tensors_file(GOOD, NUMBERS, len(GOOD) - 1),
    "no JSON": tensors_file(b"{'norm': 1}", NUMBERS),
    "no object": tensors_file(b"[1, 2]", NUMBERS),
    "nothing": b"",
    "JSON without end": tensors_file(b'{"a":' * 100_000, NUMBERS),
    "lists without end": tensors_file(b"[" * 1_000_000, NUMBERS),
    "bytes that are no text": tensors_file(b'{"\xff": {}}', NUMBERS),
    "half a character": tensors_file({**HEADER, "\ud800": HEADER[NORM]}, NUMBERS),
    "a name that is there twice": tensors_file(GOOD[:-1] + b', "' + NORM.encode() + b'": ' + json.dumps(
        {**HEADER[NORM], "data_offsets": [0, 16]}).encode() + b"}", NUMBERS),
    "two tensors in one place": norm(data_offsets=[0, 16]),
    "a place that runs backwards": norm(data_offsets=PLACE[::-1]),
    "a place before the file": norm(data_offsets=[-16, 0]),
    "a place past the file": norm(data_offsets=[len(NUMBERS), len(NUMBERS) + 16]),
    "a place past all files": norm(data_offsets=[2**64 - 17, 2**64 - 1]),
    "a place beyond 64 bits": norm(data_offsets=[2**64, 2**64 + 16]),
    "a place of one number": norm(data_offsets=[PLACE[0]]),
    "a place in words": norm(data_offsets=["0", "16"]),
    "half a place": norm(data_offsets=[PLACE[0], PLACE[1] - 0.5]),
    "less than its shape": norm(shape=[5]),
    "more than its shape": norm(shape=[3]),
    "another type's size": norm(dtype="F64"),
    "a shape below zero": norm(shape=[-4]),
    "a shape beyond 2^64": norm(shape=[2**32, 2**32, 4]),
    "a shape that begins again at 4": norm(shape=[2**62 + 1, 4]),
    "a shape of none of it": norm(shape=[0]),
    "a shape in words": norm(shape="4"),
    "a shape of a million sides": norm(shape=[1] * 1_000_000 + [4]),
    "an unknown type": norm(dtype="F7"),
    "no type": norm(dtype=None),
    "bytes for numbers": norm(dtype="U8", shape=[16]),
    "a type that is not read": norm(dtype="BOOL", shape=[16]),
    "a gap": tensors_file({**HEADER, NORM: {**HEADER[NORM], "data_offsets": [PLACE[0] + 4, PLACE[1]], "shape": [3]}},
                          NUMBERS),
    "bytes that belong to nobody": tensors_file(HEADER, NUMBERS + b"\0" * 8),
    "another's description": tensors_file({**HEADER, "__metadata__": {"a": {"b": 1}}}, NUMBERS)}
NAMES = ["../../etc/passwd", "/etc/passwd", "\x1b[2J\x00\r\n", "a" * 100_000, "\u202eright to left",
         "model.layers.-1.x", "model.layers.99999999999999999999.mlp.up_proj.weight",
         "model.layers.{layer}.x", "", "__proto__"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_lies_is_named(folder, fault):
    (folder / FILE).write_bytes(FAULTS[fault])
    assert opens_or_says(folder) is None


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_name_of_a_tensor_is_only_a_name(folder, name):
    """More than the model has, or instead of one that it needs; in one file, and in an index."""
    end = len(NUMBERS)
    more = {**HEADER, name: {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}}
    renamed = {key if key != NORM else name: about for key, about in HEADER.items()}
    for file in (tensors_file(more, NUMBERS + b"\0" * 4), tensors_file(renamed, NUMBERS)):
        (folder / FILE).write_bytes(file)
        assert opens_or_says(folder) is None
    (folder / FILE).rename(folder / "a.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(renamed, "a.safetensors")}))
    assert opens_or_says(folder) is None
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys([*HEADER, name], "a.safetensors")}))
    assert opens_or_says(folder) is None


# Nothing outside the folder ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("file", ["../../x", "../a.safetensors", "/etc/passwd", "sub/../../a.safetensors", "a.gguf",
                                  "a.safetensors/../b.safetensors", "~/a.safetensors", "a" * 300 + ".safetensors",
                                  "\ud800.safetensors", "a\0.safetensors", "", ".", 7, None, ["a.safetensors"], {}])
def test_an_index_that_names_anything_else_is_refused(folder, file):
    weight_map = shard(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {**weight_map, NORM: file}}))
    assert opens_or_says(folder) is None


@pytest.mark.parametrize("name", ["config.json", FILE, "tokenizer.json", INDEX, "model-00001.safetensors"])
def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path, name):
    if name not in FILES:
        shard(folder)
    (tmp_path / "elsewhere").mkdir()
    (folder / name).rename(tmp_path / "elsewhere" / name)
    (folder / name).symlink_to(Path("..") / "elsewhere" / name)
    with pytest.raises(ValueError, match=f"sent/{name} is a link to a file outside its folder"):
        pretrained.load_pretrained(folder)
    (folder / name).unlink()
    (tmp_path / "elsewhere" / name).rename(folder / f"real-{name}")
    (folder / name).symlink_to(f"real-{name}")  # one that stays inside is
    assert opens_or_says(folder) is not None
    (tmp_path / "by-a-link").symlink_to(folder)  # and so is one to the folder itself
    assert opens_or_says(tmp_path / "by-a-link") is not None


@pytest.mark.parametrize("name", ["card.json", FILE])
def test_nor_where_training_wrote_the_folder(tmp_path, name):
    sent = shutil.copytree(pretrained.FOLDER / "gpt-mini", tmp_path / "sent")
    (tmp_path / "sent" / name).rename(tmp_path / name)
    (sent / name).symlink_to(tmp_path / name)
    with pytest.raises(ValueError, match=f"sent/{name} is a link to a file outside its folder"):
        pretrained.load_pretrained(sent)


def test_the_hubs_own_cache_is_made_of_links_and_is_read(tmp_path):
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "0123abc"
    blobs = fill(tmp_path / "models--owner--name" / "blobs", FILES)
    snapshot.mkdir(parents=True)
    for name in FILES:
        (snapshot / name).symlink_to(Path("..") / ".." / "blobs" / name)
    assert opens_or_says(snapshot) is not None
    shutil.move(blobs, tmp_path / "blobs")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(tmp_path / "blobs" / "config.json")
    with pytest.raises(ValueError, match="config.json is a link to a file outside its folder"):
        load_hf(snapshot)


@pytest.mark.parametrize("name", ["config.json", FILE, "tokenizer.json"])
def test_what_is_no_file_is_not_waited_for(folder, name):
    """A pipe never ends, a folder is no file, a link to itself leads nowhere, and /dev/zero has no end."""
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink(name, path), lambda path: os.symlink("/dev/zero", path)):
        (folder / name).unlink() if (folder / name).is_file() or (folder / name).is_symlink() else None
        make(folder / name)
        found = opens_or_says(folder)
        assert (found is None) == (name != "tokenizer.json")  # a folder need not have one
        (folder / name).rmdir() if (folder / name).is_dir() else (folder / name).unlink()


# Whatever is done to a good one --------------------------------------------------------------------------------------

def tried(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as place:
        opens_or_says(fill(Path(place) / "sent", files))


BROKEN = broken(FILES, ("config.json", FILE, "tokenizer.json"))
VALUES = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-2, 300), st.integers(), st.floats(), st.text(
    max_size=5), st.sampled_from([10**9, 2**31, 2**63, 2**64, PLACE, [4], "F32", "F16", "BF16", "I8"])), lambda inner:
    st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)), max_leaves=5)


@st.composite
def lying(draw) -> dict[str, bytes]:
    """Good JSON that says something else: of a tensor, of the model, or of the vocabulary."""
    file = draw(st.sampled_from([FILE, "config.json", "tokenizer.json"]))
    about = json.loads(GOOD if file == FILE else FILES[file])
    part = about
    while isinstance(part, dict) and part:
        key = draw(st.sampled_from(sorted(part)))
        if not isinstance(part[key], dict) or draw(st.integers(0, 4)) == 0:
            how = draw(st.integers(0, 5))
            if how == 0:
                del part[key]
            elif how == 1:
                part[draw(st.text(max_size=5))] = part[key]
            elif isinstance(part[key], list) and part[key] and how < 4:
                part[key][draw(st.integers(0, len(part[key]) - 1))] = draw(VALUES)
            else:
                part[key] = draw(VALUES)
            break
        part = part[key]
    text = json.dumps(about).encode("utf-8", "surrogatepass")
    return {**FILES, file: tensors_file(text, NUMBERS) if file == FILE else text}


@settings(max_examples=400, **CARELESS)
@given(st.one_of(BROKEN, lying()))
def test_any_broken_folder_is_its_model_or_a_sentence(files):
    tried(files)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=20_000, **CARELESS)
@given(st.one_of(BROKEN, lying()))
def test_any_broken_folder_is_its_model_or_a_sentence_for_long(files):
    tried(files)
