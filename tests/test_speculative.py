"""Speculative decoding: the same text as plain greedy, the same distribution when sampled, and honest books.

Most drafts here are made up, so that every mix of right and wrong guesses comes up: MTP modules of random weights guess
right too seldom for that.
"""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core import LanguageModel, generate, stream
from llm_core.config import FeedForwardConfig, GroupedAttentionConfig, ModelConfig, RopeConfig
from llm_core.drafts import BigramDraft, ModelDraft, MTPDraft, PromptLookupDraft, Proposal
from llm_core.sampling import Sampler
from llm_core.speculative import speculate, verify
from tests.test_mtp import build
from tests.tiny_configs import CONFIGS, some_ids

V = 61


def tokens_of(passes) -> list[int]:
    return [token for p in passes for token in p.tokens]


def noisy(model, std=0.03):
    """Nearly the same model: a draft that is right most of the time, not always."""
    other = build("MHA", 1)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for p in other.parameters():
            p.add_(torch.randn_like(p) * std)
    return other


class Scripted:
    """Guesses the tokens of `plan` at their places in the text, sure of each."""

    def __init__(self, plan):
        self.plan = plan

    def propose(self, text, hidden, count, sampler):
        assert hidden.shape[1] == len(text) - 1
        guess = torch.tensor(self.plan[len(text):len(text) + count], dtype=torch.long)
        return Proposal(guess.tolist(), torch.nn.functional.one_hot(guess, V).float())


# Greedy: the very same text

@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_greedy_with_random_mtp_modules_equals_plain_greedy(name, depth):
    model, ids = build(name, depth), some_ids(1, 10)
    wanted = generate(model, ids, 40)[0, 10:].tolist()
    passes = list(speculate(model, ids, 40))
    assert tokens_of(passes) == wanted
    assert all(len(p.drafted) <= depth for p in passes) and any(len(p.drafted) == depth for p in passes)


@pytest.mark.parametrize("name", ["MHA", "GQA", "MLA", "DeepSeek-V3"])
@settings(max_examples=20, deadline=None)
@given(right=st.lists(st.booleans(), min_size=20, max_size=20), gamma=st.integers(1, 6), start=st.integers(1, 30))
def test_greedy_equals_plain_greedy_whatever_is_guessed(name, right, gamma, start):
    """Any mix of right and wrong guesses, any prompt length: the cache is cut back to the right place each time."""
    model, ids = build(name, 0), some_ids(1, start)
    wanted = generate(model, ids, 20)[0].tolist()
    plan = wanted[:start] + [t if ok else (t + 1) % V for t, ok in zip(wanted[start:], right, strict=True)]
    passes = list(speculate(model, ids, 20, Scripted(plan), gamma=gamma))
    assert tokens_of(passes) == wanted[start:]
    for p in passes:
        assert p.drafted[:p.accepted] == p.tokens[:-1] and p.accepted == len(p.tokens) - 1
    assert [p.passes for p in passes] == list(range(1, len(passes) + 1))


def test_other_drafts_give_the_same_text_too():
    model, ids = build("MHA", 1), some_ids(1, 12)
    wanted = generate(model, ids, 45)[0, 12:].tolist()
    drafts = {"noisy": noisy(model), "bigram": BigramDraft(generate(model, ids, 45)[0], V),
              "lookup": PromptLookupDraft(V), "itself": ModelDraft(model)}
    accepted = {}
    for name, draft in drafts.items():
        passes = list(speculate(model, ids, 45, draft))
        assert tokens_of(passes) == wanted, name
        accepted[name] = sum(p.accepted for p in passes)
    assert accepted["itself"] == 35 and all(n > 0 for n in accepted.values()), accepted  # 45 = 1 + 8 (4 + 1) + 3 + 1


def test_a_draft_that_is_always_right_brings_gamma_plus_one_tokens_a_pass():
    model, ids = build("DeepSeek-V3", 0), some_ids(1, 10)
    passes = list(speculate(model, ids, 31, model, gamma=5))
    assert [len(p.tokens) for p in passes] == [1] + [6] * 5
    assert [len(p.tokens) for p in speculate(model, ids, 29, model, gamma=5)] == [1] + [6] * 4 + [4]  # none in vain


def test_the_model_makes_one_call_a_pass_and_reads_no_token_twice():
    model, ids, read = build("MLA", 0), some_ids(1, 10), []
    model.register_forward_pre_hook(lambda m, args: read.append(args[0].shape[1]))
    plan = generate(model, ids, 20)[0].tolist()
    read.clear()
    passes = list(speculate(model, ids, 20, Scripted(plan), gamma=3))
    assert read == [10] + [1 + len(p.drafted) for p in passes[1:]]


# It ends where stream ends

