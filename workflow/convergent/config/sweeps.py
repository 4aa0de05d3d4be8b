"""Sweeps: groups of nets that differ in some keys, written in a few lines."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    Field,
    PositiveInt,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from convergent.config.sections import GroupName, Net
from convergent.running.sections import Section

if TYPE_CHECKING:
    from convergent.config.run import Config

# Between the seeds of two groups.
APART = 100
# Keys of a net that a sweep may set, beside `layers` and `role` of groups; and those that the sweep
# itself gives each net.
SWEPT = ("model", "training", "data", "epochs")
GIVEN = ("seed", "group")
KeyPath = Annotated[str, StringConstraints(pattern=r"^\w+(\.\w+)*$")]


class Sweep(Section):
    """Groups of nets that are trained alike but for some keys."""

    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=APART)]], Field(min_length=1)] = [1, 2]
    """Seeds of the nets of the first group, which also name the nets, such as plain_1. Every
    further group adds 100, so that no two nets start from the same weights: they would be alike for
    another reason than their group. Each group needs two for a similarity within it."""
    groups: dict[GroupName, Net] = {}
    """Groups by name, each with the keys in which its nets differ from the run, as under `nets`:
    `model`, `training`, `data`, `epochs`, `layers` and `role`."""
    keys: dict[KeyPath, Annotated[list[Any], Field(min_length=1)]] = {}
    """Values of keys by their paths, such as `model.dropout: [0, 0.5]`. Each combination of them is
    a group, named after its values, such as dropout_0_5; with `groups` as well, each of those is
    combined with each of these."""
    most: PositiveInt = 20
    """Largest number of nets that a sweep may have; one with more is refused."""

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"each seed once, got {seeds}")
        return seeds

    @field_validator("groups")
    @classmethod
    def _check_groups(cls, groups: dict[str, Net]) -> dict[str, Net]:
        for name, group in groups.items():
            for key in sorted(group.model_fields_set - {*SWEPT, "layers", "role"}):
                why = (
                    "the sweep gives it to each net" if key in GIVEN else "a sweep trains its nets"
                )
                raise ValueError(f"{name}.{key}: not a key of a group, as {why}")
        return groups

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for path in keys:
            section, *inner = path.split(".")
            alone = section in ("model", "epochs")
            if section not in SWEPT or not (inner or alone):
                raise ValueError(
                    f"{path!r} is not the path of a key of a net; write one such as model.dropout, "
                    "training.weight_decay or data.subset"
                )
        return keys


def expand(config: Config) -> dict[str, Net]:
    """Write out the nets of a run's sweep.

    Parameters
    ----------
    config : Config
        Its `nets` are those beside the sweep.

    Returns
    -------
    dict
        The nets by name, such as plain_1; none if the run has no sweep.

    Raises
    ------
    ValueError
        If the sweep has no group, two groups or nets of one name, or too many nets; the message
        begins with the path of the key.
    """
    sweep = config.sweep
    if sweep is None:
        return {}
    groups = _groups(config, sweep)
    count = len(groups) * len(sweep.seeds)
    if count > sweep.most:
        raise ValueError(
            f"sweep.most: {len(groups)} groups of {len(sweep.seeds)} are {count} nets to train, "
            f"more than {sweep.most}; leave out groups or seeds, or raise sweep.most to {count}"
        )
    nets = {}
    for number, (group, (_, own)) in enumerate(groups.items()):
        for seed in sweep.seeds:
            name = f"{group}_{seed}"
            if name in config.nets or name in nets:
                raise ValueError(
                    f"nets.{name}: two nets have this name; the sweep has one for each group and "
                    f"seed, so call the group {group}, or the other net, otherwise"
                )
            nets[name] = own.model_copy(update={"seed": seed + APART * number, "group": group})
    return nets


def in_words_of_sweep(config: Config, message: str) -> str:
    """Name the keys of a sweep in a message about keys of the nets that it wrote out."""
    sweep = config.sweep
    if sweep is None:
        return message
    named = {
        f"{group}_{seed}": name
        for group, (name, _) in _groups(config, sweep).items()
        for seed in sweep.seeds
    }

    def place(found: re.Match[str]) -> str:
        net, path = found.groups()
        if net not in named:
            return found[0]
        if path == "seed":
            return "sweep.seeds"
        if any(f"{path}.".startswith(f"{key}.") for key in sweep.keys) or not named[net]:
            return f"sweep.keys.{path}"
        return f"sweep.groups.{named[net]}.{path}"

    return re.sub(r"\bnets\.(\w+)\.([\w.]*\w)", place, message)


def _groups(config: Config, sweep: Sweep) -> dict[str, tuple[str, Net]]:
    """Combine each named group with each combination of keys: its name there, and its own keys."""
    if not sweep.groups and not sweep.keys:
        raise ValueError("sweep: has no group; write groups, or keys with their values")
    last = [path.rpartition(".")[2] for path in sweep.keys]
    labels = [
        name if last.count(name) == 1 else _word(path)
        for path, name in zip(sweep.keys, last, strict=True)
    ]
    found: dict[str, tuple[str, Net]] = {}
    for name, group in (sweep.groups or {"": Net()}).items():
        given = group.model_dump(exclude_unset=True)
        for values in itertools.product(*sweep.keys.values()):
            own = copy.deepcopy(given)
            words = [name] if name else []
            for path, label, value in zip(sweep.keys, labels, values, strict=True):
                if _has(given, path):
                    raise ValueError(f"sweep.keys.{path}: sweep.groups.{name} sets it, too")
                _set(own, path, value, config)
                words += [label, _word(json.dumps(value))]
            of_group = "_".join(words)
            remedy = "write these groups under sweep.groups, each with a name of its own"
            if of_group in found:
                raise ValueError(f"sweep.keys: two groups would be called {of_group}; {remedy}")
            try:
                TypeAdapter(GroupName).validate_python(of_group)
            except ValidationError:
                raise ValueError(
                    f"sweep.keys: {of_group} is no name of a group; {remedy}"
                ) from None
            try:
                found[of_group] = name, Net.model_validate(own)
            except ValidationError as error:
                fault = error.errors()[0]
                path = ".".join(map(str, fault["loc"]))
                got = f"{fault['msg']}, got {fault['input']!r}"
                raise ValueError(f"sweep.keys.{path}: {got}") from None
    return found


def _has(own: Any, path: str) -> bool:
    """Tell whether keys of a net have a value at a path."""
    first, _, rest = path.partition(".")
    if not isinstance(own, Mapping) or first not in own:
        return False
    return not rest or _has(own[first], rest)


def _set(own: dict[str, Any], path: str, value: Any, config: Config) -> None:
    """Set a key of a net by its path."""
    *sections, last = path.split(".")
    at: dict[str, Any] = own
    run: Any = config
    for depth, section in enumerate(sections):
        run = getattr(run, section, None)
        inner = at.get(section)
        if inner is None:
            # Below the first level, a net's keys stand in place of all of the run's.
            inner = run.model_dump() if depth and isinstance(run, Section) else {}
        at[section] = {"name": inner} if isinstance(inner, str) else inner
        at = at[section]
    at[last] = value


def _word(value: str) -> str:
    """Write a value with letters, digits and underscores only, as names of groups have them."""
    return re.sub(r"[^A-Za-z0-9]+", "_", value).strip("_")
