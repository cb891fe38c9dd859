"""Files that somebody broke, for the tests: a small folder and its bytes, the ways to break them, and what may come of
opening one: the model that the files say, or a sentence."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck
from hypothesis import strategies as st

from llm_core import LanguageModel, accounting, load_pretrained
from llm_core.bpe import train_bpe
from llm_core.checkpoint.hf_folder import save_hf
from llm_core.checkpoint.names import links
from llm_core.config import FeedForwardConfig, GroupedAttentionConfig, ModelConfig, RopeConfig
from llm_core.tokenizer import Tokenizer
from tests.small_folders import FILE, wide

SMALL = ModelConfig(vocab_size=264, max_seq_len=16, d_model=4, n_layers=2, attention=GroupedAttentionConfig(2, 1),
                    feed_forward=FeedForwardConfig(6, "swiglu"), rope=RopeConfig(layout="halves"))
CARELESS = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
SECONDS = 20  # far more than any folder here takes, also on a machine that does other things


def save_small(folder: Path) -> dict[str, bytes]:
    """A small Llama with a tokenizer of its own as a folder in Hugging Face's form: the bytes of its files."""
    tokenizer = Tokenizer("small", train_bpe("to be or not to be, that is the question " * 9, 263), 263)
    save_hf(wide(SMALL), folder, tokenizer, torch.float32)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def tensors_file(header: dict | bytes, numbers: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file by hand. length: what it says of its header's length, if that is to be a lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    return (len(text) if length is None else length).to_bytes(8, "little") + text + numbers


def split(file: bytes) -> tuple[dict, bytes]:
    """A good safetensors file's header and numbers."""
    length = int.from_bytes(file[:8], "little")
    return json.loads(file[8:8 + length]), file[8 + length:]


@st.composite
def broken(draw, files: dict[str, bytes], names: tuple[str, ...]) -> dict[str, bytes]:
    """The files with one of them changed in a few places: bytes turned, cut out, put in, or a number replaced."""
    name = draw(st.sampled_from(names))
    content = bytearray(files[name])
    for _ in range(draw(st.integers(1, 3))):
        # Most of what can go wrong stands at the front of a file.
        at = draw(st.integers(0, min(len(content), draw(st.sampled_from([16, 600, 2000, len(content)])))))
        how = draw(st.integers(0, 5))
        if how == 0:
            content[at:at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif how == 1:
            del content[at:at + draw(st.integers(1, 40))]
        elif how == 2:
            content[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif how == 3:
            content[at:at + 8] = draw(st.integers(0, 2**64 - 1)).to_bytes(8, draw(st.sampled_from(["little", "big"])))
        elif how == 4:
            del content[at:]
        else:  # another number, where the next one stands
            digits = next((i for i in range(at, len(content)) if 48 <= content[i] < 58), len(content))
            end = next((i for i in range(digits, len(content)) if not 48 <= content[i] < 58), len(content))
            number = draw(st.one_of(st.integers(-2, 20), st.sampled_from([10**9, 2**63, 2**64, 10**30, 1e999, -0.5])))
            content[digits:end] = str(number).encode()
    return {**files, name: bytes(content)}


def opens_or_says(path: Path) -> LanguageModel | None:
    """What load_pretrained makes of a folder or file: a model that is what the files say, or a sentence, soon."""
    began = time.monotonic()
    try:
        model, tokenizer = load_pretrained(path)
    except (ValueError, FileNotFoundError) as problem:
        said = str(problem)
        assert 15 < len(said) <= 1000 and said.isprintable(), said[:300]
        assert str(path.parent) not in said  # where it is on this machine is nobody's business
        return None
    finally:
        assert time.monotonic() - began < SECONDS
    counted = accounting.count_parameters(model.config)
    assert sum(p.numel() for p in model.parameters()) == counted.total + counted.mtp
    if path.is_dir() and (path / FILE).is_file():
        assert_right(model, path)
    if tokenizer is not None:
        assert all(0 <= id < tokenizer.vocab_size for id in tokenizer.encode("to be, or what? 12"))
    return model


def assert_right(model: LanguageModel, folder: Path) -> None:
    """Every number of a model of F32 is the one that stands in the file at the place that its header says."""
    header, numbers = split((folder / FILE).read_bytes())
    weights, kind = model.state_dict(), json.loads((folder / "config.json").read_text("utf-8-sig"))["model_type"]
    for link in links(model.config, kind, weights):
        about = header[link.theirs]
        start, end = about["data_offsets"]
        dtype = {"F32": np.float32, "F16": np.float16}.get(about["dtype"])
        if dtype is not None:
            wanted = torch.from_numpy(np.frombuffer(numbers[start:end], dtype).astype(np.float32)).view(about["shape"])
            assert torch.equal(link.published(weights).nan_to_num(7.0), wanted.nan_to_num(7.0)), link.theirs
