"""The memory bank: exact neighbours within its memory, categories that come and go, its coreset, its exported graph."""

import copy
import pickle
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors
from torch.export import Dim

from uniad_lightning.errors import InputError
from uniad_lightning.models import coreset as greedy
from uniad_lightning.models.coreset import coreset
from uniad_lightning.models.memory_bank import MemoryBank

CHANNELS = 12
RANDOM = torch.Generator().manual_seed(0)
PATCHES = torch.randn(500, CHANNELS, generator=RANDOM) * 3 + 1
OWNER = torch.arange(500) // 200  # 0, 1 and, with 100 patches, 2
TOKENS = torch.randn(3, 40, CHANNELS, generator=RANDOM) * 3 + 1


def empty(**settings):
    return MemoryBank(**{"channels": CHANNELS, "neighbors": 5, "half": False, "megabytes": 16} | settings)


def filled(**settings):
    bank = empty(**settings)
    bank.append(PATCHES, OWNER)
    return bank


def neighbors(count, bank=PATCHES, tokens=TOKENS):
    found = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(bank.double().numpy())
    return found.kneighbors(tokens.double().flatten(0, 1).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [1e-6, 0.003, 0.05, 16])
def test_distances_and_neighbors_are_those_of_scikit_learn_however_small_the_memory(megabytes):
    distance, index = filled(megabytes=megabytes).nearest(TOKENS)
    expected, places = neighbors(1)
    assert np.allclose(distance.flatten(), expected[:, 0], atol=1e-5)
    assert np.array_equal(index.flatten(), places[:, 0])
    assert torch.equal(filled(megabytes=megabytes)(TOKENS), distance)


def test_a_search_keeps_to_its_memory(monkeypatch):
    """Every product that is taken, with the copies beside it, is within the megabytes."""
    taken = []
    product = torch.addmm

    def measured(bias, tokens, patches, **others):
        ranks = product(bias, tokens, patches, **others)
        taken.append(4 * (ranks.numel() + 2 * tokens.numel() + 2 * patches.numel()))
        return ranks

    monkeypatch.setattr(torch, "addmm", measured)
    bank, tokens = empty(megabytes=0.3), torch.randn(2, 3000, CHANNELS)
    bank.append(torch.randn(20_000, CHANNELS), torch.zeros(20_000))
    bank.reweighted(tokens, bank(tokens))
    assert len(taken) > 2
    assert max(taken) <= 0.3e6
    assert max(taken) > 0.1e6  # and uses it


@pytest.mark.parametrize("offset", [0, 30, 1000])
def test_stored_patches_are_at_no_distance_and_close_ones_at_the_right_one(offset):
    bank = empty()
    bank.append(PATCHES + offset, OWNER)
    assert bank((PATCHES + offset)[None]).max() == 0
    direction = torch.nn.functional.normalize(torch.randn(500, CHANNELS), dim=1)
    near = PATCHES.double() + offset + 0.01 * direction.double()
    expected = (near.float() - (PATCHES + offset)).norm(dim=1)  # what is left of the step in float32
    assert torch.allclose(bank(near.float()[None])[0], expected, rtol=1e-3, atol=1e-6)


def test_copies_of_a_patch_do_not_hide_it():
    bank = empty()
    bank.append(PATCHES.repeat(3, 1), OWNER.repeat(3))
    assert bank(PATCHES[None]).max() == 0


def test_what_is_not_a_number_stays_so_and_spoils_no_other():
    tokens = TOKENS.clone()
    tokens[1, 7, 3] = torch.nan
    distance = filled(megabytes=0.003)(tokens)
    assert distance.isnan().nonzero().tolist() == [[1, 7]]
    assert torch.equal(distance[0], filled()(TOKENS)[0])


def test_half_precision_keeps_the_patches_in_half_and_the_distances_near():
    bank = filled(half=True)
    assert bank.state_dict()["patches"].dtype == torch.float16
    assert bank(TOKENS).dtype == torch.float32
    assert torch.allclose(bank(TOKENS), filled()(TOKENS), atol=0.02)
    expected, _ = neighbors(1, PATCHES.half())
    assert np.allclose(bank(TOKENS).flatten(), expected[:, 0], atol=1e-5)
    assert torch.allclose(bank(TOKENS.half()), bank(TOKENS.half().float()))


