"""Our MTP modules against transformers' MtpLayer: the order in eh_proj, the norms, the hidden state handed on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import MtpCache
from transformers.modeling_layers import MtpModel

from llm_core import LanguageModel
from llm_core.checkpoint.hf_folder import load_hf
from tests.parity.families import TOKENS, VOCAB, v3, widen

DEPTH = 2
RENAMED = {"layers.": "mtp.", "mtp_block.": "block.", "post_norm": "final_norm", "self_attn": "attention",
           "input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm", "q_a_proj": "q_down",
           "q_a_layernorm": "q_norm", "q_b_proj": "q_up", "kv_a_proj_with_mqa": "kv_down", "kv_a_layernorm": "kv_norm",
           "kv_b_proj": "kv_up", "mlp.gate.e_score_correction_bias": "feed_forward.router.selection_bias",
           "mlp.gate.": "feed_forward.router.", "shared_experts": "shared", "mlp.": "feed_forward.",
           "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def renamed(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """A module's tensors as they stand in transformers' memory: experts stacked, the gate's rows above the up's."""
    ours = {}
    for name, tensor in theirs.items():
        parts = {name: tensor}
        if name.endswith("gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            parts = {name.replace("gate_up_proj", "gate_proj"): gate, name.replace("gate_up_proj", "up_proj"): up}
        for key, part in parts.items():
            for there, here in RENAMED.items():
                key = key.replace(there, here)
            ours[key] = part.detach().clone()
    return ours


@pytest.mark.parametrize("seed", [0, 1])
def test_two_depths_equal_transformers(seed, tmp_path):
    """transformers counts a module's positions from k, we from 0: under RoPE, YaRN included, it is the same."""
    torch.manual_seed(seed)
    theirs = widen(v3(num_nextn_predict_layers=DEPTH))
    modules = MtpModel(theirs, DEPTH).eval()
    widen(modules.layers)
    theirs.save_pretrained(tmp_path)
    main = load_hf(tmp_path)
    ours = LanguageModel(main.config.replace(n_mtp_modules=DEPTH)).eval()
    extra = {name: t for name, t in modules.state_dict().items() if name.startswith("layers.")}
    ours.load_state_dict({**main.state_dict(), **renamed(extra)})
    ids = torch.randint(0, VOCAB, (2, TOKENS))
    with torch.no_grad():
        hidden = theirs(ids, output_hidden_states=True).hidden_states[-1]  # behind the final norm
        output, cache = ours(ids), MtpCache(config=theirs.config.get_mtp_config())
        torch.testing.assert_close(ours.final_norm(output.hidden), hidden, atol=1e-4, rtol=1e-4)
        for k, got in enumerate(ours.predict_ahead(output.hidden, ids), start=1):
            positions = torch.arange(k, TOKENS)[None]
            hidden = modules.forward_layer(k - 1, hidden[:, :TOKENS - k], positions, cache, input_ids=ids[:, k:])
            wanted = modules._project_to_logits(hidden)
            assert wanted.std() > 0.3  # the comparison means something
            torch.testing.assert_close(got.logits, wanted, atol=1e-4, rtol=1e-4)
