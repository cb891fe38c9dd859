"""FLOPs of training against torch's own counter, and published figures that must come out."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llm_core import LanguageModel, ModelConfig, accounting
from llm_core.accounting import training_flops
from tests.tiny_configs import CONFIGS

V3, RUN = ModelConfig.preset("deepseek-v3"), accounting.RUNS["deepseek-v3"]
LLAMA = ModelConfig.preset("llama-3.1-405b")


@pytest.mark.parametrize("name", ["GPT-2", "DeepSeek-V3"])
def test_a_training_step_is_what_torch_counts(name):
    config = CONFIGS[name].replace(n_mtp_modules=0)
    a = config.attention
    if name == "DeepSeek-V3":  # torch's kernel wants values as wide as keys
        config = config.replace(attention=a.replace(v_head_dim=a.qk_head_dim))
    torch.manual_seed(0)
    model, ids = LanguageModel(config), torch.randint(0, config.vocab_size, (1, 23))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(ids).logits[0], ids[0]).backward()
    assert counter.get_total_flops() == training_flops(config, 23, 23, causal=False).model


def test_the_mtp_module_by_hand():
    more = training_flops(V3, 4096, 4096, mtp=True).forward - training_flops(V3, 4096, 4096).forward
    norms = 7168 * 5 + 1536 + 512
    products = 2 * 4096 * (accounting.count_parameters(V3).mtp_active - norms + 129_280 * 7168)
    scores = 2 * (4096 * 4097 // 2) * 128 * (192 + 128)
    assert more == products + scores


def test_recomputing():
    plain = training_flops(V3, 8192, 4096)
    assert plain.backward == 2 * plain.forward and plain.total == plain.model and plain.recomputed == 0
    assert training_flops(V3, 8192, 4096, recompute="all").total == 4 * plain.forward
    ups = training_flops(V3, 8192, 4096, recompute="up-projections")
    assert ups.recomputed == 2 * 8192 * 61 * (24_576 * 1536 + 32_768 * 512) and ups.model == plain.model
    with_mtp = training_flops(V3, 8192, 4096, mtp=True, recompute="up-projections")
    assert with_mtp.recomputed * 61 == ups.recomputed * 62


def test_the_rule_of_thumb_and_long_texts():
    run = training_flops(V3, 14_800 * 10**9, 4096)
    assert run.rule_of_thumb == 6 * 36_625_603_584 * 14_800 * 10**9
    assert 1.13 < run.model / run.rule_of_thumb < 1.15
    assert training_flops(V3, 2**20, 131_072).per_token > 4 * run.per_token
    short = training_flops(V3, 4096, 1)
    assert short.rule_of_thumb < short.model < 1.002 * short.rule_of_thumb


@pytest.mark.parametrize(("name", "published"), [("deepseek-v2", 155), ("deepseek-v3", 250)])
def test_flops_a_token_as_published(name, published):
    """arXiv:2505.09343, table 2, sequences of 4,096."""
    assert round(training_flops(ModelConfig.preset(name), 4096, 4096).per_token / 1e9) == published


@pytest.mark.parametrize("network", RUN.measured)
def test_published_utilisations_to_the_last_digit(network):
    """arXiv:2505.09343, table 4. They come out without the routers' products and with a peak of 989 TFLOPS."""
    tokens, causal, square = RUN.measured[network]
    for published, how in ((causal, True), (square, False)):
        flops = training_flops(V3, round(tokens), 4096, causal=how, router=False).model
        assert round(100 * accounting.utilisation(flops, 24 * RUN.gpus, accounting.GPUS["h800"].bf16), 2) == published


def test_the_published_bill():
    assert (RUN.hours, RUN.cost) == (2_788_000, 5_576_000)
    stage = RUN.stages["pre-training"]
    assert stage.hours == 180_000 * 14.8 and round(accounting.days(stage.hours, 2048), 1) == 54.2
    assert round(accounting.days(180_000, 2048), 1) == 3.7
    assert round(100 * accounting.published_utilisation(RUN, V3), 1) == 39.1
    assert round(100 * accounting.published_utilisation(RUN, V3, peak="fp8"), 1) == 19.5
    assert round(100 * accounting.published_utilisation(RUN, V3, peak="mixed"), 1) == 22.4
    assert round(100 * accounting.published_utilisation(RUN, V3, "context extension"), 1) == 24.8


def test_hours_and_utilisation_undo_each_other():
    hours = accounting.gpu_hours(3.6e21, 1e15, 0.4)
    assert hours == pytest.approx(2500) and accounting.utilisation(3.6e21, hours, 1e15) == pytest.approx(0.4)
    assert accounting.utilisation(3.6e21, 500, 1e15) == pytest.approx(2)  # impossible, and shown


def test_times_add_up_in_a_mix():
    gpu = accounting.Gpu("", 1e15, 2e15, 1)
    assert [gpu.mixed(share) for share in (0, 1, 0.5)] == pytest.approx([1e15, 2e15, 4 / 3 * 1e15])


def test_the_map_of_precision_adds_up():
    for config in (V3, LLAMA, ModelConfig.preset("gpt2")):
        work, counted = accounting.precision_map(config, 1024), accounting.count_parameters(config)
        assert sum(w.parameters for w in work) == counted.total
        assert sum(w.parameters_active for w in work) == counted.active
        assert sum(w.flops for w in work) == accounting.forward_flops(config, 1024).total
    kept = {w.part for w in accounting.precision_map(V3, 1024) if not w.fp8}
    assert kept == {"attention scores and values", "output head", "router", "token embedding", "norms"}
    assert 0.85 < accounting.fp8_share(V3, 4096) < 0.86


@pytest.mark.parametrize(("call", "words"), [
    (lambda: training_flops(V3, 0, 4096), "tokens must be a whole number of at least 1"),
    (lambda: training_flops(V3, 5, 0), "context must be a whole number"),
    (lambda: training_flops(LLAMA, 5, 4, recompute="up-projections"), "needs latent attention"),
    (lambda: training_flops(V3, 5, 4, recompute="some"), "recompute must be one of nothing, up-projections, all"),
    (lambda: training_flops(V3, 5, 4, causal=1), "causal must be True or False"),
    (lambda: accounting.gpu_hours(1e20, 1e15, 1.2), "at most 1, not 1.2; nearest: 1"),
    (lambda: accounting.gpu_hours(1e20, 0, 0.4), "peak must be a finite number above 0"),
    (lambda: accounting.utilisation(1e20, -1, 1e15), "hours must be a finite number above 0"),
    (lambda: accounting.days(5, 0), "gpus must be a whole number"),
    (lambda: accounting.GPUS["h800"].mixed(1.5), "share must be from 0 to 1"),
    (lambda: accounting.published_utilisation(RUN, V3, "post-training"), "published the tokens of post-training"),
    (lambda: accounting.published_utilisation(RUN, V3, "tuning"), "stage must be one of"),
    (lambda: accounting.published_utilisation(RUN, V3, peak="int8"), "peak must be one of bf16, fp8, mixed"),
    (lambda: accounting.precision_map(V3, 0), "tokens must be"),
])
def test_what_cannot_be_gets_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
