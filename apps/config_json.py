"""A model that somebody brings: a config.json, pasted or uploaded, read as text and never run."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from apps import common
from apps.limits import MOST_COUNTED, MOST_LETTERS_IN_AN_ADDRESS
from llm_core import ModelConfig, accounting, hf_config, presets

NAME = "the pasted config"


@dataclass(frozen=True)
class Box:
    """The box's parts. kept: the model that was read, as text for the address; empty while a preset is shown."""

    kept: gr.Textbox
    text: gr.Textbox
    upload: gr.UploadButton
    read: gr.Button
    forget: gr.Button
    remark: gr.HTML


def place() -> Box:
    kept = gr.Textbox("", visible=False, elem_id="config")
    with gr.Accordion("Or a model of your own: its config.json", open=False, elem_id="own"):
        gr.Markdown("Paste what Hugging Face shows as a model's `config.json`, or upload the file: gpt2, llama, qwen2, "
                    "mistral, mixtral, deepseek (v2, v3), kimi_k2 and what is built like them. Here is DeepSeek-V3's; "
                    "change a number and read it.")
        text = gr.Textbox(example(), lines=8, max_lines=16, label="config.json", elem_id="pasted",
                          max_length=hf_config.MOST_BYTES)
        read = gr.Button("Read it", size="sm", variant="primary", elem_id="read-config")
        upload = gr.UploadButton("Upload a file", size="sm", elem_id="upload-config")
        forget = gr.Button("Forget it, back to the preset", size="sm", elem_id="forget-config")
        remark = gr.HTML(elem_id="remark")
    return Box(kept, text, upload, read, forget, remark)


def connect(box: Box, inputs: list, outputs: list, notice: gr.HTML, redraw: Callable, api_name: str) -> None:
    """Read what was pasted or uploaded. redraw(kept, *inputs) gives the outputs for it.

    What cannot be read is said in the notice, and everything else stays as it was.
    """
    def refused(problem: Exception) -> list:
        return [common.notice(common.sentence(problem)) if one is notice else gr.skip() for one in outputs]

    def pasted(text, *given):
        try:
            found = read(text or "")
        except ValueError as problem:
            return gr.skip(), gr.skip(), *refused(problem)
        total = accounting.exact(accounting.count_parameters(found.config).total)
        kept = keep(found.config)
        return kept, common.said(f"Read: {total} parameters. {found.remark}"), *redraw(kept, *given)

    def uploaded(path, *given):
        try:
            text = read_file(path)
        except common.PROBLEMS as problem:
            return gr.skip(), gr.skip(), gr.skip(), *refused(problem)
        finally:
            if path:
                Path(path).unlink(missing_ok=True)  # Gradio's copy, which nobody needs any more
        return text, *pasted(text, *given)

    box.read.click(pasted, [box.text, *inputs], [box.kept, box.remark, *outputs], api_name=f"{api_name}_config",
                   **common.FIGURES)
    box.upload.upload(uploaded, [box.upload, *inputs], [box.text, box.kept, box.remark, *outputs],
                      api_name=f"{api_name}_upload", **common.FIGURES)


@functools.lru_cache(maxsize=1)
def example() -> str:
    return json.dumps(hf_config.to_hf(presets.get("deepseek-v3")), indent=1)


def base_of(preset: str, kept: str | None) -> ModelConfig:
    """The model that was read, or else the preset. ValueError with a sentence."""
    return read(kept).config if kept else presets.get(preset)


@functools.lru_cache(maxsize=64)
def read(text: str) -> hf_config.Pasted:
    """A text as a model. ValueError with a sentence: what it is not, or why it cannot be counted here."""
    pasted = hf_config.read_pasted(text)
    checked(pasted.config)
    return pasted


def read_file(path: str | None) -> str:
    """The text of an uploaded file. ValueError if it is no text, or too long for a config.json."""
    if not path:
        raise ValueError("no file came; choose a config.json")
    if Path(path).stat().st_size > hf_config.MOST_BYTES:
        raise ValueError(f"this file has {Path(path).stat().st_size:,} bytes; a config.json has a few thousand, and at "
                         f"most {hf_config.MOST_BYTES:,} are read")
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("this file is no text in UTF-8, and a config.json is") from None


def checked(config: ModelConfig) -> ModelConfig:
    """The config, unless it has more parameters than can be drawn. ValueError with a sentence."""
    counted = accounting.count_parameters(config)
    if counted.total + counted.mtp > MOST_COUNTED:
        raise ValueError(f"this model would have {counted.total + counted.mtp:,} parameters; at most "
                         f"{MOST_COUNTED:,} are counted here")
    return config


def keep(config: ModelConfig) -> str:
    """A config as short text for the address, which `base_of` reads again."""
    return json.dumps(config.to_dict(), separators=(",", ":"))


def from_address(request: gr.Request | None) -> tuple[str, str]:
    """The model in an address as `kept` ("" if there is none), and a sentence about why it could not be read."""
    query, _ = common.read_query(request, {"config": ""})
    text = query["config"]
    if not text:
        return "", ""
    try:
        if len(text) > MOST_LETTERS_IN_AN_ADDRESS:
            raise ValueError(f"it has {len(text):,} characters, and an address holds at most "
                             f"{MOST_LETTERS_IN_AN_ADDRESS:,}; paste it instead")
        return keep(read(text).config), ""
    except ValueError as problem:
        return "", f"The address's config cannot be read: {problem}."
