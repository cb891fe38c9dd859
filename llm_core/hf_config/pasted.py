"""A config.json that somebody pastes or uploads: read as plain JSON, strictly, and told what of it was not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_core.config import ModelConfig
from llm_core.hf_config.files import parse
from llm_core.hf_config.keys import MOST, MOST_BYTES
from llm_core.hf_config.reading import read_hf
from llm_core.validation import plain, shown

TOO_DEEP = "this is nested far too deep for a config.json"

# Keys of published files that change neither what a model computes nor its sizes: training, writing, and the file.
HARMLESS = frozenset("""
    architectures auto_map torch_dtype dtype transformers_version _name_or_path name_or_path use_cache return_dict
    bos_token_id eos_token_id pad_token_id unk_token_id decoder_start_token_id vocab_file initializer_range
    attention_dropout attn_pdrop embd_pdrop resid_pdrop hidden_dropout gradient_checkpointing aux_loss_alpha seq_aux
    router_aux_loss_coef output_router_logits router_jitter_noise pretraining_tp ep_size n_ctx reorder_and_upcast_attn
    task_specific_params output_past max_window_layers sliding_window layer_types use_sliding_window rope_scaling.type
    rope_parameters.type output_attentions output_hidden_states use_flash_attn unsloth_version num_key_value_heads
    """.split())
HARMLESS_STARTS = ("summary_", "quantization_config", "_")


@dataclass(frozen=True)
class Pasted:
    """A config that was read, and the keys that were not; unknown are those of which we cannot say what they change."""

    config: ModelConfig
    harmless: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def remark(self) -> str:
        """What was not read, in plain words; "" if everything was."""
        out = ""
        if self.harmless:
            out += f"Not read, because they change no size: {_listed(self.harmless, 60)}. "
        if any(name.startswith("quantization_config") for name in self.harmless):
            out += "The file stores its weights in few bits; what is counted here are numbers, whatever their bits. "
        if self.unknown:
            out += ("Not known here, so if they add tensors, the count misses those: "
                    f"{_listed(self.unknown, 12)}. ")
        return out.strip()


def _listed(names: tuple[str, ...], most: int) -> str:
    return ", ".join(plain(name[:40]) for name in names[:most]) + (" …" if len(names) > most else "")


def read_pasted(text: str | bytes) -> Pasted:
    """What a pasted text describes: a config.json of a family that from_hf knows, or ModelConfig.to_dict() as JSON.

    ValueError with a sentence for a text that is too long, no strict JSON, or no config that can be expressed here.
    """
    data = parse_json(text)
    try:
        if data.get("type") == "ModelConfig":
            _refuse_giants(data)
            return Pasted(ModelConfig.from_dict(data), (), ())
        config, unread = read_hf(data)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    known: dict[bool, list[str]] = {True: [], False: []}
    for name in unread:
        known[name in HARMLESS or name.startswith(HARMLESS_STARTS)].append(name)
    return Pasted(config, tuple(known[True]), tuple(known[False]))


def parse_json(text: str | bytes) -> dict[str, Any]:
    """A JSON object. ValueError for more than MOST_BYTES, and for what `parse` refuses."""
    size = len(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    if size > MOST_BYTES:
        raise ValueError(f"this text has {size:,} bytes; a config.json has a few thousand, and at most {MOST_BYTES:,} "
                         "are read")
    if not text.strip():
        raise ValueError("there is nothing here; paste the content of a config.json")
    data = parse(text)
    if not isinstance(data, dict):
        raise ValueError(f"a config.json is an object, in curly brackets, not {shown(data)}")
    return data


def _refuse_giants(data: dict[str, Any]) -> None:
    """Our own form has no limit to sizes; here they have the one that files of others have."""
    for name, value in data.items():
        if isinstance(value, dict):
            _refuse_giants(value)
        elif isinstance(value, int) and value > MOST:
            raise ValueError(f"{plain(name)} must be at most {MOST}, not {shown(value)}")
