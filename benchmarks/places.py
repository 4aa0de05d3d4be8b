"""Recording operations of a net's graph, beside forward hooks that copy the same outputs.

The net is a ResNet whose blocks are those of torchvision, with an identity after each sum, so that
a hook can take what the graph gives at the operation. Everything runs in one thread and is timed
by its processor; runs are interleaved, ratios are medians.

    uv run python benchmarks/places.py
"""

import argparse
import statistics
import time

import torch
from common import header, interleaved, median_ratio
from torch import nn
from torchvision.models import resnet18

from convergent.activations.recording import outputs
from convergent.nets.models import evaluating
from convergent.nets.places import tapping


class Block(nn.Module):
    """Block of ResNet-18 whose sum is an operation and, behind it, the output of a module."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block, self.sum = block, nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        block = self.block
        out = block.conv2(block.relu(block.bn1(block.conv1(x))))
        identity = x if block.downsample is None else block.downsample(x)
        return block.relu(self.sum(block.bn2(out) + identity))


def make_net() -> tuple[nn.Module, list[str]]:
    """Make the net, and name its blocks."""
    net, blocks = resnet18(num_classes=10).eval(), []
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        layers = net.get_submodule(stage)
        for number, block in enumerate(layers):
            layers[number] = Block(block)
            blocks.append(f"{stage}.{number}")
    return net, blocks


def tapped(net: nn.Module, x: torch.Tensor, names: list[str], size: int) -> None:
    """Copy outputs at places as float16, in memory that is used again, as recording does."""
    slots: dict[str, torch.Tensor] = {}

    def copy(name: str, output: torch.Tensor) -> None:
        values = output.movedim(1, -1)
        if name not in slots:
            slots[name] = torch.empty(values.shape, dtype=torch.float16)
        slots[name][: len(values)].copy_(values)

    with evaluating(net, "cpu", channels_last=True), tapping(net, names, copy) as run:
        for batch in x.split(size):
            with torch.no_grad():
                run(batch)


def hooked(net: nn.Module, x: torch.Tensor, modules: list[str], size: int) -> None:
    """Copy outputs of modules in plain forward hooks, in the same way."""
    slots: dict[str, torch.Tensor] = {}

    def hook(name: str):
        def copy(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            values = output.movedim(1, -1)
            if name not in slots:
                slots[name] = torch.empty(values.shape, dtype=torch.float16)
            slots[name][: len(values)].copy_(values)

        return copy

    hooks = [net.get_submodule(name).register_forward_hook(hook(name)) for name in modules]
    with evaluating(net, "cpu", channels_last=True), torch.no_grad():
        for batch in x.split(size):
            net(batch)
    for handle in hooks:
        handle.remove()


def recorded(net: nn.Module, x: torch.Tensor, names: list[str], size: int) -> None:
    """Run all that recording does except for writing, after its probes."""
    with outputs(net, names) as run:
        for batch in x.split(size):
            run(batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    header()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, blocks = make_net()
    operations, modules = [f"{b}.add" for b in blocks], [f"{b}.sum" for b in blocks]
    x = torch.randn(options.images, 3, options.size, options.size)
    size = options.batch_size
    seconds = interleaved(
        {
            "hooks": lambda: hooked(net, x, modules, size),
            "operations": lambda: tapped(net, x, operations, size),
            "recording modules": lambda: recorded(net, x, modules, size),
            "recording operations": lambda: recorded(net, x, operations, size),
        },
        options.runs,
        time.process_time,
    )
    for name, times in seconds.items():
        print(f"{name:20s} {statistics.median(times):6.2f} s")
    taps = median_ratio(seconds["operations"], seconds["hooks"])
    both = median_ratio(seconds["recording operations"], seconds["recording modules"])
    print(f"{len(blocks)} operations take {taps:.2f} x hooks that copy the same outputs")
    print(f"recording them takes {both:.2f} x recording outputs of modules")


if __name__ == "__main__":
    main()
