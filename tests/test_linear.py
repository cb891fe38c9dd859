"""The ways of llm_core.linear, each against torch's own."""

import threading

import pytest
import torch
import torch.nn.functional as F

from llm_core import linear as ways
from llm_core.linear import Linear, by_head, linear
from llm_core.weighted_rows import runs, weighted_rows

SHAPES = [(16, 24), (150, 300), (256, 256), (300, 700), (520, 1040)]  # below SMALL, to MIDDLE, to LARGE, above it


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_shapes_lie_on_all_sides():
    sizes = [o * i for o, i in SHAPES]
    assert sizes[0] < ways.SMALL < sizes[1] < ways.MIDDLE <= sizes[2] < sizes[3] <= ways.LARGE < sizes[4]


@pytest.mark.parametrize("rows", [(), (1,), (1, 1), (2,), (1, 3), (2, 5, 7), (0,)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch(shape, bias, rows):
    x, w, b = normal(*rows, shape[1]), normal(*shape, seed=1), normal(shape[0], seed=2) if bias else None
    wanted = F.linear(x.double(), w.double(), None if b is None else b.double())
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            got = linear(x, w, b)
        assert got.dtype == torch.float32 and got.shape == wanted.shape
        torch.testing.assert_close(got.double(), wanted, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_strided_inputs_and_weights(shape):
    O, I = shape
    wide, w = normal(1, 3, 2 * I), normal(I, O, seed=1).T
    with torch.inference_mode():
        for x in (wide[:, :1, ::2], wide[:, :, I:], wide.expand(2, 3, 2 * I)[:, :, :I]):
            torch.testing.assert_close(linear(x, w), x.double().matmul(w.double().T).float(), atol=2e-4, rtol=1e-5)


def test_gradients_are_those_of_torch():
    layer = Linear(512, 600)
    x = normal(3, 512).requires_grad_()
    layer(x).square().sum().backward()
    grads = [x.grad, layer.weight.grad, layer.bias.grad]
    again, w, b = (t.detach().clone().requires_grad_() for t in (x, layer.weight, layer.bias))
    F.linear(again, w, b).square().sum().backward()
    for got, wanted in zip(grads, (again.grad, w.grad, b.grad), strict=True):
        torch.testing.assert_close(got, wanted)


def test_16_bits_and_autocast_are_left_to_torch():
    x, w = normal(1, 512), normal(600, 512, seed=1)
    with torch.inference_mode():
        assert torch.equal(linear(x.bfloat16(), w.bfloat16()), F.linear(x.bfloat16(), w.bfloat16()))
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, w).dtype == torch.bfloat16


def test_many_threads_at_once():
    """The place for products is each thread's own."""
    w, wrong = normal(256, 512), []

    def work(seed):
        x = normal(1, 512, seed=seed)
        wanted = F.linear(x, w)
        with torch.inference_mode():
            for _ in range(200):
                if not torch.allclose(linear(x, w), wanted, atol=1e-3):
                    wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("B, T", [(1, 1), (1, 3), (2, 1)])
def test_by_head(B, T):
    x, w = normal(B, T, 4, 6).transpose(1, 2), normal(4, 6, 5, seed=1)
    wanted = torch.einsum("bhti,hio->bhto", x, w)
    for mode in (torch.inference_mode, torch.enable_grad):
        with mode():
            torch.testing.assert_close(by_head(x, w), wanted)
            torch.testing.assert_close(by_head(x, w.mT.contiguous().mT), wanted)


@pytest.mark.parametrize("keys, values", [(6, 4), (6, 0), (1, 3)])
def test_by_head_with_a_part_of_one_matrix(keys, values):
    """As MLA takes its keys' part out of kv_up: every head's rows lie between other rows."""
    whole = normal(4 * (keys + values), 5)
    w, x = whole.view(4, keys + values, 5)[:, :keys], normal(1, 1, 4, keys, seed=1).transpose(1, 2)
    wanted = torch.einsum("bhti,hio->bhto", x, w)
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            torch.testing.assert_close(by_head(x, w), wanted)


def test_weighted_rows():
    matrix, places, weights = normal(9, 5), torch.tensor([[0, 8, 3], [3, 3, 2]]), normal(2, 3, seed=1)
    wanted = torch.stack([sum(weights[n, i] * matrix[places[n, i]] for i in range(3)) for n in range(2)])
    torch.testing.assert_close(weighted_rows(matrix, places, weights), wanted)
    assert runs(3, 2, 5).tolist() == [[0, 1], [5, 6], [10, 11]]
