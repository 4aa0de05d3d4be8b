"""Nets from files and libraries, and weights that others saved."""

import hashlib
import os
import pickle
import sys
from collections import OrderedDict
from contextlib import contextmanager
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from convergent.nets import models, sources, weights

FILE = """
from blocks import Block
from parts.deep import depth
from torch import nn

def net(width=3):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), Block(depth))

def nothing():
    return 5

def fails():
    return net()[9]

again = net()
"""


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path):
    """A net's file with what it imports, and some that it does not."""
    block = "from torch import nn\nclass Block(nn.Linear):\n    def __init__(self, n): {body}\n"
    files = {
        "nets.py": FILE,
        "blocks.py": block.format(body="super().__init__(n, n)"),
        "parts/__init__.py": "",
        "parts/deep.py": "from . import deeper\nfrom .deeper import *\nimport numpy",
        "parts/deeper.py": "import parts.last\ndepth = 4",
        "parts/last.py": "def f():\n    import late",
        "late.py": "",
        "parts/unused.py": "1 / 0",
        "unused.py": "1 / 0",
        "numbers/x.py": "1 / 0",
    }
    return write(tmp_path, files)


def test_files_of_a_net_are_found_without_running_them(folder):
    found = sources.source_files("nets.py:net", folder)
    own = ["nets.py", "blocks.py", "late.py", "parts/__init__.py", "parts/deep.py"]
    own += ["parts/deeper.py", "parts/last.py"]
    assert found == [folder / name for name in own]
    assert sources.source_files("torchvision:resnet18", folder) == []
    write(folder, {"nets.py": "from ..above import x\nfrom .beside import y\nimport beside.z, os"})
    write(folder, {"beside.py": "raise SystemExit", "../above.py": ""})
    found = sources.source_files("nets.py:net", folder)
    assert found == [folder / "nets.py", folder / "beside.py"]


def test_files_that_are_not_there_or_not_python_are_named(folder):
    with pytest.raises(sources.SourceError, match=r"no file .*net\.py; did you mean nets\.py\?"):
        sources.source_files("net.py:net", folder)
    write(folder, {"blocks.py": "x = 1\ndef f(:"})
    with pytest.raises(sources.SourceError, match=r"blocks\.py, line 2 is not Python"):
        sources.source_files("nets.py:net", folder)


def test_a_net_of_a_file_is_built_with_its_arguments(folder):
    net = models.build(f"{folder}/nets.py:net", arguments={"width": 5}, size=9, inputs=1, classes=2)
    assert net[0].out_channels == 5
    assert net[2].in_features == 4
    assert models.build(f"{folder}/nets.py:net")[0].out_channels == 3


def test_a_path_counts_from_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert models.build(f"{folder.name}/nets.py:net")[0].out_channels == 3


