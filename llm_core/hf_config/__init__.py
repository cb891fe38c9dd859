"""A Hugging Face config.json in and out: others' names for a model's sizes, and our ModelConfig. Needs no torch.

    from_hf(path_or_dict)    gpt2, llama, qwen2, mistral, mixtral, deepseek, deepseek_v2, deepseek_v3, kimi_k2
    read_pasted(text)        the same from a text that somebody brings, and which of its keys were not read
    to_hf(config)            what transformers opens, where it has a class that computes the same
"""

from llm_core.hf_config.files import inside, label_of, read_object
from llm_core.hf_config.keys import MOST_BYTES, read_json
from llm_core.hf_config.pasted import Pasted, read_pasted
from llm_core.hf_config.reading import from_hf, read_hf
from llm_core.hf_config.writing import to_hf

__all__ = ["MOST_BYTES", "Pasted", "from_hf", "inside", "label_of", "read_hf", "read_json", "read_object",
           "read_pasted", "to_hf"]
