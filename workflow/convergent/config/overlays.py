"""Overlays: configurations that replace keys of ``config.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def settle(
    merged: Mapping[str, Any], base: Mapping[str, Any], overlay: Mapping[str, Any]
) -> dict[str, Any]:
    """Settle what merging an overlay key by key leaves unsettled.

    Nets keep the order of ``config.yaml``, and so do pairs. An overlay with another architecture
    brings that one's keys: those of ``config.yaml`` for its own architecture and layers are left
    out.

    Parameters
    ----------
    merged : mapping
        The overlay merged into ``config.yaml``, as Snakemake does it.
    base : mapping
        The contents of ``config.yaml``.
    overlay : mapping
        The contents of all overlays and of ``--config``, merged.

    Returns
    -------
    dict
        The configuration to check and to use.
    """
    settled = dict(merged)
    if isinstance(base.get("nets"), Mapping) and isinstance(merged.get("nets"), Mapping):
        settled["nets"] = {**base["nets"], **merged["nets"]}
    sections = [values.get("model") for values in (base, overlay)]
    old, new = [m.get("name") if isinstance(m, Mapping) else None for m in sections]
    if new in (None, old):
        return settled
    settled["model"] = dict(overlay["model"])
    settled["layers"] = overlay.get("layers", [])
    # Both name layers of the other architecture.
    clustering, mapping = merged.get("clustering"), merged.get("mapping")
    if isinstance(clustering, Mapping):
        k = (overlay.get("clustering") or {}).get("k", "auto")
        settled["clustering"] = {**clustering, "k": k}
    if isinstance(mapping, Mapping) and isinstance(mapping.get("sgd"), Mapping):
        layers = ((overlay.get("mapping") or {}).get("sgd") or {}).get("layers", [])
        settled["mapping"] = {**mapping, "sgd": {**mapping["sgd"], "layers": layers}}
    return settled
