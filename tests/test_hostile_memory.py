"""Small files that speak of giants: it is said before memory is taken, and soon. Tried in a process of its own."""

import json
import struct
import subprocess
import sys

import pytest

from llm_core.checkpoint.hf_folder import save_hf
from llm_core.checkpoint.safetensors_files import INDEX
from llm_core.pretrained.store import save_weights
from tests.hostile_folders import fill, save_small, tensors_file
from tests.small_folders import FILE
from tests.test_checkpoint import HEADER, TINY, write
from tests.test_hostile_gguf import F32, U8, array, start
from tests.tiny_configs import build

OPEN = """
import os, resource, signal, sys, time
import torch
from llm_core import load_pretrained
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
load_pretrained(sys.argv[1])  # whatever is loaded and set up at the first time
for place in sys.argv[2:]:
    child = os.fork()  # each in a process of its own, as a peak of memory never goes down
    if child:
        os.waitpid(child, 0)
        continue
    signal.alarm(60)  # and one that fails here ends, before it takes the machine's memory or the day
    room = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + 2 * 10**9
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    before, began = peak(), time.monotonic()
    try:
        load_pretrained(place)
        said = "it was opened"
    except BaseException as problem:
        good = isinstance(problem, (ValueError, FileNotFoundError))
        said = str(problem) if good else f"no sentence but {type(problem).__name__}"
    print(f"{place}\\t{peak() - before}\\t{time.monotonic() - began:.1f}\\t{said}", flush=True)
    os._exit(0)
"""
MOST_BYTES, MOST_SECONDS = 200e6, 30
MANY = 1_000_000
ZEROS = tensors_file({"model.norm.weight": {"dtype": "F32", "shape": [MANY], "data_offsets": [0, 4 * MANY]}},
                     bytes(4 * MANY))  # so many numbers that a hundred times as many are not a giant at once


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, tuple[int, float, str]]:
    """What came of opening each: the bytes that the peak of memory grew by, the seconds, and what was said."""
    root = tmp_path_factory.mktemp("giants")
    files = save_small(root / "small")
    small, v3 = json.loads(files["config.json"]), root / "v3"
    save_hf(build("DeepSeek-V3"), v3)
    v3 = {path.name: path.read_bytes() for path in v3.iterdir()}
    v3_config = json.loads(v3["config.json"])

    def place(name: str, base: dict = files, about: dict = small, **changes) -> None:
        fill(root / name, {**base, "config.json": json.dumps({**about, **changes}).encode()})

    for key in ("num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads",
                "num_key_value_heads", "head_dim", "max_position_embeddings"):
        place(f"10^9 {key}", **{key: 10**9})
    for key in ("num_nextn_predict_layers", "n_routed_experts", "first_k_dense_replace", "kv_lora_rank", "q_lora_rank",
                "n_shared_experts", "n_group", "num_experts_per_tok"):
        place(f"10^9 {key}", v3, v3_config, **{key: 10**9})
    # The same where the file does hold a tensor of the first layer behind the last.
    one = {"model.layers.3.enorm.weight": {"dtype": "F32", "shape": [32], "data_offsets": [0, 128]}}
    place("10^9 MTP modules, of which one is there", {**v3, FILE: tensors_file(one, bytes(128))}, v3_config,
          num_nextn_predict_layers=10**9)
    place("a million layers of next to nothing", {**files, FILE: ZEROS}, vocab_size=2, hidden_size=2,
          num_attention_heads=1, num_key_value_heads=1, head_dim=2, intermediate_size=1, num_hidden_layers=MANY)
    place("a million experts of next to nothing", {**v3, FILE: ZEROS}, v3_config, vocab_size=2, hidden_size=2,
          n_routed_experts=MANY, moe_intermediate_size=1, n_group=1, topk_group=1)
    # Lists that say how long they are.
    for n in (MANY // 3, MANY):
        entries = ", ".join(f'"{i}": "a.safetensors"' for i in range(n))
        fill(root / f"an index of {n}", {"config.json": files["config.json"],
                                         INDEX: f'{{"weight_map": {{{entries}}}}}'.encode()})
    for name, length in (("config.json", 3 * 10**8), (INDEX, 3 * 10**8), ("tokenizer.json", 3 * 10**8)):
        hole = fill(root / f"a {name} of 300 MB", files)
        if name == INDEX:
            (hole / FILE).unlink()
        with open(hole / name, "wb") as file:
            file.truncate(length)
    fill(root / "a header of 90 MB", {**files, FILE: tensors_file(b" " * 9_000, length=90_000_000)})
    # Ours.
    for key, value in (("n_layers", 10**9), ("vocab_size", 10**12), ("n_mtp_modules", 10**9)):
        save_weights(root / f"a card of {value} {key}" / "model.safetensors", {"": build("MHA")})
        card = {"config": {**build("MHA").config.to_dict(), key: value}}
        (root / f"a card of {value} {key}" / "card.json").write_text(json.dumps(card))
    # GGUF.
    for key, value in (("block_count", 2**32 - 1), ("block_count", 10**6), ("embedding_length", 2**30),
                       ("feed_forward_length", 2**31)):
        write(root / f"{value} {key}.gguf", build_tiny(), header={**HEADER, f"llama.{key}": value})
    (root / "a list of 2^60.gguf").write_bytes(start() + array(U8, 2**60, bytes(100)))
    (root / "a list of 50 million.gguf").write_bytes(start() + array(U8, 50_000_000, bytes(50_000_000)))
    (root / "lists of empty texts.gguf").write_bytes(start() + array(8, 2**62, bytes(30_000_000)))
    (root / "many keys.gguf").write_bytes(start(keys=2**62) + b"".join(
        struct.pack("<Q", 6) + f"{i:06}".encode() + struct.pack("<If", F32, 1.0) for i in range(400_000)))
    places = sorted(path for path in root.iterdir() if path.name not in ("small", "v3"))
    done = subprocess.run([sys.executable, "-c", OPEN, root / "small", *places], capture_output=True, text=True,
                          timeout=250, check=True)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    found = {place: (int(grown), float(seconds), text) for place, grown, seconds, text in lines}
    return {path.name: found.get(str(path), (0, 60.0, "no sentence, but an end")) for path in places}


def build_tiny():
    from llm_core import LanguageModel

    return LanguageModel(TINY)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory in Linux's units")
def test_giants_are_refused_in_a_sentence_before_they_take_memory_or_time(said):
    assert len(said) >= 30
    for place, (grown, seconds, text) in said.items():
        print(f"{place}: {grown / 1e6:.0f} MB, {seconds} s, {text[:150]}")
        assert grown < MOST_BYTES and seconds < MOST_SECONDS and len(text) < 1000, place
        assert not text.startswith("no sentence"), place
    opened = {place for place, (_, _, text) in said.items() if text == "it was opened"}
    # rope has no table of positions, and MTP modules may be left out of a file
    assert opened == {"10^9 max_position_embeddings", "10^9 num_nextn_predict_layers"}
