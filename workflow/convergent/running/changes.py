"""What a changed configuration replaces: nets that a run has trained with other settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from convergent.running.origin import HISTORY, parse_history

# Settings that decide weights, without those in them that do not.
OF_WEIGHTS = ("data", "model", "training", "device")
OF_A_NET = ("seed", "epochs", "model", "training", "data")
WITHOUT_EFFECT = ("data.probes", "data.labels", "training.workers", "training.snapshots")
# Nets and settings that a sentence names.
NAMED = 4


def remark_on_replaced(
    folder: str | Path, nets: Sequence[str], configuration: Mapping[str, Any]
) -> str | None:
    """Say which nets of a run are trained again although they are there, and why.

    Parameters
    ----------
    folder : path
        Folder of the run's results, which holds the history.
    nets : sequence of str
        Nets with weights that are about to be trained.
    configuration : mapping
        The whole configuration, as the history records it.

    Returns
    -------
    str or None
        A sentence. None if no net has been trained with other settings.
    """
    path = Path(folder, HISTORY)
    if not nets or not path.exists():
        return None
    records = parse_history(path.read_text(encoding="utf-8", errors="replace"))
    configurations = {record["hash"]: record for record in records if "hash" in record}
    # The last training of each net counts.
    trained = {
        record["wildcards"].get("net"): configurations.get(record["configuration"])
        for record in records
        if str(record.get("rule")).startswith("train")
    }
    differences: dict[str, None] = {}
    replaced = []
    for net in nets:
        if record := trained.get(net):
            before, now = (
                dict(_settings(values, net)) for values in (record["configuration"], configuration)
            )
            found = [
                f"{key} was {_told(before.get(key))} and is {_told(now.get(key))}"
                for key in {**before, **now}
                if before.get(key) != now.get(key)
            ]
            differences.update(dict.fromkeys(found))
            replaced += [net] * bool(found)
    if not replaced:
        return None
    verb = "is" if len(replaced) == 1 else "are"
    return (
        f"{_some(list(differences), '; ')}: {_some(replaced, ', ')} {verb} trained again and "
        f"replaced in {folder}, with all that follows; --config run=NAME keeps what is there"
    )


def _settings(configuration: Mapping[str, Any], net: str) -> Iterator[tuple[str, Any]]:
    """Yield path and value of each setting that decides the weights of a net."""
    own = configuration.get("nets", {}).get(net, {})
    parts = {key: configuration.get(key) for key in OF_WEIGHTS}
    parts |= {f"nets.{net}.{key}": own.get(key) for key in OF_A_NET}
    pending = list(parts.items())
    for key, value in pending:
        if isinstance(value, Mapping):
            pending += [(f"{key}.{inner}", values) for inner, values in value.items()]
        elif not key.removeprefix(f"nets.{net}.").startswith(WITHOUT_EFFECT):
            yield key, value


def _told(value: Any) -> str:
    """Write a value as a configuration has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _some(names: Sequence[str], between: str) -> str:
    """Join the first few names, and count the others."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return between.join(names[:NAMED]) + more
