"""One table to paste: a model's parameters by part, what is active, and what its cache takes. Valid Markdown."""

from __future__ import annotations

from llm_core.accounting.cache import cache_bytes, cache_bytes_per_token
from llm_core.accounting.parameters import count_parameters
from llm_core.accounting.units import exact, human_bytes, human_count
from llm_core.config import ModelConfig


def table(config: ModelConfig, name: str, context: int | None = None, batch: int = 1, bits: int = 16) -> str:
    """A Markdown table of three columns. context: cached tokens a sequence; None means as many as the model can see."""
    context = config.max_seq_len if context is None else context
    n = count_parameters(config)
    head = (name, "parameters", "active for one token")
    body = [(part, exact(count), exact(n.active_by_part[part])) for part, count in n.by_part.items()]
    tied = "; tied to the embedding, which stays" if config.tie_embeddings else ""
    body += [
        ("**total** (active: all but the experts not chosen)", _both(n.total), _both(n.active)),
        (f"without the input embedding, a lookup{tied}", "", _both(n.active_no_input_embedding)),
        ("without the embedding and the output head", "", _both(n.active_no_embed_no_head)),
    ]
    if n.mtp:
        modules = f"{config.n_mtp_modules} MTP module" + ("s" if config.n_mtp_modules > 1 else "")
        body.append((f"apart: {modules}, embedding and head shared", _both(n.mtp), _both(n.mtp_active)))
    if n.router_biases:
        body.append(("apart: router biases (buffers)", exact(n.router_biases), ""))
    one, all_of_it = cache_bytes_per_token(config, bits), cache_bytes(config, batch, context, bits)
    sequences = "" if batch == 1 else f" × {exact(batch)} sequences"
    past = f" (the model's limit is {exact(config.max_seq_len)})" if context > config.max_seq_len else ""
    body += [
        (f"cache a token, {bits} bits a number", f"{exact(one)} bytes", human_bytes(one)),
        (f"cache of {exact(context)} tokens{sequences}{past}", f"{exact(all_of_it)} bytes", human_bytes(all_of_it)),
    ]
    return _markdown(head, body)


def _both(n: int) -> str:
    return exact(n) if n < 1000 else f"{exact(n)} ({human_count(n)})"


def _markdown(head: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    """Columns padded to one width, so that the table also reads well as plain text; numbers to the right."""
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    aligned = [[row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
               for row in [head, *body]]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [aligned[0], rule, *aligned[1:]])
