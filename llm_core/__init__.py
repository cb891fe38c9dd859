"""One model, from GPT-2 to DeepSeek-V3, grown by its config alone.

Names are resolved on first use, so that the parts that need no torch (config, presets, accounting) import without it.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "ModelConfig": "llm_core.config",
    "LanguageModel": "llm_core.model",
    "generate": "llm_core.generation",
    "stream": "llm_core.generation",
    "speculate": "llm_core.speculative",
    "load_pretrained": "llm_core.pretrained",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"llm_core has no {name!r}; it offers {', '.join(_HOME)}")
    return getattr(import_module(_HOME[name]), name)