def test_two_files_of_the_same_name_have_their_own_modules(folder, tmp_path):
    """Also those that they import, whatever else has their names."""
    other = write(tmp_path / "other", {
        "nets.py": "import blocks\nfrom .beside import n\nnet = lambda: blocks.Block(n)",
        "blocks.py": "from torch import nn\nBlock = nn.Flatten",
        "beside.py": "n = 7",
    })  # fmt: skip
    foreign = sys.modules["blocks"] = type(sys)("blocks")
    try:
        path = list(sys.path)
        first = models.build(f"{folder}/nets.py:net")
        second = models.build(f"{other}/nets.py:net")
        assert isinstance(second, nn.Flatten)
        assert second.start_dim == 7
        assert type(first[2]).__name__ == "Block"
        assert sys.modules["blocks"] is foreign
        assert sys.path == path
        assert not {"parts", "parts.deep", "nets"} & set(sys.modules)
    finally:
        del sys.modules["blocks"]
    # A file that has changed is read again.
    write(other, {"beside.py": "n = 12345"})
    assert models.build(f"{other}/nets.py:net").start_dim == 12345


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nets.py:nett", {}, r"no function nett; it has net, nothing, fails; did you mean net\?"),
        ("nets.py:nothing", {}, "returned int, not a torch.nn.Module"),
        ("nets.py:fails", {}, r"cannot be built: IndexError: .*\(nets\.py, line 13\)"),
        ("nets.py:again", {}, "again in .* is Sequential, not a function that returns a net"),
        ("nets.py:depth", {}, "depth in .* is int, not a function"),
        ("nets.py:net", {"widht": 5}, "unexpected keyword argument 'widht'; .*takes width"),
        ("blocks.py:Block", {}, "missing a required argument: 'n'; the function takes n"),
        ("unused.py:net", {}, r"cannot be imported: ZeroDivisionError: .*\(unused\.py, line 1\)"),
        ("leaves.py:net", {}, r"cannot be imported: SystemExit: 3 \(leaves\.py, line 2\)"),
        ("missing.py:net", {}, r"cannot be imported: ModuleNotFoundError: .*blockz"),
        ("nets.py:", {}, "'' cannot be the name of a function"),
        ("nets:net", {}, r"must be path\.py:function, torchvision:name or timm:name"),
        ("torchvision:resnet19", {}, r"torchvision has no resnet19; did you mean resnet1\d\?"),
        ("torchvision:resnet18", {"num_class": 5}, "ResNet takes block, layers, num_classes"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "weights are never downloaded"),
        ("torchvision:resnet18", {"pretrained": True}, "weights are never downloaded"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_net_is_said(folder, monkeypatch, name, arguments, message):
    write(folder, {"leaves.py": "import sys\nsys.exit(3)", "missing.py": "import blockz"})
    monkeypatch.chdir(folder)
    with pytest.raises(sources.SourceError, match=message) as error:
        models.build(name, arguments=arguments)
    assert str(error.value).startswith(f"model {name}: ")


def test_keys_of_architectures_are_no_arguments_of_a_brought_net(folder):
    with pytest.raises(sources.SourceError, match=r"has no key channels; .* under `arguments"):
        models.build(f"{folder}/nets.py:net", channels=[3])


def test_nothing_is_downloaded(monkeypatch):
    """Not even for nets whose parts torchvision would fetch."""
    for module in ("torch.hub", "torchvision.models._api"):
        monkeypatch.setattr(f"{module}.load_state_dict_from_url", lambda *_, **__: 1 / 0)
    with torch.device("meta"):
        assert isinstance(models.build("torchvision:fcn_resnet50"), nn.Module)
        googlenet = models.build("torchvision:googlenet").eval()
        # Published weights have the auxiliary heads, which evaluation does not run.
        assert "aux1.fc1.weight" in googlenet.state_dict()
        assert googlenet(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_nets_of_timm():
    timm = pytest.importorskip("timm")
    net = models.build("timm:resnet10t", arguments={"num_classes": 7, "in_chans": 1})
    assert net(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert type(net) is type(timm.create_model("resnet10t"))
    with pytest.raises(sources.SourceError, match=r"timm has no resnet10s; did you mean resnet"):
        models.build("timm:resnet10s")
    with pytest.raises(sources.SourceError, match="timm has no hf-hub:timm/resnet18"):
        models.build("timm:hf-hub:timm/resnet18")


def test_without_timm_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(sources.SourceError, match=r"timm is not installed; .*--extra timm"):
        models.build("timm:resnet18")


def test_hash_of_a_file_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    path, cache = tmp_path / "a.pt", tmp_path / "cache"
    monkeypatch.setattr(sources, "SETTLED", -1.0)

    def expected():
        return hashlib.sha256(path.read_bytes()).hexdigest()

    path.write_bytes(b"one")
    first = expected()
    assert sources.digest_of_file(path, cache) == first
    (note,) = cache.iterdir()
    # It is not computed again: what the note says is believed.
    note.write_text(note.read_text(encoding="utf-8").replace(first, "0" * 64), encoding="utf-8")
    assert sources.digest_of_file(path, cache) == "0" * 64
    stat = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sources.digest_of_file(path, cache) == expected() != first
    note.write_text("[", encoding="utf-8")
    assert sources.digest_of_file(path, cache) == expected()
    monkeypatch.setattr(sources, "SETTLED", 60.0)
    note.unlink()
    assert sources.digest_of_file(path, cache) == expected()
    assert not note.exists()  # it may change again under the same time
    with pytest.raises(sources.SourceError, match=r"b\.pt: cannot be read .*did you mean a\.pt"):
        sources.digest_of_file(tmp_path / "b.pt", cache)


def test_processes_may_keep_the_hash_of_a_file_at_once(tmp_path, monkeypatch):
    path, cache = tmp_path / "a.pt", tmp_path / "cache"
    path.write_bytes(b"one")
    monkeypatch.setattr(sources, "SETTLED", -1.0)
    writing = sources.writing
    monkeypatch.setattr(sources, "writing", second := Mock(side_effect=writing))

    @contextmanager
    def interrupted(*given, **options):
        """Let another process keep the hash before what this one wrote has its name."""
        with writing(*given, **options) as scratch:
            yield scratch
            monkeypatch.setattr(sources, "writing", second)
            sources.digest_of_file(path, cache)

    monkeypatch.setattr(sources, "writing", interrupted)
    assert sources.digest_of_file(path, cache) == hashlib.sha256(b"one").hexdigest()
    second.assert_called_once()
    assert [each.suffix for each in cache.iterdir()] == [".json"]


class Small(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, classes)

    def forward(self, x):
        return self.linear(self.bn1(self.conv1(x)).mean((2, 3)))


@pytest.fixture
def saved():
    """A net with weights that no initialisation has."""
    torch.manual_seed(0)
    net = Small()
    for value in net.state_dict().values():
        value.copy_(torch.rand(value.shape) * 3 + 1)
    return net.eval()


def content(net, prefix=""):
    return OrderedDict((prefix + key, value) for key, value in net.state_dict().items())


def test_weights_of_every_kind_of_file_come_back_bit_for_bit(tmp_path, saved):
    state, x = saved.state_dict(), torch.rand(5, 2, 6, 6)
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.pth", "a.th", "a.bin", "a.ckpt", "a.pth.tar"):
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=name != "a.th")
    for file in tmp_path.iterdir():
        found = weights.read_weights(file)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)
        net = Small().eval()
        weights.fit_weights(net, found, file)
        assert torch.equal(net(x), saved(x))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("state", ["state_dict", "model", "net", "run.model_ema"])
def test_wrappers_are_offered_and_then_taken_off(tmp_path, saved, state, prefix):
    path = tmp_path / "a.pt"
    wrapped = content(saved, prefix)
    for name in reversed(state.split(".")):
        wrapped = {name: wrapped, "epoch": 3}
    # The optimizer's tensors are no weights.
    torch.save({**wrapped, "optimizer": {"state": {0: {"momentum": torch.ones(2)}}}}, path)
    with pytest.raises(weights.WeightsError) as error:
        weights.adopt(Small(), path)
    offer = f"They would fit with `state: {state}` and `prefix: {prefix}`"
    assert str(error.value).endswith(offer)
    with pytest.raises(weights.WeightsError, match=r"missing: conv1\.weight.*left over") as error:
        weights.adopt(Small(), path, state)
    assert str(error.value).endswith(offer)
    with pytest.raises(weights.WeightsError, match="there are weights with `state: "):
        weights.read_weights(path)
    net = Small().eval()
    adopted = weights.adopt(net, path, state, prefix)
    assert list(adopted) == list(saved.state_dict())
    assert all(torch.equal(adopted[k], v) for k, v in saved.state_dict().items())
    torch.save(content(saved), path)
    with pytest.raises(weights.WeightsError, match="fit with neither `state` nor `prefix`"):
        weights.adopt(net, path, state, prefix)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("linear.bias"), r"missing: linear\.bias$"),
        (lambda s: s.update({"linear.bais": s.pop("linear.bias")}),
         r"missing: linear\.bias \(nearest linear\.bais\); left over: linear\.bais \(nearest"),
        (lambda s: s.update({"fc.bias": torch.ones(3)}), r"left over: fc\.bias$"),
        (lambda s: s.update({"linear.bias": torch.ones(4)}),
         r".*form: linear\.bias \(floating-point \(4,\) in the file, .*\(3,\) in the net\)"),
        (lambda s: s.update({"linear.bias": torch.ones(3, dtype=torch.int8)}),
         r".*form: linear\.bias \(whole \(3,\) in the file, floating-point \(3,\) in the net\)"),
        (lambda s: s.pop("bn1.running_mean"), r"missing: bn1\.running_mean$"),
    ],
)  # fmt: skip
def test_weights_of_another_net_are_refused(tmp_path, saved, change, message):
    state = content(saved)
    change(state)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(weights.WeightsError, match=rf"a\.pt: not weights of this net: {message}"):
        weights.adopt(Small(), tmp_path / "a.pt")


