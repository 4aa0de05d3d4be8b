"""With random labels nothing gains from a choice: what one half chose is at chance on the other.

Each test also scores the choice on the images that made it, where it is far above chance, so that
it would fail if halves were mixed up.
"""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from convergent.activations.moments import Moments
from convergent.consequences.ensembles import ensembles
from convergent.consequences.merging import Candidate, merge_table
from convergent.consequences.permutation import groups, permuted
from convergent.consequences.pruning import prune
from convergent.consequences.stitching import Seam, maps, stitch
from convergent.consequences.zipped_pairs import Aligned, zip_table
from convergent.figures.ensembles import tabulate_ensembles
from convergent.nets.evaluation import evaluate

CLASSES, HALF = 2, 100
IMAGES, WIDE = 2 * HALF, 256
PARTS = slice(0, HALF), slice(HALF, None)
# Probability that luck alone fails a test, and what a gain on the images that chose is.
LUCK, GAIN = 1e-3, 0.02


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randn(IMAGES, 1, 4, 4)


@pytest.fixture
def labels():
    return np.random.default_rng(0).permutation(IMAGES) % CLASSES


def net(width=WIDE):
    made = nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.ReLU(), nn.Linear(width, CLASSES))
    with torch.no_grad():
        # Both answers are about as frequent.
        made[3].bias -= made(torch.randn(1000, 1, 4, 4)).mean(0)
    return made.eval()


def p_value(top1, images=IMAGES):
    """Probability of an accuracy at least as far from chance."""
    return stats.binomtest(round(top1 * images), images, 1 / CLASSES).pvalue


def at_chance(top1):
    return p_value(top1) > LUCK


def best(first, last):
    """Number the choices that do best on each half, on whose images they gain."""
    numbers = [int(np.argmax(scores)) for scores in (first, last)]
    top1 = (first[numbers[0]] + last[numbers[1]]) / 2
    assert p_value(top1) < GAIN
    assert top1 > 1 / CLASSES
    return numbers


def own(subject, images, labels):
    return evaluate(subject, [(images, torch.as_tensor(labels))]).top1


def test_units_removed_in_the_order_that_does_best_on_a_half(images, labels):
    torch.manual_seed(1)
    subject, random = net(), np.random.default_rng(1)
    drawn = {("given", n): random.permutation(WIDE) for n in range(100)}

    def scored(orders):
        return prune(
            subject, lambda: [images], labels, {"2": "2"}, {"2": orders}, [0.7], half=HALF,
            number=CLASSES,
        ).query("layer == '2'")  # fmt: skip

    every = scored((drawn, drawn))
    for removal in ("mean", "resampled"):
        rows = every[every["removal"] == removal].set_index(["half", "draw"])["top1"]
        numbers = best(*(rows[half].to_numpy() for half in ("first", "last")))
        # Orders are given for the half that chose them.
        chosen = [drawn["given", number] for number in numbers]
        table = scored(tuple({("given", ""): order} for order in chosen))
        assert at_chance(table[table["removal"] == removal]["top1"].mean())


def test_a_map_of_more_units_than_images_fits_the_half_that_made_it_and_no_other(images, labels):
    torch.manual_seed(2)
    source, target = net(), net()
    # The target knows every label by heart, and its source sees other images.
    hidden = target[:3](images).detach()
    goal = nn.functional.one_hot(torch.as_tensor(labels)).float() - 0.5
    with torch.no_grad():
        target[3].weight.copy_(torch.linalg.lstsq(hidden, goal, driver="gelsd").solution.T)
        target[3].bias.zero_()
    assert own(target, images, labels) == 1
    others = torch.randn(IMAGES, 1, 4, 4)
    values = [source[:3](others).detach().numpy(), hidden.numpy()]

    def seams(layer):
        found = []
        for part in PARTS:
            x, y = (each[part].astype(np.float64) for each in values)
            within = Moments.of(x), Moments.of(y)
            found.append([
                Seam.of(name, "none", weights, *within)
                for name, weights in maps(Moments.of(x, y), within[0], [])
            ])  # fmt: skip
        return found[0], found[1]

    def scored(made):
        return stitch(
            (source, target), lambda: zip(others.split(64), images.split(64), strict=True), labels,
            ({"2": "2"}, {"2": "2"}), ["2"], made, half=HALF, number=CLASSES,
        ).set_index("map")["top1"]  # fmt: skip

    swapped = scored(lambda layer: seams(layer)[::-1])
    assert p_value(swapped["linear"].mean()) < GAIN
    found = scored(seams)
    for name in ("matching", "linear", "rotation"):
        assert at_chance(found[name].mean()), name


