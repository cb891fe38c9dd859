"""Mistakes of mixture of experts: who is chosen, with what weight, and when the bias moves."""

from __future__ import annotations

from collections.abc import Callable

from llm_core import balancing
from llm_core.config import ModelConfig
from llm_core.mistakes.parts import moe_layers
from llm_core.mistakes.switches import Switches, mistake
from llm_core.model import LanguageModel
from llm_core.moe import Router, Routing


def _lacks(test: Callable, otherwise: str) -> Callable[[ModelConfig], str]:
    """What a model without experts lacks is experts; one that fails the test, `otherwise`."""

    def lacks(config: ModelConfig) -> str:
        if not config.n_moe_layers:
            return "experts (MoE)"
        return "" if test(config.moe) else otherwise

    return lacks


_EXPERTS = _lacks(lambda moe: True, "")
_BIAS = _lacks(lambda moe: moe.selection_bias, "a selection bias")


def _routers(model: LanguageModel) -> list[Router]:
    return [layer.router for layer in moe_layers(model)]


# Who is chosen, and with what weight

@mistake("gates ignore the bias", "routers that add the bias to the scores and go on with the sum", _BIAS)
def bias_in_the_gates(switches: Switches, model: LanguageModel):
    """Gate weights are made of score plus bias. The bias should only select."""
    for router in _routers(model):

        def forward(right, x, router=router):
            routing = right(x)
            weights = (routing.scores + router.selection_bias).gather(1, routing.experts)
            if router.moe.norm_topk_prob:
                weights = weights / weights.sum(-1, keepdim=True)
            return Routing(routing.experts, weights * router.moe.routed_scaling_factor, routing.scores)

        switches.wrap(router, "forward", forward)


@mistake("gates ignore the bias", "routers that multiply by a mask of zeros and ones",
         _lacks(lambda moe: moe.selection_bias and moe.n_limited_groups < moe.n_expert_groups,
                "a selection bias, and groups of which some are closed"))
def groups_masked_with_zero(switches: Switches, model: LanguageModel):
    """Experts of closed groups get score 0 instead of -infinity. Where biases pull the open ones below 0, the closed
    ones win."""
    for router in _routers(model):
        switches.wrap(router, "_open_groups_only", lambda right, selection:
                      right(selection).masked_fill(right(selection).isinf(), 0.0))


@mistake("equal to a second implementation", "ports that lost a number of the config",
         _lacks(lambda moe: moe.routed_scaling_factor != 1, "a routed_scaling_factor other than 1"))
def no_routed_scaling_factor(switches: Switches, model: LanguageModel):
    """The gates are not multiplied by routed_scaling_factor: routed experts count too little beside shared ones."""
    for router in _routers(model):
        switches.swap(router, "moe", router.moe.replace(routed_scaling_factor=1.0))


@mistake("equal to a second implementation", "routers that scale in the branch that also normalises",
         _lacks(lambda moe: moe.routed_scaling_factor != 1 and not moe.norm_topk_prob,
                "a routed_scaling_factor other than 1, and norm_topk_prob False"))
def scaled_only_when_normalised(switches: Switches, model: LanguageModel):
    """The factor is applied only where the chosen weights are made to sum to one: right for V3, wrong for V2."""
    no_routed_scaling_factor(switches, model)


@mistake("equal to a second implementation", "code written for V2 that loads V3",
         _lacks(lambda moe: moe.scoring == "sigmoid", "sigmoid scores"))
def softmax_for_sigmoid(switches: Switches, model: LanguageModel):
    """Scores are a softmax over all experts, where each expert should be scored on its own."""
    for router in _routers(model):
        switches.swap(router, "moe", router.moe.replace(scoring="softmax"))


@mistake("underflow gives no NaN", "routers that divide by a sum without a thought",
         _lacks(lambda moe: moe.norm_topk_prob and moe.scoring == "sigmoid", "sigmoid scores that are normalised"))
def zero_by_zero(switches: Switches, model: LanguageModel):
    """The chosen scores are divided by their bare sum. When all of them round to 0, that is 0 / 0."""
    for router in _routers(model):

        def forward(right, x, factor=router.moe.routed_scaling_factor):
            routing = right(x)
            weights = routing.scores.gather(1, routing.experts)
            return Routing(routing.experts, weights / weights.sum(-1, keepdim=True) * factor, routing.scores)

        switches.wrap(router, "forward", forward)


@mistake("equal to a second implementation", "layers that bring a residual of their own", _EXPERTS)
def residual_in_the_expert_layer(switches: Switches, model: LanguageModel):
    """The expert layer adds its input to its output, and the block does so again."""

    def forward(right, x):
        out, routing = right(x)
        return x + out, routing

    for layer in moe_layers(model):
        switches.wrap(layer, "forward", forward)


@mistake("together = alone", "training code with a capacity factor that is used for serving", _EXPERTS)
def tokens_dropped_in_use(switches: Switches, model: LanguageModel):
    """Each expert takes no more than its even share, the rest is dropped: an answer depends on who else is asking."""

    def forward(right, x, routing):
        (N, E), K = routing.scores.shape, routing.experts.shape[1]
        return right(x, balancing.drop_overflow(routing, balancing.capacity(N, E, K, factor=1.0)))

    for layer in moe_layers(model):
        switches.wrap(layer.experts, "forward", forward)


# When the bias moves

@mistake("reading changes nothing", "routers that balance inside forward", _BIAS)
def bias_moved_in_eval(switches: Switches, model: LanguageModel):
    """Every forward pass moves the selection bias, also when nobody is training: the model drifts as it is used."""
    for router in _routers(model):
        switches.callback(router.selection_bias.copy_, router.selection_bias.clone())

        def forward(right, x, router=router):
            routing = right(x)
            router.update_bias(routing.experts, speed=0.01)
            return routing

        switches.wrap(router, "forward", forward)


@mistake("all is saved", "routers that keep the bias as a plain tensor, or as a buffer marked not to be kept", _BIAS)
def bias_lost_on_save(switches: Switches, model: LanguageModel):
    """The selection bias is not among the tensors that are saved. The loaded model chooses other experts."""
    for router in _routers(model):
        switches.swap(router, "_non_persistent_buffers_set", {"selection_bias"})
