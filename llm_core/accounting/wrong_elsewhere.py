"""Wrong elsewhere: published or widely copied figures that do not come out, beside the arithmetic that does.

    python -m llm_core.accounting.wrong_elsewhere       the page course/WRONG_ELSEWHERE.md, as Markdown

Every right figure is counted by accounting when it is asked for. tests/test_wrong_elsewhere.py does each sum again,
with plain numbers. None of it is meant against anybody: figures are rounded, copied and counted by unsaid rules, and
who prints many of them will print a wrong one, ourselves included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod

from llm_core import cache_layout, presets
from llm_core.accounting.cache import cache_bytes_per_token, cache_formula
from llm_core.accounting.parameters import count_parameters, mtp_rows
from llm_core.accounting.published_sizes import block_scales, numbers_in_v3_file  # noqa: F401, lessons take it here


@dataclass(frozen=True)
class Figure:
    """name: in addresses and tests. claim, where: what is said, and who says it. said, exact: two numbers of one unit.

    arithmetic: lines that end in the right figure. why: how the other one comes about, as far as we could find out.
    preset: the model in question.
    """

    name: str
    claim: str
    where: str
    said: float
    exact: float
    unit: str
    arithmetic: tuple[str, ...]
    why: str
    preset: str

    def shown(self, value: float) -> str:
        """A figure with its unit: as many digits as tell the two apart."""
        if self.unit == "bytes a token":
            return f"{value:,.0f} {self.unit}"
        return f"{value:,.1f} {self.unit}" if value == round(value, 1) else f"{value:,.2f} {self.unit}"


@cache
def figures() -> tuple[Figure, ...]:
    """All of them, DeepSeek first."""
    return (_cache_of_v2(), _active_in_v3(), _hub(), _mtp(), _times_of_llama(), _without_rope_key(), _latent_twice(),
            _as_mha(), _gpt3_row("gpt3-xl", "1.3 B"), _gpt3_row("gpt3-13b", "13.0 B"), _gpt2_paper(), _gpt2_twice(),
            _mixtral())


def get(name: str) -> Figure:
    """One of them by its name. ValueError with the names there are."""
    found = {figure.name: figure for figure in figures()}
    if name not in found:
        raise ValueError(f"no figure is called {str(name)[:40]!r}; there are {', '.join(found)}")
    return found[name]


def _cache_of_v2() -> Figure:
    old, new = presets.get("deepseek-llm-67b"), presets.get("deepseek-v2")
    many, few = cache_layout.elements_per_token(old), cache_layout.elements_per_token(new)
    return Figure(
        "v2-cache", "MLA makes DeepSeek-V2's cache 93.3 % smaller than DeepSeek 67B's.",
        "DeepSeek-V2, arXiv:2405.04434, abstract", 93.3, 100 * (1 - few / many), "% smaller",
        (f"numbers a token: {many:,} before, {few:,} now, so {100 - 100 * few / many:.2f} % fewer",
         f"bytes a token: {2 * many:,} at 16 bits before; {few * 6 // 8:,} at 6 bits now, "
         f"so {100 - 100 * few * 6 / 8 / (2 * many):.2f} % fewer"),
        "The architecture alone gives 82.2 %. 93.3 % compares a cache of 6 bits a number with one of 16: the paper "
        "says in section 3.2.3 that V2's cache is quantised to 6 bits when it serves. Both are real savings, but only "
        "one is MLA's. (And the model before had GQA already, so it is no comparison with MHA.)", "deepseek-v2")


def _active_in_v3() -> Figure:
    n = count_parameters(presets.get("deepseek-v3"))
    table = n.active - n.active_no_input_embedding
    return Figure(
        "v3-active", "36.7 B parameters of DeepSeek-V3 are active for a token, embedding and head included.",
        "README_WEIGHTS.md of DeepSeek-V3", 36.7, n.active / 1e9, "B parameters",
        (f"all but the experts that a token does not choose: {n.active:,}",
         f"without the table of token embeddings ({table:,}): {n.active_no_input_embedding:,}",
         f"without the output head, too: {n.active_no_embed_no_head:,}"),
        "With embedding and head it is 37.55 B. Without the embedding, of which a token looks up a single row, it is "
        "36.63 B, and that is the rule behind the paper's 37 B. Nothing that we tried gives 36.7.", "deepseek-v3")


def _hub() -> Figure:
    n = count_parameters(presets.get("deepseek-v3"))
    main, mtp, embedding, head, scales, biases = numbers_in_v3_file().values()
    twice = embedding + head
    file = main + mtp + twice
    return Figure(
        "v3-hub", "The 685 B on the hub are 671 B of the main model and 14 B of the MTP module.",
        "README of DeepSeek-V3", 14.0, n.mtp / 1e9, "B parameters",
        (f"main model {main:,} + MTP module {mtp:,} + embedding and head a second time {twice:,} = {file:,}",
         f"and what is no parameter: {scales:,} scales of FP8 blocks, {biases:,} routers' biases: "
         f"{file + scales + biases:,}"),
        "The file stores embedding and head once more beside the MTP module. The module shares them with the main "
        "model, so they are copies: 11.61 B + 1.85 B = 13.46 B. The last sum is the hub's own count of the file, to "
        "the last digit, and rounds to 685.", "deepseek-v3")


def _mtp() -> Figure:
    module = mtp_rows(presets.get("deepseek-v3"))
    total = sum(row.total for row in module)
    projection = next(row.total for row in module if row.name == "eh_proj")
    return Figure(
        "v3-mtp", "DeepSeek-V3's MTP module has 11.5 B parameters of its own.", "README_WEIGHTS.md of DeepSeek-V3",
        11.5, total / 1e9, "B parameters",
        (f"a layer with its experts, three norms and the projection: {total:,}",
         f"without the projection from 2 × 7,168 to 7,168 ({projection:,}): {total - projection:,}"),
        "11.5 B is the extra layer without the projection that joins its two inputs.", "deepseek-v3")


def _times_of_llama() -> Figure:
    llama, v3 = presets.get("llama-3.1-405b"), presets.get("deepseek-v3")
    many, few = cache_bytes_per_token(llama), cache_bytes_per_token(v3)
    return Figure(
        "llama-times", "Llama 3.1 405B's cache is 7.28 times DeepSeek-V3's.",
        "Insights into DeepSeek-V3, arXiv:2505.09343, table 1", 7.28, many / few, "times",
        (f"Llama 3.1 405B: {cache_formula(llama)}", f"DeepSeek-V3: {cache_formula(v3)}",
         f"{many:,} ÷ {few:,} = {many / few:.3f}"),
        "The table's bytes are exact (516.096 KB and 70.272 KB); their ratio is 7.34. The table's other ratio, 4.66 "
        "for Qwen2.5 72B, is right.", "llama-3.1-405b")


def _without_rope_key() -> Figure:
    config = presets.get("deepseek-v3")
    latent, L = config.attention.kv_lora_rank, config.n_layers
    return Figure(
        "rope-key", "DeepSeek-V3 caches 512 numbers a layer: the latent.", "many articles and calculators",
        2 * L * latent, cache_bytes_per_token(config), "bytes a token",
        (f"as said: {latent} × {L} layers × 2 bytes = {2 * L * latent:,} bytes", cache_formula(config)),
        "The rope key of 64 numbers is forgotten. It carries the position, all heads share it, and without it no new "
        "token could be scored: 576 numbers a layer.", "deepseek-v3")


def _latent_twice() -> Figure:
    config = presets.get("deepseek-v3")
    latent, L = config.attention.kv_lora_rank, config.n_layers
    return Figure(
        "latent-twice", "DeepSeek-V3's cache is 2 × layers × 512 numbers a token.",
        "a calculator's formula, LMCache pull request 694 (2025)", 2 * 2 * L * latent, cache_bytes_per_token(config),
        "bytes a token",
        (f"as said: 2 (K and V) × {latent} × {L} layers × 2 bytes = {2 * 2 * L * latent:,} bytes",
         cache_formula(config)),
        "The factor 2 of ordinary attention, one key and one value, is kept. MLA has one latent for both; that is its "
        "point. The rope key is missing besides.", "deepseek-v3")


def _as_mha() -> Figure:
    config = presets.get("deepseek-v3")
    heads, L, d = config.attention.n_heads, config.n_layers, config.d_model
    said = 2 * L * d * 2
    return Figure(
        "as-mha", "DeepSeek-R1 needs 1.75 MB of cache a token.",
        "what 2 × layers × key-value heads × (width ÷ heads) makes of its config.json", said,
        cache_bytes_per_token(config), "bytes a token",
        (f"as said: 2 × {L} layers × {heads} heads × {d:,} ÷ {heads} numbers × 2 bytes = {said:,} bytes",
         cache_formula(config), f"{said:,} ÷ {cache_bytes_per_token(config):,} = "
         f"{said / cache_bytes_per_token(config):.1f} times too much"),
        'The config says "num_key_value_heads": 128, since each head has a key of its own once the latent is expanded. '
        "Read as ordinary attention, that looks like MHA. (Its heads are not 7,168 ÷ 128 = 56 wide, either.)",
        "deepseek-r1")


def _gpt3_row(preset: str, said: str) -> Figure:
    config = presets.get(preset)
    width, d = config.attention.n_heads * config.head_dim, config.d_model
    printed, n = float(said.split()[0]), count_parameters(config).total
    return Figure(
        preset, f"GPT-3 {preset[5:].upper()} has {said} parameters, with "
        f"{config.attention.n_heads} heads of {config.head_dim} at width {d:,}.",
        "GPT-3, arXiv:2005.14165, table 2.1", printed, n / 1e9, "B parameters",
        (f"{config.attention.n_heads} heads × {config.head_dim} = {width:,}, and the width is {d:,}",
         f"with the row as it is printed: {n:,} parameters"),
        "Heads times their width should be the model's width, as in every other row of the table. One of the row's "
        "numbers must be a slip, and nobody can say from outside which one.", preset)


def _gpt2_paper() -> Figure:
    config = presets.get("gpt2")
    return Figure(
        "gpt2-117m", "GPT-2 small has 117 M parameters.", "the GPT-2 paper, table 2", 117.0,
        count_parameters(config).total / 1e6, "M parameters",
        tuple(f"{part}: {n:,}" for part, n in count_parameters(config).by_part.items()),
        "OpenAI corrected it later: the files hold 124 M. The paper's other sizes are too small likewise (345 M for "
        "355 M, 762 M for 774 M, 1,542 M for 1,558 M).", "gpt2")


def _gpt2_twice() -> Figure:
    config = presets.get("gpt2")
    n, table = count_parameters(config).total, prod((config.vocab_size, config.d_model))
    return Figure(
        "gpt2-163m", "GPT-2 small has 163 M parameters.", "sums over the tensors of code that does not tie the head",
        (n + table) / 1e6, n / 1e6, "M parameters",
        (f"{config.vocab_size:,} × {config.d_model} = {table:,} for the table of tokens, which is the head, too",
         f"counted once: {n:,}; counted twice: {n + table:,}"),
        "The output head is the table of token embeddings, one tensor with two uses. Whoever makes two of it has "
        "another model, which is larger by a third.", "gpt2")


def _mixtral() -> Figure:
    config = presets.get("mixtral-8x7b")
    n = count_parameters(config)
    return Figure(
        "mixtral", "Mixtral 8x7B has 8 × 7 = 56 B parameters.", "the model's name, taken at its word", 56.0,
        n.total / 1e9, "B parameters",
        (f"routed experts: {n.by_part['routed experts']:,}; everything else: {n.total - n.by_part['routed experts']:,}",
         f"a token chooses 2 of 8 experts: {n.active:,} active"),
        "Only the feed-forward networks exist eight times. Attention, norms and embeddings are there once.",
        "mixtral-8x7b")


def page() -> str:
    """course/WRONG_ELSEWHERE.md."""
    out = ["# Wrong elsewhere", "",
           "Figures that are printed in papers, model cards, articles and calculators, and that do not come out. "
           "Beside each stands the arithmetic that does, counted by `llm_core.accounting` from the model's config, and "
           "how the other figure came about, as far as we could find out. A test does every sum again with plain "
           "numbers (`tests/test_wrong_elsewhere.py`). None of it is meant against anybody: whoever prints many "
           "figures prints a wrong one at some time. If you find one of ours, tell us.", "",
           "The page *Wrong elsewhere* of the app (`make app`) shows them one by one. This file is written "
           "by `python -m llm_core.accounting.wrong_elsewhere`.", "",
           "| what is said | as said | counted |", "|---|---|---|"]
    out += [f"| [{f.claim}](#{f.name}) | {f.shown(f.said)} | {f.shown(f.exact)} |" for f in figures()]
    for f in figures():
        out += ["", f'<a id="{f.name}"></a>', "", f"## {f.claim}", "", f"Said in: {f.where}.", "",
                f"**Counted: {f.shown(f.exact)}**, not {f.shown(f.said)}.", "",
                *(f"- {line}" for line in f.arithmetic), "", f.why, "",
                f'Held by `test_figure["{f.name}"]`. In the app: '
                f"<http://127.0.0.1:7860/wrong-elsewhere?figure={f.name}>"]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    print(page(), end="")