def test_it_ends_at_the_context_and_takes_the_last_token_too():
    model = build("MHA", 2)
    for start in (58, 60, 62, 63, 64):
        ids = some_ids(1, start)
        wanted = generate(model, ids, 99)[0, start:].tolist()
        assert len(wanted) == 65 - start
        for draft in (None, model, PromptLookupDraft(V)):
            assert tokens_of(speculate(model, ids, 99, draft)) == wanted
    assert list(speculate(model, some_ids(1, 5), 0)) == []


def test_a_draft_model_with_a_shorter_context_stops_guessing():
    model = build("MHA", 0)
    torch.manual_seed(1)
    small = LanguageModel(CONFIGS["GQA"].replace(max_seq_len=20)).eval()
    ids = some_ids(1, 10)
    passes = list(speculate(model, ids, 30, small))
    assert tokens_of(passes) == generate(model, ids, 30)[0, 10:].tolist()
    assert passes[1].drafted and not passes[-1].drafted


def test_it_ends_at_the_stop_token_also_in_the_middle_of_accepted_guesses():
    model, ids = build("MHA", 0), some_ids(1, 5)
    plain = [s.token.item() for s in stream(model, ids, 20)]
    for stop in set(plain):
        wanted = [s.token.item() for s in stream(model, ids, 20, stop_token=stop)]
        passes = list(speculate(model, ids, 20, model, stop_token=stop))
        assert tokens_of(passes) == wanted
        assert all(p.drafted[:p.accepted] == p.tokens[:p.accepted] for p in passes)


def test_training_mode_is_put_back_also_when_left_early():
    model, other = build("MHA", 1).train(), build("MHA", 0).train()
    passes = speculate(model, [1, 2], 10, other)
    next(passes)
    assert not model.training and not other.training
    passes.close()
    assert model.training and other.training


# Sampled: the same distribution

P = torch.tensor([0.40, 0.30, 0.20, 0.10, 0.00])
Q = torch.tensor([0.10, 0.20, 0.30, 0.25, 0.15])
AFTER = torch.tensor([0.05, 0.15, 0.25, 0.25, 0.30])  # the model's distribution behind an accepted guess
DRAWS = 20_000


def chi_square(counts, p):
    """Pearson's statistic; at 4 degrees of freedom it passes 33 once in a million times."""
    wanted = p * counts.sum()
    assert counts[p == 0].sum() == 0
    return ((counts - wanted)[p > 0] ** 2 / wanted[p > 0]).sum().item()


def first_tokens(rule, q=Q, draws=DRAWS, seed=0):
    """How often each token comes first when x is drawn from q and checked by `rule`; and how often x was accepted."""
    sampler, counts, stood = Sampler(1.0, seed=seed), torch.zeros(5), 0
    guesses = sampler.draw(q.expand(draws, -1)).tolist()
    p, q = torch.stack([P, AFTER]), q[None]
    for x in guesses:
        accepted, token = rule(p, q, [x], sampler)
        counts[x if accepted else token] += 1
        stood += accepted
    return counts, stood / draws


def test_the_rule_keeps_the_distribution_and_accepts_as_often_as_p_and_q_overlap():
    counts, rate = first_tokens(verify)
    assert chi_square(counts, P) < 33
    overlapping = torch.minimum(P, Q).sum().item()  # 0.6
    assert abs(rate - overlapping) < 5 * (0.25 / DRAWS) ** 0.5


@pytest.mark.parametrize("q", [P, torch.tensor([0.0, 0, 1, 0, 0]), torch.tensor([0.0, 0, 0, 0, 1])])
def test_the_rule_holds_for_the_same_for_a_sure_and_for_an_impossible_guess(q):
    counts, rate = first_tokens(verify, q, draws=5000)
    assert chi_square(counts, P) < 33
    assert abs(rate - torch.minimum(P, q).sum().item()) < 0.03


def broken(always=False, from_p=False, upside_down=False):
    """The rule again with one mistake in it, for the statistic to find."""
    def rule(p, q, drafted, sampler):
        x = drafted[0]
        chance = (q[0, x] / p[0, x] if upside_down else p[0, x] / q[0, x]).item()
        if always or torch.rand((), generator=sampler.generator).item() < chance:
            return 1, int(sampler.draw(p[1:])[0])
        rest = p[0] if from_p else (p[0] - q[0]).clamp(min=0)
        return 0, int(sampler.draw((rest / rest.sum())[None])[0])
    return rule


@pytest.mark.parametrize("mistake", ["always", "from_p", "upside_down"])
def test_the_statistic_sees_a_broken_rule(mistake):
    counts, _ = first_tokens(broken(**{mistake: True}), draws=2000)
    assert (counts[P == 0] > 0).any() or chi_square(counts, P) > 33
    assert chi_square(first_tokens(broken(), draws=2000)[0], P) < 33  # without a mistake it is the rule