def test_appending_changes_no_old_patch_and_removing_undoes_it():
    bank = filled()
    before, distance = bank.patches.clone(), bank(TOKENS)
    bank.append(TOKENS[0], torch.full((40,), 7))
    assert torch.equal(bank.patches[:500], before)
    assert bank.owner.tolist() == [*OWNER.tolist(), *[7] * 40]
    assert bank(TOKENS)[0].max() == 0
    assert (bank(TOKENS) <= distance + 1e-5).all()
    assert bank.remove(7) == 40
    assert torch.equal(bank.patches, before)
    assert torch.equal(bank(TOKENS), distance)
    assert bank.remove(7) == 0
    assert bank.remove(1) == 200
    assert bank.owner.unique().tolist() == [0, 2]
    expected, _ = neighbors(1, PATCHES[OWNER != 1])
    assert np.allclose(bank(TOKENS).flatten(), expected[:, 0], atol=1e-5)


@pytest.mark.parametrize("spare", [{}, {"half": True}], ids=["float32", "float16"])
def test_a_state_of_any_size_loads_strictly_also_as_a_part_and_over_another(spare):
    saved = torch.nn.ModuleDict({"network": filled(**spare)}).state_dict()
    assert set(saved) == {"network.patches", "network.owner"}
    for bank in (empty(**spare), filled(**spare), copy.deepcopy(empty(**spare)), pickle.loads(pickle.dumps(empty()))):
        bank.append(TOKENS[0], torch.zeros(40))
        torch.nn.ModuleDict({"network": bank}).load_state_dict(saved)
        assert torch.equal(bank.patches, saved["network.patches"])
        assert torch.equal(bank.owner, OWNER)
        assert torch.equal(bank(TOKENS), filled(**spare)(TOKENS))
    assert len(saved["network.patches"]) == 500


def test_a_copy_is_independent():
    bank = empty()
    other = copy.deepcopy(bank)
    other.load_state_dict(filled().state_dict())
    assert (len(bank.patches), len(other.patches)) == (0, 500)


def test_states_of_other_channels_or_without_owners_are_refused():
    with pytest.raises(RuntimeError, match="size mismatch for patches"):
        empty(channels=11).load_state_dict(filled().state_dict())
    with pytest.raises(RuntimeError, match="owner"):
        empty().load_state_dict({"patches": PATCHES})


@pytest.mark.parametrize("megabytes", [0.003, 16])
def test_reweighting_is_equation_7(megabytes):
    bank = filled(megabytes=megabytes)
    found = bank.reweighted(TOKENS, bank(TOKENS))
    distances, places = neighbors(1)
    distances, places = distances.reshape(3, 40), places.reshape(3, 40)
    patches = PATCHES.double().numpy()
    for image, (own, place) in enumerate(zip(distances, places, strict=True)):
        token, nearest = own.argmax(), patches[place[own.argmax()]]
        around = np.argsort(np.linalg.norm(patches - nearest, axis=1))[:5]
        spread = np.linalg.norm(patches[around] - TOKENS[image, token].double().numpy(), axis=1)
        expected = (1 - np.exp(own[token]) / np.exp(spread).sum()) * own[token]
        assert found[image] == pytest.approx(expected, rel=1e-5)


def test_reweighting_takes_all_patches_of_a_small_bank_and_does_not_overflow():
    bank = empty(neighbors=9)
    bank.append(PATCHES[:3] * 1000, OWNER[:3])
    score = bank.reweighted(TOKENS, bank(TOKENS))
    assert score.isfinite().all()
    assert (score >= 0).all()
    assert (score <= bank(TOKENS).amax(dim=1)).all()


def test_an_empty_bank_and_wrong_values_are_refused_in_one_line():
    with pytest.raises(InputError, match="holds 0 patches"):
        empty()(TOKENS)
    bank = empty()
    bank.append(PATCHES[:1], OWNER[:1])
    with pytest.raises(InputError, match="holds 1 patches; expected 2 or more"):
        bank.reweighted(TOKENS, bank(TOKENS))
    for wrong in ({"neighbors": 1}, {"megabytes": 0}):
        (name,) = wrong
        with pytest.raises(InputError, match=rf"^model\.{name}=[^\n]*$"):
            empty(**wrong)
    with pytest.raises(ValueError, match="patches"):
        empty().append(PATCHES, OWNER[1:])


