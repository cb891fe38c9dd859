"""The balance loss against transformers' own for Mixtral, which is K times ours."""

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from llm_core import balancing
from llm_core.config import MoEConfig
from llm_core.moe import Router


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_expert_balance_loss_equals_mixtrals(k, seed):
    torch.manual_seed(seed)
    router, x = Router(6, MoEConfig(8, k, 4)), torch.randn(40, 6)
    torch.nn.init.normal_(router.weight)
    theirs = load_balancing_loss_func((x @ router.weight.T,), num_experts=8, top_k=k)
    torch.testing.assert_close(k * balancing.expert_balance_loss(router(x)), theirs)
