"""A vocabulary as Hugging Face's tokenizer.json, in and out: byte-level BPE, cut into words as GPT-2 or SmolLM2 do.

Such a file lists tokens with their ids, and merges in their order. tiktoken, which runs ours, merges by id: the two are
one thing where the merged tokens' ids follow the merges' order, as in every vocabulary that was learned in one go.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_core.bpe import GPT2_PATTERN
from llm_core.hf_config import inside, read_json, read_object
from llm_core.tokenizer import END_OF_TEXT, SMOLLM_PATTERN, Tokenizer, bytes_by_letter
from llm_core.validation import plain

TOKENIZER_FILE, SETTINGS_FILE = "tokenizer.json", "tokenizer_config.json"
DIGITS = {"type": "Digits", "individual_digits": True}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
MOST_TOKENS = 2**21
MOST_FILE_BYTES = 64 * 2**20


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a folder, or None where it has none of the kind that can be run here.

    ValueError if the file is damaged. What ends a text is config.json's eos_token_id, where that is one of the special
    tokens, or else the token <|endoftext|>.
    """
    path = inside(folder, TOKENIZER_FILE)
    if not path.is_file():
        return None
    about, config = read_object(path, MOST_FILE_BYTES), read_json(folder)
    try:
        pattern = _pattern(about)
        if pattern is None:
            return None
        special = {token["content"]: token["id"] for token in about.get("added_tokens") or []}
        ranks = _ranks(about["model"], special)
        if ranks is None or not _ids_are_plain(ranks, special):
            return None
        eos = config.get("eos_token_id")
        eos = eos[0] if isinstance(eos, list) and eos else eos
        end = eos if type(eos) is int and eos in special.values() else special.get(END_OF_TEXT)
        return Tokenizer(folder.name or "folder", ranks, end, pattern=pattern, special=special)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        why = f"{type(error).__name__}: {plain(str(error))}"
        raise ValueError(f"{folder.name}/{TOKENIZER_FILE} is damaged ({why})") from None


def _pattern(about: dict[str, Any]) -> str | None:
    """How a text is cut into words, if that is GPT-2's way or SmolLM2's and nothing else is done to it."""
    model, steps = about["model"], about.get("pre_tokenizer") or {}
    plain = model.get("type", "BPE") == "BPE" and not about.get("normalizer") and not any(
        model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback",
                                   "ignore_merges"))
    steps = steps.get("pretokenizers", []) if steps.get("type") == "Sequence" else [steps]
    # trim_offsets tells where in the text a token was, not which token it is
    steps = [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]
    words = {key: value for key, value in BYTE_LEVEL.items() if key != "trim_offsets"}
    for step in steps[-1:]:
        step.setdefault("use_regex", True)
    if not plain or steps not in ([words], [DIGITS, words]):
        return None
    return GPT2_PATTERN if len(steps) == 1 else SMOLLM_PATTERN


def _ranks(model: dict[str, Any], special: dict[str, int]) -> dict[bytes, int] | None:
    """Each ordinary token's bytes and id; None if merging by ids would not be merging in the order of the merges."""
    byte_of, vocabulary = bytes_by_letter(), model["vocab"]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    if not isinstance(model["merges"], list) or not all(len(pair) == 2 and all(pair) for pair in merges):
        raise ValueError("merges must be a list, each of two tokens")
    ids = [vocabulary["".join(pair)] for pair in merges]
    merged = {"".join(pair) for pair in merges}
    ordinary = {token: id for token, id in vocabulary.items() if token not in special}
    whole = all(len(token) == 1 or token in merged for token in ordinary)
    spelled = all(letter in byte_of for token in ordinary for letter in token)
    if not whole or not spelled or any(a > b for a, b in zip(ids, ids[1:])):
        return None
    return {bytes(byte_of[letter] for letter in token): id for token, id in ordinary.items()}


def _ids_are_plain(ranks: dict[bytes, int], special: dict[str, int]) -> bool:
    """Whether the ids are 0, 1, 2 …, each of one token, as tiktoken and the model's embedding want them."""
    ids = [*ranks.values(), *special.values()]
    if len(ids) > MOST_TOKENS or not all(type(id) is int for id in ids) or not all(isinstance(t, str) for t in special):
        return False
    return sorted(ids) == list(range(len(ids)))


def write_tokenizer(tokenizer: Tokenizer, path: Path, context: int) -> None:
    """tokenizer.json, which transformers' PreTrainedTokenizerFast reads with equal ids, and its settings beside it.

    One thing differs there: a special token that somebody types becomes that token. Here it is ordinary text.
    """
    pattern, special = tokenizer.pattern, tokenizer.special
    if pattern not in (GPT2_PATTERN, SMOLLM_PATTERN):
        raise ValueError(f"{tokenizer!r} cuts texts in a way that cannot be written as {TOKENIZER_FILE}")
    letter_of = {byte: letter for letter, byte in bytes_by_letter().items()}

    def spelled(token: bytes) -> str:
        return "".join(letter_of[byte] for byte in token)

    ranks = sorted(tokenizer.ranks.items(), key=lambda item: item[1])
    added = [{"id": id, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for token, id in sorted(special.items(), key=lambda item: item[1])]
    steps = BYTE_LEVEL if pattern == GPT2_PATTERN else {
        "type": "Sequence", "pretokenizers": [DIGITS, BYTE_LEVEL]}
    about = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": steps, "post_processor": None, "decoder": BYTE_LEVEL,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {spelled(token): id for token, id in ranks},
                  "merges": [[spelled(a), spelled(b)] for token, _ in ranks for a, b in pairs(token, tokenizer.ranks)]}}
    path.write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context,
                                "clean_up_tokenization_spaces": False}
    names = {id: token for token, id in special.items()}
    if tokenizer.end_of_text in names:
        settings["bos_token"] = settings["eos_token"] = names[tokenizer.end_of_text]
    path.with_name(SETTINGS_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def pairs(token: bytes, ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merges that make a token: every way to put it together from two older ones, as merging by rank allows."""
    rank = ranks[token]
    older = [(token[:i], token[i:]) for i in range(1, len(token))]
    return [pair for pair in older if all(ranks.get(part, rank) < rank for part in pair)]