class Whole(torch.nn.Module):
    """Map and image score of features, as a detector puts them together."""

    def __init__(self, bank):
        super().__init__()
        self.bank = bank

    def forward(self, features):
        tokens = features.flatten(2).transpose(1, 2)
        distances = self.bank(tokens)
        return distances, self.bank.reweighted(tokens, distances)


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_the_exported_graph_agrees_at_any_batch(half, tmp_path):
    whole = Whole(filled(half=half, megabytes=0.003)).eval()
    example = torch.randn(2, CHANNELS, 6, 5)
    program = torch.export.export(whole, (example,), dynamic_shapes=({0: Dim("batch", min=1)},))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(program, (), tmp_path / "bank.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "bank.onnx", providers=["CPUExecutionProvider"])
    (name,) = [value.name for value in session.get_inputs()]
    for batch in (1, 2, 5):
        features = torch.randn(batch, CHANNELS, 6, 5) * 3 + 1
        if batch == 5:
            features[4] = 0
        expected = whole(features)
        for found in (program.module()(features), map(torch.from_numpy, session.run(None, {name: features.numpy()}))):
            for ours, theirs in zip(expected, found, strict=True):
                assert torch.allclose(ours, theirs, atol=1e-5)


def farthest_first(patches, first, count):
    """Algorithm 1 of the paper, one step after the other."""
    distances = pairwise_distances(patches.double().numpy())
    chosen = [first]
    while len(chosen) < count:
        nearest = distances[chosen].min(axis=0)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


@pytest.mark.parametrize("candidates", [1, 2, 20, 1000])
@pytest.mark.parametrize("share", [0.002, 0.1, 0.5, 1])
def test_coreset_is_what_one_step_after_the_other_chooses(candidates, share, monkeypatch):
    monkeypatch.setattr(greedy, "CANDIDATES", candidates)
    monkeypatch.setattr(greedy, "MEGABYTES", 0.01)
    chosen = coreset(PATCHES + 100, share, seed=3, progress=False, dim=None)
    assert chosen.tolist() == farthest_first(PATCHES, int(chosen[0]), round(share * 500))


def test_coreset_follows_its_seed_alone():
    torch.manual_seed(1)
    chosen = coreset(PATCHES, 0.2, seed=5, progress=False, dim=4)
    torch.manual_seed(2)
    assert torch.equal(chosen, coreset(PATCHES.clone(), 0.2, seed=5, progress=False, dim=4))
    assert not torch.equal(chosen, coreset(PATCHES, 0.2, seed=6, progress=False, dim=4))
    assert not torch.equal(chosen, coreset(PATCHES, 0.2, seed=5, progress=False, dim=None))
    assert torch.equal(*(coreset(PATCHES, 0.2, seed=5, progress=False, dim=dim) for dim in (None, CHANNELS)))


def test_projected_coreset_keeps_what_is_rare():
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(60, 200, generator=generator) * 5
    kind = torch.cat([torch.arange(60), torch.zeros(1940, dtype=torch.int64)])  # one patch of each kind but the first
    patches = kinds[kind] + torch.randn(2000, 200, generator=generator)
    for dim in (16, None):
        chosen = coreset(patches, 0.05, seed=0, progress=False, dim=dim)
        assert len(chosen.unique()) == 100
        assert len(kind[chosen].unique()) == 60


def test_coreset_never_takes_a_patch_twice_not_even_among_copies():
    copies = torch.ones(50, CHANNELS)
    assert sorted(coreset(copies, 1, seed=0, progress=False, dim=None).tolist()) == list(range(50))
    few = PATCHES[:3].repeat(20, 1)
    chosen = coreset(few, 0.1, seed=0, progress=False, dim=None)
    assert len(chosen.unique()) == 6
    assert few[chosen[:3]].unique(dim=0).shape[0] == 3  # each kind first


def test_coreset_has_a_bar_when_asked_and_takes_at_least_one(capsys):
    assert len(coreset(PATCHES, 1e-6, seed=0, progress=False, dim=None)) == 1
    assert capsys.readouterr().err == ""
    coreset(PATCHES, 0.5, seed=0, progress=True, dim=None)
    assert "coreset: 100%" in capsys.readouterr().err
    for share in (0, -0.1, 1.1, True, "all"):
        with pytest.raises(InputError, match=r"^model\.coreset="):
            coreset(PATCHES, share, seed=0, progress=False, dim=None)
    with pytest.raises(InputError, match="no patches"):
        coreset(PATCHES[:0], 0.1, seed=0, progress=False, dim=None)
    with pytest.raises(InputError, match=r"^model\.coreset_dim=0"):
        coreset(PATCHES, 0.1, seed=0, progress=False, dim=0)