def test_ensembles_chosen_by_what_does_best_on_a_half(labels, tmp_path):
    random = np.random.default_rng(3)
    names = [f"net{n}" for n in range(12)]
    logits = torch.tensor(random.standard_normal((len(names), IMAGES, CLASSES)))
    scores = dict(zip(names, logits.log_softmax(-1), strict=True))
    right = [(each.argmax(1).numpy() == labels) for each in scores.values()]
    alike = {
        (a, b): {"conv1": tuple(float((right[i][p] & right[j][p]).mean()) for p in PARTS)}
        for (i, a), (j, b) in itertools.combinations(enumerate(names), 2)
    }
    table = ensembles(scores, labels, alike, ["conv1"], half=HALF, most=66)
    two = table[table["size"] == 2]
    best(*(two[two["half"] == half]["top1"].to_numpy() for half in ("first", "last")))
    two.to_csv(tmp_path / "ensembles.csv", index=False)
    made = tabulate_ensembles(tmp_path / "ensembles.csv").set_index("chosen")["top1"]
    assert at_chance(made["most_alike"])
    assert at_chance(made["least_alike"])


def chosen_on_each_half(a, b, found, images, labels, score):
    """Of many permutations of b, the one that does best on each half, by a score of a table."""
    random = np.random.default_rng(4)
    drawn = [{g.name: random.permutation(g.size) for g in found} for _ in range(100)]
    states = [permuted(b, found, each) for each in drawn]
    tops = [[score(state, part) for state in states] for part in PARTS]
    return [states[number] for number in best(*tops)]


def middle_of(a, state):
    other = net()
    other.load_state_dict({k: torch.lerp(v, state[k], 0.5) for k, v in a.state_dict().items()})
    return other


def test_partners_and_temperatures_that_do_best_on_a_half(images, labels):
    torch.manual_seed(4)
    a, b = net(), net()
    found = groups(a, images)
    states = chosen_on_each_half(
        a, b, found, images, labels,
        lambda state, part: own(middle_of(a, state), images[part], labels[part]),
    )  # fmt: skip
    batches = lambda: zip(images.split(64), torch.as_tensor(labels).split(64), strict=True)  # noqa: E731
    table = merge_table(
        a, b, [Candidate("correlation", half, state) for half, state in enumerate(states)],
        batches, HALF, [images[:50]], [0.0, 0.5, 1.0],
    )  # fmt: skip
    rows = table[(table["alignment"] == "correlation") & (table["t"] == 0.5) & ~table["repaired"]]
    assert at_chance(rows.groupby("half")["top1"].first().mean())
    # Nor does a temperature that one half chose do better on the other than an even guess.
    last = rows.groupby("half").last()
    error = np.hypot(*last["loss_standard_error"]) / 2
    assert last["loss"].mean() > np.log(CLASSES) - 3 * error


def test_zipped_nets_whose_partners_do_best_on_a_half(images, labels):
    torch.manual_seed(5)
    a, b = net(), net()
    found = groups(a, images)
    likeness = {g.name: np.arange(g.size, 0, -1.0) for g in found}
    states = chosen_on_each_half(
        a, b, found, images, labels,
        lambda state, part: own(middle_of(a, state), images[part], labels[part]),
    )  # fmt: skip

    def scored(chosen):
        aligned = [
            Aligned(half, state, likeness, images[:50])
            for half, state in zip(chosen, states, strict=True)
        ]
        return zip_table(
            {"a": a, "b": b}, found, aligned, lambda: images.split(64), labels, [1.0], half=HALF,
            number=CLASSES,
        ).query("net == 'zip' and not repaired")["top1"].mean()  # fmt: skip

    assert p_value(scored((1, 0))) < GAIN
    assert at_chance(scored((0, 1)))
