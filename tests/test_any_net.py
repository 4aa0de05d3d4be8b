"""Nets of any architecture go from a few lines of configuration to the figures and the atlas."""

import importlib.util

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from running import copy_repository, snakemake

from convergent.running.stores import open_store

# A net as its user writes it; `parts` has by name what happens in it.
NETS = '''
import torch
from torch import nn
from torch.nn import functional as F


class Small(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        units = width + 4
        self.conv1 = nn.Conv2d(3, width, 3, 2, 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)
        self.side = nn.Conv2d(width, 4, 1)
        self.token = nn.Parameter(torch.zeros(1, 1, units))
        self.norm = nn.LayerNorm(units)
        self.attention = nn.MultiheadAttention(units, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(units, 2 * units), nn.GELU())
        self.head = nn.Linear(2 * units, 3)

    def parts(self, x):
        relu = F.relu(self.conv1(x))
        total = self.conv2(relu)
        total += relu
        cat = torch.cat([total, self.side(total)], 1)
        tokens = cat.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1)
        y = self.norm(tokens)
        attended, _ = self.attention(y, y, y, need_weights=False)
        mixed = tokens + attended
        gelu = self.mlp(mixed)
        return {"relu": relu, "sum": total, "cat": cat, "attended": attended, "tokens": mixed,
                "gelu": gelu, "head": self.head(gelu[:, 0])}

    def forward(self, x):
        return self.parts(x)["head"]


class Depends(nn.Module):
    """Its course depends on data."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, 2, 1)
        self.conv2 = nn.Conv2d(5, 7, 3, 1, 1)
        self.act = nn.SiLU()
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        x = self.act(self.conv1(x))
        if x.abs().sum() > 0:
            x = self.act(self.conv2(x))
        return self.head(x.mean((2, 3)))
'''
SIDE = 8
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
LAYERS = {
    "relu": "relu",
    "sum": "add",
    "cat": "cat",
    "attended": {"place": "getitem_1", "skip_tokens": 1},
    "tokens": {"place": "add_1", "skip_tokens": 1, "map": [4, 4], "grid": [2, 2]},
    "gelu": {"place": "mlp.1", "skip_tokens": 1, "grid": "mean"},
}
RUN = {
    "run": "any",
    "device": "cpu",
    "layer_pairs": "all",
    "data": {
        "name": "arrays",
        "root": "images.npz",
        "size": SIDE,
        "mean": MEAN,
        "std": STD,
        "train_transform": {"resize": SIDE, "shift": 0},
        "validation_transform": {"resize": SIDE},
    },
    "activations": {"dtype": "float32"},
    "statistics": {"blocks": 4, "samples": 1000},
    "mapping": {"exponents": [-3, -1]},
}


def net(name, seed, **options):
    return {"model": name, "seed": seed, "epochs": 0, "role": "subject", **options}


def prepare(folder, **values):
    """A copy of the repository, with images, nets.py and a configuration of its own."""
    copy_repository(folder)
    (folder / "nets.py").write_text(NETS, encoding="utf-8")
    labels = np.arange(160) % 3
    pixels = np.random.default_rng(0).integers(0, 256, (160, 4, 4, 3)).repeat(2, 1).repeat(2, 2)
    pixels = np.clip(pixels + 20 * labels[:, None, None, None], 0, 255)
    np.savez(folder / "images.npz", images=pixels.astype(np.uint8), labels=labels)
    text = yaml.safe_dump(RUN | values, sort_keys=False)
    (folder / "run.yaml").write_text(text, encoding="utf-8")
    return pixels


def arranged(parts):
    """Layers of :data:`LAYERS` as (sample, unit), in plain torch."""
    maps = {name: parts[name].movedim(1, -1) for name in ("relu", "sum", "cat")}
    maps["attended"] = parts["attended"][:, 1:]
    tokens = parts["tokens"][:, 1:].unflatten(1, (2, 2, 2, 2))  # 4 x 4 in four quarters
    maps["tokens"] = tokens.mean((2, 4))
    maps["gelu"] = parts["gelu"][:, 1:].mean(1)
    return {layer: values.flatten(0, -2).double().numpy() for layer, values in maps.items()}


