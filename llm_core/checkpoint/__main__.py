"""Write a trained model for other programs: python -m llm_core.checkpoint NAME FOLDER

The folder is in Hugging Face's form. transformers opens it with AutoModelForCausalLM.from_pretrained(FOLDER).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_core import programs

with programs.starting():
    import torch


def main(arguments: list[str] | None = None) -> int:
    with programs.starting():
        from llm_core.checkpoint.hf_folder import save_hf
        from llm_core.pretrained import load_pretrained

    dtypes = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    parser = argparse.ArgumentParser(prog="python -m llm_core.checkpoint", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="whatever load_pretrained takes: gpt-mini, a folder, a .gguf file")
    parser.add_argument("folder", type=Path, help="a new or an empty folder")
    parser.add_argument("--dtype", choices=dtypes, default="bfloat16", help="how the numbers are stored")
    given = parser.parse_args(arguments)
    try:
        model, tokenizer = load_pretrained(given.name)
        save_hf(model, given.folder, tokenizer, dtypes[given.dtype])
    except (ValueError, OSError) as error:
        print(programs.sentence(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        whole = (given.folder / "config.json").is_file()
        print(f"stopped; {given.folder.name} {'is whole' if whole else 'was not written'}", file=sys.stderr)
        return programs.STOPPED
    files = sorted(given.folder.iterdir())
    print(f"wrote {given.folder.name}: {', '.join(file.name for file in files)} "
          f"({sum(file.stat().st_size for file in files):,} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
