"""The HTML of the page Token journey: tokens to click, the train of compartments, maps of all heads, tables.

Whatever can be clicked is a button with data-go='{"token": 3}', or layer or head; the page's one event reads it.
Every number comes in as an argument; nothing is computed here.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

from apps import common, writing
from llm_core import accounting, plots
from llm_core.config import LatentAttentionConfig, ModelConfig

# One listener for all buttons; after the page is drawn anew, the focus goes back to the button that had it.
GO = """
let last = null;
element.addEventListener("click", event => {
    const button = event.target.closest("[data-go]");
    if (!button) return;
    last = button.dataset.go;
    trigger("click", JSON.parse(last));
});
watch("value", () => {
    const again = [...element.querySelectorAll("[data-go]")].find(button => button.dataset.go === last);
    if (again && document.activeElement === document.body) again.focus();
});
"""
CSS = """
button {margin: 0 !important; font: inherit; color: inherit; cursor: pointer}
.tokens {display: flex; flex-wrap: wrap; gap: 0.4rem; max-height: 14rem; overflow-y: auto; padding: 2px}
.tokens button {display: block; text-align: center; padding: 0.3rem 0.6rem; border-radius: 0.5rem; line-height: 1.35;
  border: 2px solid #0072B2; background: var(--background-fill-secondary)}
.tokens button[aria-pressed=true], .tokens button[aria-pressed=true] * {background: #0072B2; color: #fff}
.tokens b {display: block; font-size: 1.25rem; font-weight: 600; white-space: pre}
.tokens small {font-size: 0.8rem; font-variant-numeric: tabular-nums}
.more {align-self: center}
.wagons {display: flex; flex-wrap: wrap; gap: 3px; margin: 0.2rem 0 0.7rem; align-items: center}
.wagons button {min-width: 2.1rem; padding: 0.1rem 0.2rem; border: 1px solid var(--border-color-primary);
  border-radius: 4px; background: var(--background-fill-secondary); font-variant-numeric: tabular-nums}
.wagons button[aria-pressed=true] {background: #0072B2; color: #fff; border-color: #0072B2}
.train {display: flex; flex-wrap: wrap; gap: 0.3rem; align-items: stretch}
.train > div {flex: 1 1 7.5rem; min-width: 7.5rem; padding: 0.4rem 0.6rem; border-radius: 0.5rem; line-height: 1.35;
  border: 1px solid var(--border-color-primary); border-top: 7px solid var(--part, #999);
  background: var(--background-fill-secondary)}
.train > .plain {flex: 0.7 1 5.5rem; min-width: 5.5rem; border-style: dashed; border-top-width: 1px; background: none}
.train b {display: block}
.train small {display: block; font-size: 0.85rem}
.heads {overflow-x: auto}
.heads .grid {position: relative; width: max-content}
.heads img {display: block; image-rendering: pixelated}
.heads .over {position: absolute; inset: 0; display: grid}
.heads .over button {border: 0; background: none; padding: 0; margin: 0; min-width: 0}
.heads .over button:hover {outline: 2px solid #E69F00; outline-offset: -2px}
.heads .over button[aria-pressed=true] {outline: 3px solid #D55E00; outline-offset: -2px}
.heads p {margin: 0.2rem 0 !important}
td button, th button {border: 1px solid var(--border-color-primary); border-radius: 4px; padding: 0 0.5rem;
  background: var(--background-fill-secondary)}
"""
CHIPS = 120  # tokens that are shown as buttons at a time; the slider reaches all


def go(label: str, title: str = "", pressed: bool = False, skip: bool = False, **where: int) -> str:
    """A button that goes to a token, layer or head. label is HTML; skip: not a stop of the tabulator key."""
    state = f' aria-pressed="{str(pressed).lower()}"'
    name = f' title="{html.escape(title)}" aria-label="{html.escape(title)}"' if title else ""
    tab = ' tabindex="-1"' if skip else ""
    return f"<button type=\"button\" data-go='{json.dumps(where)}'{state}{name}{tab}>{label}</button>"


def piece(text: str) -> str:
    return html.escape(writing.visible(text))


def tokens(pieces: Sequence[str], ids: Sequence[int], token: int) -> str:
    """The text taken apart: a button a token, with its position and its id."""
    first = max(0, min(token - CHIPS // 2, len(ids) - CHIPS))
    shown = range(first, min(first + CHIPS, len(ids)))
    buttons = [go(f"<b>{piece(pieces[t])}</b><small>id {ids[t]:,}<br>position {t}</small>", pressed=t == token, token=t)
               for t in shown]
    before = f'<span class="more">… {first:,} before</span>' if first else ""
    after = f'<span class="more">{len(ids) - shown.stop:,} more …</span>' if shown.stop < len(ids) else ""
    return f'<div class="tokens" role="group" aria-label="Tokens">{before}{"".join(buttons)}{after}</div>'


def kind(config: ModelConfig) -> str:
    """What stands in compartment 2, in a few words."""
    a = config.attention
    if isinstance(a, LatentAttentionConfig):
        return f"MLA: {a.n_heads} heads, a latent of {a.kv_lora_rank} and a rope key of {a.qk_rope_head_dim}"
    shared = "" if a.kind == "MHA" else f", {a.kv_heads} key-value heads"
    return f"{a.kind}: {a.n_heads} heads of {config.head_dim}{shared}"


def network(config: ModelConfig, experts: Sequence[int] | None) -> str:
    """What stands in compartment 5, and which experts the token chose."""
    if experts is None:
        d = config.d_model
        return f"{config.feed_forward.activation}: {d:,} → {config.feed_forward.d_ff:,} → {d:,}"
    m = config.moe
    shared = f", and {m.n_shared_experts} shared" if m.n_shared_experts else ""
    return f"experts {', '.join(map(str, sorted(experts)))} of {m.n_routed_experts}{shared}"


def train(config: ModelConfig, layer: int, sizes: dict[str, float], stops: Sequence[accounting.Stop],
          experts: Sequence[int] | None) -> str:
    """All blocks as wagons, and the six compartments of one, with the followed token's size at each."""
    wagons = "".join(go(str(n), f"block {n}", n == layer, layer=n) for n in range(config.n_layers))
    norm = "layer norm" if config.norm == "layernorm" else "RMSNorm"
    by_name = {stop.name: stop for stop in stops}
    fed = "feed-forward" if experts is None else "experts"

    def box(number: int, title: str, what: str, stop: accounting.Stop, size: float) -> str:
        cache = f"<small>leaves {stop.cache_bytes:,} bytes in the cache</small>" if stop.cache_bytes else ""
        resting = "" if stop.active == stop.parameters else f", {stop.active:,} used"
        return (f'<div style="--part:{plots.COLOURS[stop.part]}"><b>{number} {title}</b>'
                f"<small>{html.escape(what)}</small><small>size {size:.2f}</small>"
                f"<small>{stop.parameters:,} parameters{resting}</small>{cache}</div>")

    def plain(title: str, what: str) -> str:
        return f'<div class="plain"><b>{title}</b><small>{what}</small></div>'

    dropout = "does nothing in use"
    return (
        f'<div class="wagons" role="group" aria-label="Blocks">Block {wagons}</div><div class="train">'
        + plain("in", f"size {sizes['entering']:.2f}")
        + box(1, norm, "size to about 1, then a learned weight", by_name["norm 1"], sizes["attention_normed"])
        + box(2, "attention", kind(config), by_name["attention"], sizes["attended"])
        + plain("3 dropout", dropout) + plain("+ skip", f"in + 2 = size {sizes['between']:.2f}")
        + box(4, norm, "the same again", by_name["norm 2"], sizes["feed_forward_normed"])
        + box(5, fed, network(config, experts), by_name[fed], sizes["fed"])
        + plain("6 dropout", dropout) + plain("+ skip", f"that + 5 = size {sizes['leaving']:.2f}") + "</div>")


def heads(picture: str, n_layers: int, n_heads: int, layer: int, head: int, titles: Sequence[Sequence[str]]) -> str:
    """All attention maps in one picture: blocks from left to right, heads from top to bottom; each can be clicked.

    titles [L][H]: what each map's button is called.
    """
    side = max(26, min(72, 1080 // n_layers))
    buttons = "".join(go("", titles[n][h], (n, h) == (layer, head), skip=(n, h) != (layer, head), layer=n, head=h)
                      for h in range(n_heads) for n in range(n_layers))
    size = f"width:{side * n_layers}px;height:{side * n_heads}px"
    return (f'<div class="heads" tabindex="0"><div class="grid"><img alt="" src="{picture}" style="{size}">'
            f'<div class="over" role="group" aria-label="Attention maps" style="grid-auto-rows:{side}px;'
            f'grid-template-columns:repeat({n_layers},{side}px)">{buttons}</div></div>'
            f"<p>Blocks 0 to {n_layers - 1} from left to right, heads 0 to {n_heads - 1} from top to bottom. "
            "Bright: looks there a lot.</p></div>")


def looked_at(rows: Sequence[tuple[str, str, tuple[int, int, str]]], layer: int, head: int) -> str:
    """For each token: its share in the head that is shown, and the head that looks at it most, to go there.

    rows: (token, share, (layer, head, share)).
    """
    lines = []
    for token, share, (n, h, most) in rows:
        label = f"block {n}, head {h}: {most}"
        lines.append(f'<tr><th scope="row" class="words">{piece(token)}</th><td>{share}</td>'
                     f"<td>{go(label, pressed=(n, h) == (layer, head), layer=n, head=h)}</td></tr>")
    heads = "".join(f'<th scope="col"{c}>{name}</th>' for name, c in (
        ("at", ' class="words"'), ("in this head", ""), ("most of all in", "")))
    return ('<div class="table" tabindex="0"><table><caption>Where the followed token looks</caption>'
            f'<thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>')


def tasks(rows: Sequence[tuple[str, str, str, str, str]]) -> str:
    """Each token's guess, what really follows, and the loss."""
    return common.table(("it has read up to", "likeliest next", "what follows", "its probability", "loss (nats)"),
                        rows, "Every token is a task: guess the next one. The last one's target is not in the text.",
                        words=(0, 1, 2))


def steps(config: ModelConfig, n_tokens: int, layer: int, stops: Sequence[accounting.Stop],
          sizes: dict[str, float]) -> str:
    """Every stop from the text to the logits: what comes out, what it owns, what it leaves."""
    T, D, V = n_tokens, config.d_model, config.vocab_size
    shape = {"output head": f"[{T:,}, {V:,}]"}
    tied = {"output head": "output head: the token embedding again"} if config.tie_embeddings else {}
    rows = [(f"{stop.name}, block {layer}" if stop.copies > 1 else tied.get(stop.name, stop.name),
             shape.get(stop.name, f"[{T:,}, {D:,}]"), f"{sizes[stop.name]:.2f}", f"{stop.parameters:,}",
             f"{stop.active:,}", f"{stop.copies:,}", f"{stop.cache_bytes:,}" if stop.cache_bytes else "–")
            for stop in stops]
    counted = accounting.count_parameters(config)
    whole = accounting.cache_bytes(config, 1, n_tokens, bits=32)
    rows.append(("the whole model", "", "", f"{counted.total:,}", f"{counted.active:,}", "", f"{whole:,}"))
    colours = {row[0]: plots.COLOURS[stop.part] for row, stop in zip(rows, stops)}
    return common.table(
        ("stop", "comes out", "size", "parameters", "used for a token", "such blocks", "cache, bytes"), rows,
        "Parameters and cache of one block each; the cache is that of this text, 32 bits a number. Size: the root mean "
        "square of the followed token's numbers as they come out. Of an embedding, one row is used.",
        words=(0, 1), colours=colours)