def test_correlations_at_all_kinds_of_places_are_those_of_plain_torch(tmp_path):
    wide = {"name": "nets.py:Small", "arguments": {"width": 8}}
    nets = {"a": net("nets.py:Small", 1), "b": net(wide, 2)}
    pixels = prepare(tmp_path, nets=nets, layers=LAYERS)
    results = tmp_path / "results/any"
    targets = ["results/any/pairs/a-b/correlation.zarr", "results/any/nets/a/evaluation.csv"]
    snakemake(tmp_path, "--configfile", "run.yaml", "--", *targets)

    listing = pd.read_csv(results / "images.csv").query("split == 'validation'")
    views = torch.tensor(pixels[listing["path"].astype(int)] / 255, dtype=torch.float32)
    views = ((views - torch.tensor(MEAN)) / torch.tensor(STD)).movedim(-1, 1)
    spec = importlib.util.spec_from_file_location("users_nets", tmp_path / "nets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {}
    for name, width in (("a", 6), ("b", 8)):
        built = module.Small(width).eval()
        weights = torch.load(results / f"nets/{name}/weights.pt", weights_only=True)
        built.load_state_dict(weights)
        with torch.inference_mode():
            found[name] = built.parts(views)
    right = found["a"]["head"].argmax(1).numpy() == listing["label"]
    assert pd.read_csv(results / "nets/a/evaluation.csv")["top1"].item() == right.mean()
    x, y = map(arranged, found.values())
    store = open_store(results / "pairs/a-b/correlation.zarr")
    assert {name for name, _ in store.groups()} == set(LAYERS)
    for layer in LAYERS:
        units = x[layer].shape[1]
        with np.errstate(invalid="ignore"):  # dead units
            expected = np.corrcoef(x[layer].T, y[layer].T)[:units, units:]
        correlation = store[f"{layer}/correlation"][...]
        np.testing.assert_allclose(correlation, np.nan_to_num(expected), atol=1e-4)


def assert_drawn(folder, *names):
    for name in names:
        assert matplotlib.image.imread(folder / f"{name}.png").std() > 0.02


@pytest.mark.slow
def test_everything_is_made_of_a_net_of_ones_own(tmp_path):
    nets = {"a": net("nets.py:Small", 1), "b": net("nets.py:Small", 2)}
    prepare(tmp_path, nets=nets, layers=LAYERS, units={"pictures": {"sum": [0, 2], "gelu": [1]}})
    snakemake(tmp_path, "--configfile", "run.yaml", "--", "all", "layers")
    drawn = tmp_path / "results/any/figures/a-b"
    assert_drawn(drawn, *(file.stem for file in drawn.glob("*.png")))
    assert {"fig1", "fig2", "fig5", "fig7", "layers"} <= {file.stem for file in drawn.glob("*")}
    assert (tmp_path / "results/any/atlas/index.html").exists()


@pytest.mark.slow
def test_a_net_whose_course_depends_on_data_has_modules_as_layers(tmp_path):
    """Without named layers, and pairs of layers; the ReLU that runs twice is two layers."""
    nets = {name: net("nets.py:Depends", seed) for name, seed in (("a", 1), ("b", 2))}
    prepare(tmp_path, nets=nets, units={"pictures": "none"})
    snakemake(tmp_path, "--configfile", "run.yaml", "--", "fig3", "layers")
    drawn = tmp_path / "results/any/figures/a-b"
    assert_drawn(drawn, "fig3", "layers")
    layers = [name for name, _ in open_store(tmp_path / "results/any/statistics/a.zarr").groups()]
    assert layers == ["act", "act_1"]


# Side of the images, arguments, and places: operations, activations, blocks, attention, tokens.
TOKENS = {"skip_tokens": 1, "map": [2, 2]}
TORCHVISION = {
    "resnet18": (32, {}, {"stem": "relu", "sum": "layer1.1.add", "block": "layer3"}),
    "vgg11_bn": (32, {}, {"one": "features.2", "late": "features.27"}),
    "googlenet": (48, {}, {"cat": "inception3a.cat", "relu": "conv1.relu"}),
    "mobilenet_v3_small": (48, {}, {"hardswish": "features.0.2", "sum": "features.3.add"}),
    "densenet121": (
        48,
        {},
        {"cat": "features.denseblock1.denselayer2.cat", "out": "features.transition1"},
    ),
    "convnext_tiny": (48, {}, {"gelu": "features.1.0.block.4", "sum": "features.1.1.add"}),
    "vit_b_16": (
        32,
        {"image_size": 32},
        {
            "norm": {"place": "encoder.layers.encoder_layer_0.ln_2", **TOKENS},
            "sum": {"place": "encoder.layers.encoder_layer_1.add", **TOKENS},
            "mean": {"place": "encoder.layers.encoder_layer_2", "skip_tokens": 1, "grid": "mean"},
        },
    ),
    "swin_t": (32, {}, {"attention": "features.1.0.attn", "gelu": "features.1.1.mlp.1"}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_nets_of_torchvision_reach_figures_and_the_atlas(tmp_path, name):
    size, arguments, layers = TORCHVISION[name]
    model = {"name": f"torchvision:{name}", "arguments": arguments}
    data = RUN["data"] | {"size": size, "validation_transform": {"resize": size}}
    prepare(
        tmp_path,
        nets={"a": net(model, 1), "b": net(model, 2)},
        layers=layers,
        data=data | {"train_transform": {"resize": size}},
        activations={"images": 24},
        statistics={"blocks": 3, "samples": 500},
        mapping={"exponents": [-1]},
        units={"pictures": {layer: [0, 1] for layer in layers}},
    )
    snakemake(tmp_path, "--configfile", "run.yaml", "--", "fig3", "fig2", "atlas")
    assert_drawn(tmp_path / "results/any/figures/a-b", "fig3", "fig2")
    assert (tmp_path / "results/any/atlas/index.html").exists()
    # The two seeds make two nets.
    store = open_store(tmp_path / "results/any/pairs/a-b/correlation.zarr")
    for layer in layers:
        correlation = store[f"{layer}/correlation"][...]
        assert np.isfinite(correlation).all()
        assert 0 < np.abs(correlation).max() < 0.9999
