"""Weights that others saved: reading them without running anything, and fitting them to a net."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convergent import ConvergentError
from convergent.nets.sources import nearest

# Files that torch saves; the others are .safetensors.
PICKLED = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")
# Number of names that an error lists; it counts the others.
SHOWN = 5
# Number of batches that a normalisation saw in training. It does not affect evaluation, and files
# from before torch 0.4.1 lack it.
COUNTER = "num_batches_tracked"

OFFER = ". They would fit with "

Weights = dict[str, torch.Tensor]


class WeightsError(ConvergentError, ValueError):
    """Weights that cannot be read or belong to another net; the message names their file."""


def read_weights(path: str | Path, state: str | None = None, prefix: str | None = None) -> Weights:
    """Read weights from a file without unpickling it, so that no code in it is run.

    Parameters
    ----------
    path : path
        File .safetensors, or .pt, .pth, .th, .bin, .ckpt or .tar as torch saves them.
    state : str, optional
        Entry of the file that holds the weights, such as ``state_dict``; ``a.b`` is the entry b of
        the entry a. By default the file holds nothing else.
    prefix : str, optional
        Beginning of the weights' names that is left out, such as ``module.``.

    Returns
    -------
    dict
        Tensors on the CPU by name.

    Raises
    ------
    WeightsError
        If the file is missing, damaged or of another kind, could be read only by unpickling, or
        has no such entry or prefix.
    """
    return _chosen(_content(path), path, state, prefix)


def fit_weights(net: nn.Module, weights: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Load weights into a net; each name and shape must be the net's.

    Only counters of batches (``num_batches_tracked``) may be missing, as they do not affect
    evaluation; they are then set to zero.

    Parameters
    ----------
    net : nn.Module
    weights : mapping of str to tensor
    path : path
        Where the weights come from, for the error.

    Raises
    ------
    WeightsError
        If a weight is missing, left over, or of another shape or kind of number. The message lists
        the nearest names, and the `prefix` without which the names would fit.
    """
    own = net.state_dict()
    filled = OrderedDict(weights)
    for key in _optional(own) - set(weights):
        if key.removesuffix(COUNTER) + "running_mean" in weights:
            filled[key] = torch.zeros_like(own[key])
    metadata = getattr(weights, "_metadata", None)
    # From the versions of modules, torch knows which names and weights to convert. A file without
    # versions counts as current if its weights fit as they are.
    if metadata is None and _fits(filled, own):
        metadata = own._metadata
    if metadata is not None:
        filled._metadata = metadata  # type: ignore[attr-defined]
    try:
        # torch would round one kind to the other, and take quantised weights as they are.
        if any(key in own and _is_other(value, own[key]) for key, value in filled.items()):
            raise TypeError("whole numbers in place of floating-point ones")
        net.load_state_dict(filled, strict=True)
    except Exception as error:
        what = _differences(weights, own) or str(error)
        raise WeightsError(
            f"{path}: not weights of this net: {what}{_offers(weights, own)}"
        ) from error


def adopt(
    net: nn.Module, path: str | Path, state: str | None = None, prefix: str | None = None
) -> Weights:
    """Load the weights of a file into a net, by :func:`read_weights` and :func:`fit_weights`.

    Returns
    -------
    dict
        The net's own state dict.

    Raises
    ------
    WeightsError
        As these functions raise it; the message offers the `state` and `prefix` that would fit.
    """
    content = _content(path)
    try:
        weights = _chosen(content, path, state, prefix)
        fit_weights(net, weights, path)
    except WeightsError as error:
        offers = _offers(content, net.state_dict())
        if not offers:
            raise
        raise WeightsError(f"{str(error).partition(OFFER)[0]}{offers}") from error
    return {key: value.contiguous() for key, value in net.state_dict().items()}


