"""What fits: bytes against sums by hand, searches against trying every number, machines against their own sheets."""

import dataclasses
import re

import pytest

from llm_core import ModelConfig, accounting, plots, presets
from llm_core.accounting import HARDWARE, Hardware
from llm_core.config import FeedForwardConfig, GroupedAttentionConfig

V3, GPT2, LLAMA = (ModelConfig.preset(name) for name in ("deepseek-v3", "gpt2", "llama-3.1-8b"))
TINY = ModelConfig(10, 8, 4, 2, GroupedAttentionConfig(2), FeedForwardConfig(8))
TINY_PARAMETERS = 10 * 4 + 8 * 4 + 2 * (4 * 16 + 2 * 32 + 2 * 4) + 4 + 10 * 4  # RMSNorm, no biases, its own head


def test_running_by_hand():
    need = accounting.memory_need(LLAMA, batch=2, context=8192, weight_bits=4, cache_bits=16)
    assert need.by_part == {"weights": 8_030_261_248 // 2, "cache": 2 * 8192 * 131_072,
                            "activations": 2 * (2 * 4096 + 4 * 128_256)}
    assert need.total == sum(need.by_part.values())
    assert sum(need.weights_by_part.values()) == need.by_part["weights"]
    assert accounting.memory_need(V3, weight_bits=8).by_part["weights"] == 671_026_404_352  # MTP stays at home
    odd = accounting.memory_need(TINY, weight_bits=3)
    assert odd.by_part["weights"] == -(-TINY_PARAMETERS * 3 // 8) == sum(odd.weights_by_part.values())


def test_training_by_hand():
    need = accounting.memory_need(GPT2, batch=3, context=1024, training=True)
    n = 124_439_808
    assert need.by_part == {"weights": 2 * n, "gradients": 2 * n, "master weights": 4 * n, "Adam's moments": 8 * n,
                            "activations": 3 * 1024 * (2 * 768 * 13 + 4 * 50257)}
    plain = accounting.memory_need(GPT2, weight_bits=32, training=True).by_part
    assert "master weights" not in plain and plain["weights"] + plain["gradients"] + plain["Adam's moments"] == 16 * n
    v3 = accounting.memory_need(V3, context=10, training=True)
    assert v3.by_part["weights"] == 2 * (671_026_404_352 + 11_610_067_968)
    assert v3.by_part["activations"] == 10 * (2 * 7168 * 63 + 4 * 129_280 * 2)  # MTP: a layer and logits of its own
    assert v3.weights_by_part["MTP"] == 2 * 11_610_067_968


@pytest.mark.parametrize("kinds", [{}, {"weight_bits": 4, "cache_bits": 8}, {"training": True}])
@pytest.mark.parametrize("memory", [1, 500, 2000, 4000, 5003, 9999])
def test_searches_find_what_trying_all_finds(memory, kinds):
    def fits(batch, context):
        return accounting.memory_need(TINY, batch, context, **kinds).total <= memory

    assert accounting.largest_context(TINY, memory, 2, **kinds) == max(
        (n for n in range(1, 2000) if fits(2, n)), default=0)
    assert accounting.largest_batch(TINY, memory, 3, **kinds) == max(
        (n for n in range(1, 2000) if fits(n, 3)), default=0)


def test_the_largest_is_the_last_that_fits():
    memory = 8 * HARDWARE["h200"].memory
    longest = accounting.largest_context(V3, memory, weight_bits=8)
    below, above = (accounting.memory_need(V3, 1, n, 8).total for n in (longest, longest + 1))
    assert below <= memory < above
    assert longest == (memory - 671_026_404_352 - 2 * 7168 - 4 * 129_280) // 70_272
    assert accounting.largest_context(TINY, 10**30, 1) == accounting.fits.MOST  # nobody searches further


def test_machines_needed():
    need = accounting.memory_need(V3, weight_bits=16)
    assert accounting.machines_needed(need, HARDWARE["h100"]) == 17  # 1,342 GB and a little by 80
    with pytest.raises(ValueError, match="memory must be a whole number of at least 1, not None"):
        accounting.machines_needed(need, Hardware("unknown", 1, 1))


@pytest.mark.parametrize("naive", [False, True])
def test_where_computing_takes_over(naive):
    h200 = HARDWARE["h200"].times(8)
    turn = accounting.compute_bound_from(V3, h200, 4096, weight_bits=8, naive=naive)
    sides = [accounting.decode_bound(V3, h200, n, 4096, 8, naive=naive).limited_by for n in (turn - 1, turn)]
    assert sides == ["memory", "compute"]


def test_computing_never_takes_over_where_a_cache_is_read_longer_than_a_token_takes():
    assert accounting.compute_bound_from(LLAMA, HARDWARE["rtx-3070"], 8192, weight_bits=4) is None
    by_token = accounting.cache_bytes(LLAMA, 1, 8192) / 448e9
    assert by_token > accounting.forward_flops(LLAMA, 1, 8192).total / 40.6e12
    slow = Hardware("all memory", 1e30, 1.0)
    assert accounting.compute_bound_from(GPT2, slow, 10) == 1


def test_naive_and_absorbed_decoding():
    h100 = HARDWARE["h100"]
    bounds = [accounting.decode_bound(V3, h100, 4, 2048, naive=naive) for naive in (True, False)]
    assert [b.flops for b in bounds] == [4 * accounting.forward_flops(V3, 1, 2048, absorbed=a).total
                                         for a in (False, True)]
    assert bounds[0].cache_bytes == bounds[1].cache_bytes and bounds[0].flops > 10 * bounds[1].flops
    assert bounds[1].each == bounds[1].tokens_per_second / 4
    assert accounting.decode_bound(GPT2, h100, naive=True) == accounting.decode_bound(GPT2, h100)
    with pytest.raises(ValueError, match="naive must be True or False"):
        accounting.decode_bound(V3, h100, naive="yes")


def test_eight_bits_are_computed_at_the_fp8_peak_where_there_is_one():
    h100, a100 = HARDWARE["h100"], HARDWARE["a100"]
    assert [h100.peak(bits) for bits in (32, 16, 8, 4)] == [989.5e12, 989.5e12, 1979e12, 989.5e12]
    assert a100.peak(8) == a100.peak(16) == 312e12
    bound = accounting.decode_bound(LLAMA, h100, 8, 100, weight_bits=8)
    assert bound.compute_seconds == bound.flops / 1979e12


def test_several_machines_are_one_with_more_of_everything():
    eight = HARDWARE["h200"].times(8)
    assert (eight.memory, eight.bytes_per_second, eight.name) == (1_128_000_000_000, 38.4e12, "8 × NVIDIA H200 SXM")
    assert HARDWARE["laptop"].times(3).fp8_flops_per_second is None
    assert HARDWARE["h100"].times(1) == HARDWARE["h100"]
    with pytest.raises(ValueError, match="n must be a whole number of at least 1, not 0"):
        HARDWARE["h100"].times(0)


@pytest.mark.parametrize("key", HARDWARE)
def test_a_machines_figures_are_those_of_its_source(key):
    """Memory, bandwidth and peaks can be read in the sentence that names the sheet."""
    h, said = HARDWARE[key], HARDWARE[key].source.replace(",", "")
    numbers = {float(n) for n in re.findall(r"\d+(?:\.\d+)?", said)}
    assert h.memory / 1e9 in numbers
    if key == "laptop":
        assert (h.bytes_per_second, h.flops_per_second) == (2 * 8 * 5.6e9, 8 * 3e9 * 32)
        return
    assert {h.bytes_per_second / 1e9, h.bytes_per_second / 1e12} & numbers
    for peak in filter(None, (h.flops_per_second, h.fp8_flops_per_second)):
        assert peak / 1e12 in numbers or 2 * peak / 1e12 in numbers and "/ 2" in said
    assert (h.fp8_flops_per_second is None) == ("no FP8" in said or "Apple" in said)


def test_training_bound():
    flops = accounting.training_flops(GPT2, 1024, 1024).model
    bound = accounting.training_bound(GPT2, HARDWARE["h100"], 1024)
    assert bound == pytest.approx(989.5e12 * 1024 / flops)
    # An hour at the peak, by the other road.
    assert accounting.gpu_hours(accounting.training_flops(GPT2, round(3600 * bound / 1024) * 1024, 1024).model,
                                989.5e12, 1.0) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: accounting.memory_need(V3, batch=0), "batch must be a whole number of at least 1, not 0"),
    (lambda: accounting.memory_need(V3, weight_bits=8, training=True), "16 or 32 bits, not 8; nearest: 16"),
    (lambda: accounting.memory_need(V3, weight_bits=64, training=True), "not 64; nearest: 32"),
    (lambda: accounting.largest_batch(V3, 0), "memory must be a whole number of at least 1, not 0"),
    (lambda: Hardware("x", 1, 1, memory=1.5), "memory must be a whole number"),
    (lambda: Hardware("x", 1, 1, fp8_flops_per_second=-1), "fp8_flops_per_second must be a finite number above 0")])