@pytest.mark.parametrize("versions", [True, False])
def test_old_files_without_counters_of_batches_fit(tmp_path, saved, versions):
    """Evaluation does not use them."""
    state = content(saved)
    del state["bn1.num_batches_tracked"]
    if versions:
        state._metadata = saved.state_dict()._metadata
    torch.save(state, tmp_path / "a.pt")
    net = Small().eval()
    net.bn1.num_batches_tracked.fill_(7)
    adopted = weights.adopt(net, tmp_path / "a.pt")
    assert adopted["bn1.num_batches_tracked"] == 0
    x = torch.rand(5, 2, 6, 6)
    assert torch.equal(net(x), saved(x))


def test_versions_of_modules_are_read_with_their_prefix(tmp_path):
    """torchvision's MNASNet is another net where its version is not known."""
    net = models.build("torchvision:mnasnet0_5", arguments={"num_classes": 2})
    wrapped = nn.DataParallel(net)
    torch.save(wrapped.state_dict(), tmp_path / "a.pt")
    save_file(net.state_dict(), tmp_path / "a.safetensors")
    for name, prefix in {"a.pt": "module.", "a.safetensors": None}.items():
        fresh = models.build("torchvision:mnasnet0_5", arguments={"num_classes": 2})
        weights.adopt(fresh, tmp_path / name, prefix=prefix)
        assert all(map(torch.equal, fresh.state_dict().values(), net.state_dict().values()))


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["torch", "old", "pickle", "net"])
def test_code_in_weights_is_never_run(tmp_path, saved, kind):
    trap, path = Trap(tmp_path / "sprung"), tmp_path / "a.th"
    hostile = {**saved.state_dict(), "x": trap}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(hostile, protocol=2))
    else:
        value = saved if kind == "net" else hostile
        torch.save(value, path, _use_new_zipfile_serialization=kind != "old")
    with pytest.raises(weights.WeightsError, match=r"a\.th: (holds objects of|cannot be read)"):
        weights.adopt(Small(), path)
    assert not trap.path.exists()
    if kind in ("torch", "old"):  # it works where it is let
        torch.load(path, weights_only=False)
        assert trap.path.exists()


