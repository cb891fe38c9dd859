"""What the page Token journey shows of one followed token: the trace of a window, figures, tables and sentences."""

from __future__ import annotations

import functools

from apps import common, writing
from apps import journey_views as views
from llm_core import accounting, plots, trace

WATCHED = 16  # tokens whose every step is kept and drawn; the slider moves this window over any text
SIZES = ("entering", "attention_normed", "attended", "between", "feed_forward_normed", "fed", "leaving")


@functools.lru_cache(maxsize=16)
def watch(name: str, ids: tuple[int, ...], start: int, end: int):
    """The trace of a window, what would be said after each block [L + 1, W, V] as (likeliest, probability), losses."""
    model, _ = writing.load(name)
    seen = trace.trace(model, list(ids), start, end)
    likeliest = trace.logit_lens(model, seen).max(dim=-1)
    return seen, likeliest.indices, likeliest.values


def window(n_tokens: int, token: int) -> tuple[int, int]:
    """The watched positions: all of a short text, of a long one those up to the followed token and a few behind it."""
    start = max(0, min(token - WATCHED + 5, n_tokens - WATCHED))
    return start, min(start + WATCHED, n_tokens)


def path(name: str, ids: list[int], token: int) -> dict:
    """The way of one token as plain numbers, for programs."""
    _, tokenizer = writing.load(name)
    start, end = window(len(ids), token)
    seen, likeliest, chance = watch(name, tuple(ids), start, end)
    row = token - start
    said = zip(tokenizer.pieces(likeliest[:, row].tolist()), chance[:, row].tolist())
    return {"tokens": tokenizer.pieces(ids), "ids": ids, "token": token,
            "added": [{"attention": a, "feed_forward": f} for a, f in trace.added(seen, row)],
            "guesses": [{"text": text, "probability": p} for text, p in said]}


N_SHOWN = 17


def shown(name: str, ids: list[int], token: int, layer: int, head: int) -> tuple:
    """The page's N_SHOWN outputs below the controls, in order."""
    model, tokenizer = writing.load(name)
    config, pieces = model.config, tokenizer.pieces(ids)
    start, end = window(len(ids), token)
    seen, likeliest, chance = watch(name, tuple(ids), start, end)
    row, block = token - start, seen.layers[layer]
    here = pieces[start:end]
    sizes = {field: trace.size(getattr(block, field)[row]).item() for field in SIZES}
    experts = None if block.experts is None else block.experts[row].tolist()
    stops = accounting.journey(config, layer, len(ids), bits=32)
    labels = [f"{writing.visible(text)} ({start + t})" for t, text in enumerate(here)]

    vectors = [("token embedding", seen.token_embedding[row].tolist())]
    if seen.position_embedding is not None:
        vectors += [("+ position embedding", seen.position_embedding[row].tolist()),
                    ("= input embedding", seen.layers[0].entering[row].tolist())]
    fed = "feed-forward" if experts is None else "experts"
    names = ("enters", "1 norm", "2 attention", "after skip", "4 norm", f"5 {fed}", "leaves")
    steps = [(f"{label}, size {sizes[field]:.2f}", getattr(block, field)[row].tolist())
             for label, field in zip(names, SIZES)]
    effects = trace.added(seen, row)
    shares = [of.shares.tolist() for of in seen.layers]
    best = trace.strongest_heads(seen, row)
    titles = [[f"block {n}, head {h}: {writing.visible(here[row])} looks most at "
               f"{writing.visible(here[max(range(row + 1), key=lambda s: of[row][s])])}"
               for h, of in enumerate(maps)] for n, maps in enumerate(shares)]
    percent = [[round(100 * share) if s <= t else None for s, share in enumerate(line)]
               for t, line in enumerate(shares[layer][head])]
    said = [[writing.visible(tokenizer.pieces([id])[0]) for id in line] for line in likeliest.tolist()]
    rows = writing.candidates(seen.logits[row], writing.sampler(1.0), tokenizer)
    around = {"token embedding": seen.token_embedding, "position embedding": seen.position_embedding,
              "final norm": seen.final, "output head": seen.logits}
    after = {"norm 1": sizes["attention_normed"], "attention": sizes["attended"], "norm 2":
             sizes["feed_forward_normed"], fed: sizes["fed"],
             **{name: trace.size(of[row]).item() for name, of in around.items() if of is not None}}
    settled = trace.settles(likeliest[:, row].tolist())
    return (
        views.tokens(pieces, ids, token),
        common.said(f"{writing.quoted(pieces[token])} is token {token + 1:,} of {len(ids):,}: position {token:,}, "
                    f"counted from 0, and row {ids[token]:,} of a table with {config.vocab_size:,} rows. After "
                    f"{config.n_layers} blocks the model expects {writing.quoted(rows[0].text)} next, with "
                    f"{accounting.percent(rows[0].raw, 1)}."),
        plots.strips(vectors), common.said(position_sentence(model, token)),
        views.train(config, layer, sizes, stops, experts),
        plots.strips(steps),
        plots.compartment_effects(*zip(*effects), "dense feed-forward" if config.moe is None else "experts", layer),
        common.said(effect_sentence(effects, layer)),
        views.heads(plots.attention_tiles(shares), config.n_layers, config.attention.n_heads, layer, head, titles),
        plots.attention_map(percent, here), common.said(head_sentence(block, here, row, layer, head, start)),
        views.looked_at([(here[s], accounting.percent(block.shares[head, row, s].item(), 1),
                          (n, h, accounting.percent(share, 1))) for s, (n, h, share) in enumerate(best)], layer, head),
        plots.logit_lens([[round(100 * p, 1) for p in line] for line in chance.tolist()], said, labels, row),
        common.said(f"At {writing.quoted(pieces[token])}, {writing.quoted(rows[0].text)} is the likeliest "
                    + (f"from after block {settled - 1} on." if settled else "from the very beginning.")),
        writing.bars_html(rows, shaped=False), views.tasks(task_rows(tokenizer, ids, here, seen)),
        views.steps(config, len(ids), layer, stops, after)
        + common.formula(f"Cache of this text: {accounting.cache_formula(config, 1, len(ids), bits=32)}"))