def test_errors(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize(("config", "bits", "training"), [
    (LLAMA, 4, False), (V3, 8, False), (GPT2, 32, True), (V3, 16, True)])
def test_formulas_come_out(config, bits, training):
    """Each line's left side, calculated as it is written, is its right side."""
    need = accounting.memory_need(config, 3, 1000, bits, 8, training)
    lines = accounting.need_formulas(config, need, 3, 1000, bits, 8, training)
    assert len(lines) == len(need.by_part) + 1
    for line in lines:
        left, right = line.split(": ", 1)[1].rsplit(" = ", 1)
        left = re.sub(r"\((key and value|[^)]*latent[^)]*)\)", lambda m: "" if "key and" in m[0] else m[0], left)
        sum_ = re.sub(r"[^\d()+* /]", "", left.replace(",", "").replace("×", "*").replace("÷", "/"))
        assert eval(sum_) == int(re.sub(r"\D", "", right)), line  # our own text, digits and signs alone
    bound = accounting.decode_bound(config, HARDWARE["t4"], 3, 1000, 16, 8)
    said = accounting.decode_formula(bound, HARDWARE["t4"], 3, 16)
    assert f"({bound.weight_bytes:,} + {bound.cache_bytes:,}) bytes ÷ 320 GB/s" in said
    assert f"{bound.flops:,} FLOPs ÷ 65.0 TFLOPS" in said
    assert said.endswith(f"= {accounting.human_count(bound.tokens_per_second)}")


def test_v3s_file_number_by_number():
    """Against the hub's count by type: bf16 and FP8 hold numbers, F32 scales and biases."""
    steps = accounting.numbers_in_v3_file()
    assert sum(steps.values()) == accounting.V3_ON_THE_HUB == 3_918_786_560 + 680_571_043_840 + 41_555_600
    assert steps["scales of FP8 blocks"] + steps["biases of the routers"] == 41_555_600
    assert steps["main model"] == 671_026_404_352 and steps["MTP module"] == 11_610_067_968
    assert steps["embedding, a second time"] + steps["output head, a second time"] == 2 * 129_280 * 7168


def test_estimates_stay_estimates():
    assert {e.model for e in accounting.ESTIMATES} == {"GPT-4", "GPT-4.5"}
    for e in accounting.ESTIMATES:
        assert e.parameters[0] <= e.parameters[1] and e.kind in ("press report", "rumour", "guess") and e.said_by
    assert not [name for name in presets.names() if "4.5" in name or name.replace("-", "").startswith("gpt4")]


# The figures

def test_the_stack_holds_the_bytes_and_the_line_the_memory():
    need = accounting.memory_need(LLAMA, 1, 8192, 4)
    figure = plots.memory_stack(need, 8 * 10**9, "x")
    bar = figure.data[0]
    assert sum(bar.x) == pytest.approx(bar.base[-1] + bar.x[-1]) == pytest.approx(need.total / 1e9, abs=1e-5)
    assert dict(zip(bar.text, bar.marker.color))["cache"] == plots.COLOURS["cache"]
    assert dict(zip(bar.text, bar.x))["cache"] == round(need.by_part["cache"] / 1e9, 6)
    assert figure.layout.shapes[0].x0 == 8.0 and figure.layout.xaxis.range[1] > 8


def test_the_roofline_marks_what_limits_and_what_fits():
    h200 = HARDWARE["h200"].times(8)
    bounds = {way: {n: accounting.decode_bound(V3, h200, n, 4096, 8, naive=way == "naive") for n in (1, 8, 64)}
              for way in ("absorbed", "naive")}
    figure = plots.decode_roofline(bounds, 8, 20)
    assert [t.name for t in figure.data] == ["absorbed", "naive"]
    assert list(figure.data[1].marker.symbol) == ["circle", "circle", "circle-open"]
    assert list(figure.data[0].y) == [float(f"{b.tokens_per_second:.5g}") for b in bounds["absorbed"].values()]
    assert [s.type for s in figure.layout.shapes] == ["line", "rect"]
    assert len(plots.decode_roofline(bounds, 8, 64).layout.shapes) == 1


def test_the_waterfall_ends_at_the_sum():
    steps = accounting.numbers_in_v3_file()
    bar = plots.waterfall(steps, 660 * 10**9, ["#000000"] * 6).data[0]
    assert bar.base[0] == 660 and bar.base[1] == 671.026404
    assert bar.base[-1] + bar.x[-1] == pytest.approx(684.531386)


@pytest.mark.parametrize("figure", [
    plots.memory_stack(accounting.memory_need(V3, training=True), 10**12, "8 × a machine"),
    plots.waterfall(accounting.numbers_in_v3_file(), 660 * 10**9, ["#000000"] * 6)])
def test_figures_are_light_and_transparent(figure):
    assert len(figure.to_json()) < 6000 and figure.layout.paper_bgcolor == "rgba(0,0,0,0)"


def test_hardware_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HARDWARE["h100"].memory = 1
