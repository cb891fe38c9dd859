"""What the MTP lab shows of the rows of each depth: what they read, their target, what a trained model says."""

from __future__ import annotations

import html

from apps import common, mtp_writing, writing
from llm_core.mtp_alignment import aligned_rows, likeliest

MAX_TEXT = 12  # tokens in the table


def draw(text: str, depth: int) -> tuple[str, str]:
    """The table for a text, and the sentence about it. ValueError for a text that is too short for the depth."""
    model, tokenizer = writing.load(mtp_writing.MODEL)
    ids = tokenizer.encode(text or "")
    note = ""
    if len(ids) > MAX_TEXT:
        note = f"The text has {len(ids)} tokens; the first {MAX_TEXT} are shown. "
    ids = ids[:MAX_TEXT]
    rows, said = aligned_rows(len(ids), depth), likeliest(model, ids)
    token = [writing.visible(piece) for piece in tokenizer.pieces(ids)]
    says = {(r.depth, r.row): said[r.depth][r.row] for r in rows if r.depth < len(said)}
    texts = {place: writing.visible(tokenizer.pieces([id])[0]) for place, id in says.items()}
    hits = {place for r in rows if says.get(place := (r.depth, r.row)) == ids[r.target]}
    first = next(r for r in rows if r.depth == depth)
    more = "" if depth < len(said) else " deepseek-mini has no module for the depths below 1, so they say nothing here."
    sentence = (f"{note}Depth {depth}, row 0 reads what depth {first.hidden_of} made of row 0, and the token "
                f"“{token[first.reads]}”. So it knows {writing.count(first.reads + 1, 'token')} and guesses "
                f"“{token[first.target]}”. In general row i of depth k reads token i + k and guesses token i + k + 1. "
                f"Of {len(says)} rows here the model and its module are right in {len(hits)}.{more}")
    return rows_html(rows, token, texts, hits), common.said(sentence)


def rows_html(rows, token, says, hits) -> str:
    """A line a depth, a column a row number: what is read, what is to be guessed, what was said."""
    width = max(r.row for r in rows) + 1
    head = "".join(f'<th scope="col">row {i}</th>' for i in range(width))
    lines = []
    for k in range(rows[-1].depth + 1):
        cells = []
        for r in (r for r in rows if r.depth == k):
            place = (r.depth, r.row)
            source = "reads" if k == 0 else f"hidden {r.row}, and"
            answer = "" if place not in says else (f'<span class="{"hit" if place in hits else "miss"}">says '
                                                   f"“{html.escape(says[place])}”</span>")
            cells.append(f'<td><small>{source}</small>“{html.escape(token[r.reads])}”<small>to guess</small>'
                         f'<b>“{html.escape(token[r.target])}”</b><small>{answer}</small></td>')
        name = "the model" if k == 0 else f"MTP module {k}, reads the hidden states of depth {k - 1}"
        lines.append(f'<tr><th scope="row" class="depth">depth {k}<small>{name}</small></th>{"".join(cells)}'
                     f'{"<td></td>" * (width - len(cells))}</tr>')
    return (f'<div class="table" tabindex="0"><table class="rows"><caption>✓ right, ✗ another token; ␣ a space, ↵ a '
            f'line break</caption><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>')
