"""python -m tests.parity prints a table: how far our logits are from transformers'. RESULTS.md holds one such run."""

import platform
from importlib.metadata import version

from tests.parity.families import FAMILIES, SEEDS, TOKENS, compare

print(f"""# Against transformers

`python -m tests.parity` prints this page. Each row is a tiny random model, in 32 bits, of the class that transformers
{version("transformers")} has for the family, with weights wide enough that attention, positions and routing matter. It
is saved by `save_pretrained` and read from that folder by `llm_core`: config, names and numbers. The difference is the
largest of any logit, over {TOKENS} tokens, uncached and cached, and {len(SEEDS)} seeds; the tests hold it below 1e-4.
YaRN's original context is 16 tokens. MTP has no part in it. Made with torch {version("torch")}, {platform.machine()}.

| family | largest difference | standard deviation of the logits | 12 greedy tokens equal |
|---|---|---|---|""")
for family in FAMILIES:
    found = [compare(family, seed) for seed in SEEDS]
    print(f"| {family} | {max(f.difference for f in found):.1e} | {min(f.spread for f in found):.1f} | "
          f"{'yes' if all(f.greedy_equal for f in found) else 'NO'} |", flush=True)