def test_other_files_are_refused_by_name(tmp_path, saved):
    torch.save(saved.state_dict(), tmp_path / "cut.pt")
    os.truncate(tmp_path / "cut.pt", 900)
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "page.th").write_text("<html>", encoding="utf-8")
    (tmp_path / "page.safetensors").write_text("<html>", encoding="utf-8")
    for name in ("cut.pt", "empty.pth", "page.th", "page.safetensors"):
        with pytest.raises(weights.WeightsError, match=f"{name}: cannot be read as weights"):
            weights.read_weights(tmp_path / name)
    with pytest.raises(weights.WeightsError, match=r"cat\.pt: there is no such file.*cut\.pt\?"):
        weights.read_weights(tmp_path / "cat.pt")
    with pytest.raises(weights.WeightsError, match=r"a\.npz: weights are files \.pt"):
        weights.read_weights(tmp_path / "a.npz")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(weights.WeightsError, match=r"list\.pt: the file is not a state dict.*list"):
        weights.read_weights(tmp_path / "list.pt")
    torch.save({"a.b": torch.ones(1), "b": torch.ones(1)}, tmp_path / "two.pt")
    with pytest.raises(weights.WeightsError, match=r"no name of a weight begins with module\."):
        weights.read_weights(tmp_path / "two.pt", prefix="module.")
    with pytest.raises(weights.WeightsError, match=r"without a\. \(prefix\) two weights"):
        weights.read_weights(tmp_path / "two.pt", prefix="a.")