def _content(path: str | Path) -> Any:
    """Read whatever a file holds, without unpickling."""
    path = Path(path)
    if path.suffix not in (".safetensors", *PICKLED):
        raise WeightsError(
            f"{path}: weights are files {', '.join(PICKLED)} or .safetensors, by their suffix"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        near = nearest(path.name, (p.name for p in path.parent.glob("*")))
        raise WeightsError(f"{path}: there is no such file{near}") from None
    except Exception as error:
        text = str(error)
        # torch names what would have to be imported and called.
        found = re.search(r"GLOBAL ([\w.]+)", text)
        if found or "TorchScript" in text:
            what = f"objects of {found[1]}" if found else "a program (TorchScript)"
            raise WeightsError(
                f"{path}: holds {what}, which cannot be read without running code, so the file is "
                "refused. If you trust where it comes from, load it yourself, and save the "
                'tensors alone: torch.save(net.state_dict(), "weights.pt")'
            ) from error
        reason = re.sub(r"(?s)Weights only load failed.*", "it is not what torch saves", text)
        raise WeightsError(
            f"{path}: cannot be read as weights ({reason or 'it is empty'}); it may be damaged or "
            "incomplete: fetch it again"
        ) from error


def _chosen(content: Any, path: str | Path, state: str | None, prefix: str | None) -> Weights:
    """Return the entry `state` of a file's content, its names without `prefix`."""
    entry = content
    if state is not None:
        entry = _entry(content, state)
        if entry is None:
            raise WeightsError(f"{path}: has no entry {state} (state){_there(content)}")
    if not _is_state(entry):
        where = f"the entry {state}" if state else "the file"
        raise WeightsError(
            f"{path}: {where} is not a state dict, which has a tensor for each name, but "
            f"{_described(entry)}{_there(content)}"
        )
    return _stripped(entry, path, prefix) if prefix else entry


def _stripped(weights: Weights, path: str | Path, prefix: str) -> Weights:
    if not any(key.startswith(prefix) for key in weights):
        raise WeightsError(
            f"{path}: no name of a weight begins with {prefix} (prefix); the first names are "
            f"{_listed(list(weights), 2)}"
        )
    stripped = OrderedDict((key.removeprefix(prefix), value) for key, value in weights.items())
    if len(stripped) < len(weights):
        raise WeightsError(f"{path}: without {prefix} (prefix) two weights have the same name")
    versions = getattr(weights, "_metadata", None)
    if versions is not None:
        # Here names are those of modules, which lack the last dot.
        stripped._metadata = OrderedDict(  # type: ignore[attr-defined]
            (f"{key}.".removeprefix(prefix).removesuffix("."), value)
            for key, value in versions.items()
        )
    return stripped


def _entry(content: Any, state: str) -> Any:
    """Find an entry by its dotted name, or None; a name may have dots of its own."""
    if not isinstance(content, Mapping):
        return None
    if state in content:
        return content[state]
    first, _, rest = state.partition(".")
    return _entry(content[first], rest) if rest and first in content else None


def _entries(content: Any, name: str = "") -> Iterator[tuple[str, Weights]]:
    """Yield the state dicts within a file's content with their dotted names; its own has none."""
    if _is_state(content):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str):
                yield from _entries(value, f"{name}.{key}" if name else key)


def _there(content: Any) -> str:
    """Name the entries of a file that are state dicts."""
    names = [f"`state: {name}`" if name else "no `state`" for name, _ in _entries(content)]
    return f"; there are weights with {_listed(names)}" if names else ""


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    )


def _is_other(value: torch.Tensor, own: torch.Tensor) -> bool:
    return value.is_floating_point() != own.is_floating_point()


def _optional(own: Mapping[str, torch.Tensor]) -> set[str]:
    return {key for key in own if key.endswith(COUNTER)}


def _fits(weights: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> bool:
    missing = set(own) - set(weights) - _optional(own)
    return not missing and all(k in own and _form(own[k]) == _form(v) for k, v in weights.items())


def _offers(content: Any, own: Mapping[str, torch.Tensor]) -> str:
    """Offer the lines `state` and `prefix` with which an entry of the content fits a net."""
    last = list(own)[-1] if own else ""
    offers = []
    for state, entry in _entries(content):
        for prefix in {key.removesuffix(last) for key in entry if key.endswith(last)}:
            if all(key.startswith(prefix) for key in entry) and _fits(
                {key.removeprefix(prefix): value for key, value in entry.items()}, own
            ):
                lines = {"state": state, "prefix": prefix}
                written = [f"`{key}: {value}`" for key, value in lines.items() if value]
                offers.append(" and ".join(written) or "neither `state` nor `prefix`")
    return OFFER + ", or ".join(offers) if offers else ""


def _differences(weights: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> str:
    missing = [key for key in own if key not in weights and not key.endswith(COUNTER)]
    left = [key for key in weights if key not in own]
    forms = [
        f"{key} ({_form(weights[key])} in the file, {_form(own[key])} in the net)"
        for key in own
        if key in weights and _form(own[key]) != _form(weights[key])
    ]
    parts = {
        "missing": [_with_near(key, left) for key in missing[:SHOWN]] + missing[SHOWN:],
        "left over": [_with_near(key, missing) for key in left[:SHOWN]] + left[SHOWN:],
        "of another form": forms,
    }
    return "; ".join(f"{what}: {_listed(keys)}" for what, keys in parts.items() if keys)


def _with_near(key: str, others: list[str]) -> str:
    return key + nearest(key, others, " (").replace("did you mean ", "nearest ").replace("?", ")")


def _form(tensor: torch.Tensor) -> str:
    return f"{'floating-point' if tensor.is_floating_point() else 'whole'} {tuple(tensor.shape)}"


def _listed(names: list[str], most: int = SHOWN) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _described(value: Any) -> str:
    """Describe in words what was found in place of a state dict."""
    if not isinstance(value, Mapping):
        return f"of type {type(value).__name__}"
    if not value:
        return "empty"
    return f"has {_listed([f'{key} ({type(v).__name__})' for key, v in value.items()])}"
