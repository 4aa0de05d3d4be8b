"""A full-size AlexNet and photographs for it, shared by the benchmarks of recording and stores."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from torch.nn import functional

from convergent.nets import models

PRESET = yaml.safe_load(
    (Path(__file__).parents[1] / "presets/imagenet.yaml").read_text(encoding="utf-8")
)


def batches(images: int, size: int, folder: str | None = None) -> Iterator[torch.Tensor]:
    """Central crops, prepared as the preset says; begins anew when there are no more files.

    Noise of the same scale without a folder.
    """
    data = PRESET["data"]
    if folder is None:
        torch.manual_seed(0)
        for start in range(0, images, size):
            yield 60 * torch.randn(min(size, images - start), 3, data["size"], data["size"])
        return
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    mean, std = (np.asarray(data[key], np.float32) for key in ("mean", "std"))
    for start in range(0, images, size):
        pixels = np.stack(
            [_pixels(files[i % len(files)]) for i in range(start, min(start + size, images))]
        )
        yield torch.from_numpy((pixels / np.float32(255) - mean) / std).permute(0, 3, 1, 2)


def net(steps: int = 0, folder: str | None = None) -> torch.nn.Module:
    """Train the preset's net some steps towards arbitrary labels, which makes its maps sparser."""
    torch.manual_seed(0)
    data = PRESET["data"]
    form = {"model": PRESET["model"], "size": data["size"], "inputs": len(data["mean"])}
    net = models.build(**models.options(form, 1000))
    optimizer = torch.optim.AdamW(net.parameters(), 3e-4)
    for step, x in enumerate(batches(32 * steps, 32, folder)):
        labels = torch.arange(32 * step, 32 * step + 32) % 50
        optimizer.zero_grad()
        functional.cross_entropy(net(x), labels).backward()
        optimizer.step()
    return net


def layers(net: torch.nn.Module) -> list[str]:
    size = PRESET["data"]["size"]
    return models.layers(net, torch.zeros(1, 3, size, size))


def _pixels(file: Path) -> np.ndarray:
    size, resized = PRESET["data"]["size"], PRESET["data"]["validation_transform"]["resize"]
    image = Image.open(file).convert("RGB").resize(resized)
    left, top = ((side - size) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))