def position_sentence(model, token: int) -> str:
    """Where a token's place comes in."""
    if model.config.rope is None:
        return (f"The token's own row, plus row {token:,} of the table of positions, number by number: that sum boards "
                "the train.")
    return ("The token's own row boards the train as it is. This model has no table of positions: RoPE turns queries "
            f"and keys in compartment 2 instead, here by {token:,} steps.")


def effect_sentence(effects: list[tuple[float, float]], layer: int) -> str:
    attention, feed_forward = effects[layer]
    return (f"In block {layer}, attention adds a vector of {attention:.1f} % of the stream's size, and compartment 5 "
            f"one of {feed_forward:.1f} %. A block does not replace the token's vector: it adds to it.")


def head_sentence(block: trace.Layer, here: list[str], row: int, layer: int, head: int, start: int) -> str:
    line = block.shares[head, row, :row + 1]
    s, first = int(line.argmax()), block.to_first[head, row].item()
    out = (f"Block {layer}, head {head}: {writing.quoted(here[row])} looks most at "
           f"{'itself' if s == row else writing.quoted(here[s])}, with {accounting.percent(line[s].item(), 1)}.")
    if start:
        earlier = accounting.percent(block.to_earlier[head, row].item(), 1)
        out += f" All tokens before this window get {earlier}, of which the very first {accounting.percent(first, 1)}."
    elif s:
        out += f" The first token of the text gets {accounting.percent(first, 1)}."
    if first > 0.5 and row + start:
        out += (" The first token is where a head often puts attention that it has no other use for: an attention "
                "sink, and no sign of meaning.")
    return out


def task_rows(tokenizer, ids: list[int], here: list[str], seen: trace.Trace) -> list[tuple[str, ...]]:
    rows = []
    for text, task in zip(here, trace.tasks(seen, ids)):
        bet = f"{writing.visible(tokenizer.pieces([task.likeliest])[0])} {accounting.percent(task.chance, 1)}"
        follows = ("nothing in this text", "–", "–") if task.target is None else (
            writing.visible(tokenizer.pieces([task.target])[0]), accounting.percent(task.target_chance, 1),
            f"{task.loss:.2f}")
        rows.append((writing.visible(text), bet, *follows))
    return rows