def test_what_follows_an_accepted_guess_is_drawn_from_the_model():
    sampler, counts = Sampler(1.0, seed=1), torch.zeros(5)
    p, q = torch.stack([P, AFTER]), P[None]  # p = q: every guess stands
    for x in sampler.draw(P.expand(DRAWS, -1)).tolist():
        accepted, token = verify(p, q, [x], sampler)
        assert accepted == 1
        counts[token] += 1
    assert chi_square(counts, AFTER) < 33


TINY = ModelConfig(4, 16, 16, 1, GroupedAttentionConfig(2), FeedForwardConfig(16, "swiglu"), rope=RopeConfig(),
                   n_mtp_modules=2)


def tiny_model(noise=0.0):
    torch.manual_seed(0)
    model = LanguageModel(TINY).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.5) if p.dim() > 1 else None
        for p in model.parameters():
            p.add_(torch.randn_like(p) * noise)
    return model


def exact(model, prompt, n, sampler):
    """The probability of each of the 4^n continuations, by reading them all."""
    out = torch.ones(4**n)
    for place, more in enumerate(itertools.product(range(4), repeat=n)):
        for i in range(n):
            logits = model(torch.tensor([[*prompt, *more[:i]]]), last_only=True).logits[:, -1]
            out[place] *= sampler.probabilities(logits)[0, more[i]]
    return out


@pytest.mark.parametrize(("kind", "options"), [
    ("mtp", {}),
    pytest.param("mtp", {"top_k": 3}, marks=pytest.mark.slow),
    pytest.param("model", {"temperature": 0.6}, marks=pytest.mark.slow),
    pytest.param("model", {"top_p": 0.8}, marks=pytest.mark.slow)])
def test_whole_texts_follow_the_models_distribution(kind, options):
    """Four tokens by speculation, up to two guesses at once, with all the caches, against the exact probability of each
    of the 256 texts."""
    model, sampler, n, draws = tiny_model(), Sampler(**{"temperature": 1.0, **options}, seed=0), 4, 1000
    draft = MTPDraft(model) if kind == "mtp" else ModelDraft(tiny_model(noise=0.2))
    with torch.no_grad():
        p = exact(model, [1, 2], n, sampler)
    counts, stood, guessed = torch.zeros(4**n), 0, 0
    for _ in range(draws):
        passes = list(speculate(model, [1, 2], n, draft, sampler))
        counts[int("".join(map(str, tokens_of(passes))), base=4)] += 1
        stood, guessed = stood + sum(q.accepted for q in passes), guessed + sum(len(q.drafted) for q in passes)
    assert 0.1 < stood / guessed < 0.9  # both branches of the rule were taken
    assert counts[p == 0].sum() == 0  # top_k and top_p hold

    def statistic(p):  # which wants 5 expected draws a cell, so the rare texts together are one cell
        common = p * draws >= 5
        cells = [torch.cat([x[common], x[~common].sum()[None]]) for x in (counts, p)]
        return chi_square(*cells), int((cells[1] > 0).sum()) - 1

    got, degrees = statistic(p)
    limit = degrees + 6 * (2 * degrees) ** 0.5  # six standard deviations above the mean
    assert got < limit
    hotter = p**0.8 / (p**0.8).sum()  # a distribution close by is refused
    assert statistic(hotter)[0] > limit


def test_the_same_seed_writes_the_same_text():
    model = build("GQA", 2)
    texts = [tokens_of(speculate(model, [1, 2], 30, sampler=Sampler(1.0, seed=s))) for s in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_greedy_throws_no_dice():
    model, ids = build("GQA", 1), some_ids(1, 8)
    torch.manual_seed(0)
    wanted = torch.rand(())
    torch.manual_seed(0)
    list(speculate(model, ids, 20))
    assert torch.equal(torch.rand(()), wanted)


# What cannot be

@pytest.mark.parametrize(("call", "says"), [
    (lambda m: speculate(m, some_ids(3, 5), 5), "this batch has 3: call it once for each"),
    (lambda m: speculate(m, [], 5), "the prompt is empty"),
    (lambda m: speculate(m, [0] * 65, 5), "the prompt has 65 tokens, the model's context holds 64; keep the last 64"),
    (lambda m: speculate(m, [1], -1), "max_new_tokens must be 0 or more"),
    (lambda m: speculate(m, [1], 5, gamma=0), "gamma must be 1 or more"),
    (lambda m: speculate(build("MHA", 0), [1], 5), "has no MTP modules .* give another draft"),
    (lambda m: speculate(m, [1], 5, tiny_model()), "the draft's vocabulary has 4 entries and the model's 61"),
    (lambda m: speculate(m, [1], 5, BigramDraft(some_ids(1, 9)[0] % 5, 5)), "the draft's vocabulary has 5 entries")])
def test_what_cannot_be_gets_a_sentence_before_anything_runs(call, says):
    with pytest.raises(ValueError, match=says):
        call(build("MHA", 1))
