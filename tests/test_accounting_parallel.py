"""Memory on one of many GPUs, by hand, and caches against tensors that are really divided."""

import pytest

from llm_core import ModelConfig, accounting
from llm_core.accounting import Layout, cache_bytes_per_gpu, training_memory_per_gpu
from llm_core.cache import Cache
from tests.tiny_configs import CONFIGS

V3, LLAMA = ModelConfig.preset("deepseek-v3"), ModelConfig.preset("llama-3.1-405b")
EVERYTHING = 671_026_404_352 + 11_610_067_968  # main model and MTP
EXPERTS = 59 * 256 * 3 * 7168 * 2048  # 58 layers and MTP


def test_v3_by_hand():
    on_a_gpu = training_memory_per_gpu(V3)
    held = 2 * ((EVERYTHING - EXPERTS) / 16 + EXPERTS / 16 / 64)
    assert on_a_gpu.parameters == pytest.approx(held, abs=1)
    assert on_a_gpu.weights == pytest.approx(2 * held, abs=1) and on_a_gpu.gradients == pytest.approx(4 * held, abs=1)
    assert on_a_gpu.master_weights == pytest.approx(4 * EVERYTHING / 2048, abs=1)
    assert on_a_gpu.moments == pytest.approx(2 * 2 * EVERYTHING / 2048, abs=1)
    assert 23e9 < on_a_gpu.total < 24e9 < accounting.GPUS["h800"].memory


def test_one_gpu_alone_holds_what_training_memory_counts():
    for config in (V3, LLAMA, ModelConfig.preset("gpt2")):
        for sharded in (True, False):
            alone = training_memory_per_gpu(config, Layout(1, sharded_states=sharded), gradient_bits=16, moment_bits=32)
            usual = accounting.training_memory(config)
            assert (alone.parameters, alone.total) == (usual.parameters, usual.total)


def test_all_gpus_together_hold_every_state_once_under_zero_1():
    layout = Layout(64, pipeline=4, expert=8)
    one = training_memory_per_gpu(V3, layout)
    assert 64 * one.master_weights == pytest.approx(4 * EVERYTHING, rel=1e-9)
    unsharded = training_memory_per_gpu(V3, Layout(64, pipeline=4, expert=8, sharded_states=False))
    assert unsharded.master_weights == 4 * unsharded.parameters and unsharded.weights == one.weights
    twice = training_memory_per_gpu(V3, Layout(64, pipeline=4, expert=8, stage_copies=2))
    assert twice.gradients == 2 * one.gradients and twice.moments == one.moments


def test_mla_is_replicated_where_gqa_is_divided():
    assert [cache_bytes_per_gpu(V3, n) for n in (1, 2, 8, 128)] == [70_272] * 4
    assert [cache_bytes_per_gpu(LLAMA, n) for n in (1, 2, 8, 16, 128)] == [516_096, 258_048, 64_512, 64_512, 64_512]
    assert cache_bytes_per_gpu(V3, 8) > cache_bytes_per_gpu(LLAMA, 8)
    gpt = ModelConfig.preset("gpt3-175b")
    assert 96 * cache_bytes_per_gpu(gpt, 96) == accounting.cache_bytes_per_token(gpt)
    mqa = LLAMA.replace(attention=LLAMA.attention.replace(n_kv_heads=1))
    assert cache_bytes_per_gpu(mqa, 8) == cache_bytes_per_gpu(mqa, 1)


def test_data_parallel_attention_divides_sequences():
    assert cache_bytes_per_gpu(V3, 8, 64, 1000, data_parallel_attention=True) == 8 * 1000 * 70_272
    assert cache_bytes_per_gpu(V3, 8, 9, 1000, data_parallel_attention=True) == 2 * 1000 * 70_272  # the fullest
    assert cache_bytes_per_gpu(V3, 3, 9, 10, data_parallel_attention=True) == 3 * 10 * 70_272  # any number of GPUs


@pytest.mark.parametrize("name", ["GQA", "GPT-2"])
def test_a_divided_cache_has_the_bytes_of_a_model_with_fewer_heads(name):
    config = CONFIGS[name]
    heads, kv = config.attention.n_heads, config.attention.kv_heads
    share = config.attention.replace(n_heads=heads // kv, n_kv_heads=1, head_dim=config.head_dim)
    assert Cache(config.replace(attention=share), 2, 5).nbytes == cache_bytes_per_gpu(config, kv, 2, 5, bits=32)


def test_one_gpu_is_the_plain_cache():
    for name, config in CONFIGS.items():
        for how in (True, False):
            assert cache_bytes_per_gpu(config, 1, 3, 7, 16, data_parallel_attention=how) == accounting.cache_bytes(
                config, 3, 7), name


@pytest.mark.parametrize(("call", "words"), [
    (lambda: Layout(2048, pipeline=16, expert=60), "pipeline 16 x expert 60 does not divide the 2048 GPUs"),
    (lambda: Layout(0), "gpus must be a whole number"),
    (lambda: Layout(8, sharded_states=1), "sharded_states must be True or False"),
    (lambda: training_memory_per_gpu(V3, 2048), "layout must be Layout"),
    (lambda: training_memory_per_gpu(V3, moment_bits=0), "moment_bits must be"),
    (lambda: cache_bytes_per_gpu(V3, 3), "does not divide the 128 query heads; nearest: 2, 4"),
    (lambda: cache_bytes_per_gpu(ModelConfig.preset("smollm2-135m"), 9, 1, 1, 0), "bits must be"),
    (lambda: cache_bytes_per_gpu(LLAMA.replace(attention=LLAMA.attention.replace(n_heads=120, n_kv_heads=12,
                                                                                  head_dim=128)), 8),
     "neither divides the 12 key-value heads nor is a multiple"),
])
def test_what_cannot_be_gets_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
