"""DeepSeek's FP8 files: numbers, scales of blocks, and their faults."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_core.checkpoint.hf_folder import load_hf, save_hf
from llm_core.config import FeedForwardConfig, LatentAttentionConfig
from llm_core.quantization.fp8 import dequantize_blocks
from tests.small_folders import FILE, change, configure, same, wide
from tests.tiny_configs import CONFIGS


def by_blocks(weight):
    """FP8 numbers, a scale a block, and what they stand for: one block after another, as slowly as it is written."""
    rows, cols = weight.shape
    numbers, meant = torch.zeros(rows, cols, dtype=torch.float8_e4m3fn), torch.zeros(rows, cols)
    scales = torch.zeros(math.ceil(rows / 128), math.ceil(cols / 128))
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            place = slice(i * 128, (i + 1) * 128), slice(j * 128, (j + 1) * 128)
            scales[i, j] = weight[place].abs().max() / 448
            numbers[place] = (weight[place] / scales[i, j]).to(torch.float8_e4m3fn)
            meant[place] = numbers[place].float() * scales[i, j]
    return numbers, scales, meant


@pytest.mark.parametrize("shape", [(128, 128), (576, 2048), (129, 127), (1, 300), (300, 1)])
def test_scales_of_blocks_that_are_cut_off(shape):
    numbers, scales, meant = by_blocks(torch.randn(shape) * torch.logspace(-3, 3, shape[0])[:, None])
    assert torch.equal(dequantize_blocks(numbers, scales), meant)


@pytest.fixture
def fp8(tmp_path):
    """DeepSeek-V3 of sizes that 128 does not divide, as published: all matrices but embedding, head and router."""
    config = CONFIGS["DeepSeek-V3"].replace(
        d_model=160, attention=LatentAttentionConfig(4, 144, 40, 24, 36, q_lora_rank=136),
        feed_forward=FeedForwardConfig(200, "swiglu"))
    save_hf(wide(config), tmp_path / "fp8", dtype=torch.float32)
    tensors, meant = load_file(tmp_path / "fp8" / FILE), {}
    for name, tensor in [*tensors.items()]:
        if tensor.dim() == 2 and not any(part in name for part in ("embed", "lm_head", "mlp.gate.")):
            tensors[name], tensors[name + "_scale_inv"], meant[name] = by_blocks(tensor)
    save_file(tensors, tmp_path / "fp8" / FILE)
    configure(tmp_path / "fp8", quantization_config={"quant_method": "fp8", "fmt": "e4m3",
                                                     "weight_block_size": [128, 128]})
    return tmp_path / "fp8", meant


def test_deepseeks_fp8_is_its_numbers_times_their_blocks_scales(fp8, tmp_path, monkeypatch):
    folder, meant = fp8
    tensors = {name: meant.get(name, t) for name, t in load_file(folder / FILE).items() if "scale_inv" not in name}
    assert any(t.shape == (168, 160) for t in meant.values())  # 144 + 24 rows: two blocks, the second of 40
    (tmp_path / "plain").mkdir()
    save_file(tensors, tmp_path / "plain" / FILE)
    (tmp_path / "plain" / "config.json").write_text((folder / "config.json").read_text())
    plain = load_hf(tmp_path / "plain")
    assert same(load_hf(folder), plain)
    monkeypatch.setattr("llm_core.checkpoint.safetensors_files.PIECE", 1)  # 128 rows at a time, opened for each
    monkeypatch.setattr("llm_core.checkpoint.safetensors_files.OPEN_FOR", 1)
    assert same(load_hf(folder), plain)


KV_DOWN = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"


@pytest.mark.parametrize(("edit", "said"), [
    (lambda t: t.pop(KV_DOWN + "_scale_inv"), f"{KV_DOWN} is stored as F8_E4M3 and lacks {KV_DOWN}_scale_inv"),
    (lambda t: t.update({KV_DOWN + "_scale_inv": torch.ones(1, 1)}),
     r"_scale_inv has shape \[1, 1\], and \[168, 160\] in blocks of 128 x 128 needs \[2, 2\]"),
    (lambda t: t.update({KV_DOWN + "_scale_inv": torch.ones(2, 2, dtype=torch.int32)}), "_scale_inv is stored as I32"),
    (lambda t: t.update({"model.norm.weight_scale_inv": torch.ones(1, 1)}), "no place for, first model.norm.weight_sc"),
    (lambda t: t.update({KV_DOWN: torch.ones(168, 160).to(torch.float8_e5m2)}), "is stored as F8_E5M2, and only F32")])
def test_faults_of_scales_are_named(fp8, edit, said):
    change(fp8[0], edit)
    with pytest.raises(ValueError, match=said):
        load_hf(fp8[0])


@pytest.mark.parametrize("about", [{"quant_method": "gptq", "bits": 4}, "fp8", {"quant_method": "fp8"}])
def test_other_quantisations_are_refused(folder, about):
    configure(folder, quantization_config=about)
    with pytest.raises(ValueError, match="only fp8 in blocks of"):
        load_hf(folder)
