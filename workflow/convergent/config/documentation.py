"""The schema and the documentation of the configuration, made from its sections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from convergent.config.run import Config
from convergent.config.sections import Net, Place, Source, Subset
from convergent.config.sweeps import Sweep
from convergent.nets.architectures import ARCHITECTURES
from convergent.running.sections import Section


def schema() -> str:
    """Return the JSON schema, which ``workflow/schemas/config.schema.json`` holds."""
    values = {
        "$schema": "https://json-schema.org/draft/2020-12/schema"
    } | Config.model_json_schema()
    # In an overlay, null leaves a net out.
    nets = values["properties"]["nets"]["patternProperties"]
    for pattern, net in nets.items():
        nets[pattern] = {"anyOf": [net, {"type": "null"}]}
    return json.dumps(values, indent=2) + "\n"


def documentation() -> str:
    """Return a table of all keys in Markdown, which ``docs/configuration.md`` holds."""
    lines = [
        "# Configuration",
        "",
        "Generated from `workflow/convergent/config` by `python -m convergent.config`; "
        "defaults are the paper's ImageNet run. Unknown keys and bad values are refused before "
        "anything runs.",
        "",
        "| key | type | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *_rows(Config, "")]) + "\n"


def _rows(section: type[Section], prefix: str, about: str = "") -> list[str]:
    """List the keys of a section, each with `about` before its meaning."""
    rows = []
    properties = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        inner = field.annotation
        if name == "model" and section is not Net:
            for architecture in ARCHITECTURES.values():
                rows += _rows(architecture.options, "model.", f"{architecture.name}: ")
            rows += _rows(Source, "model.", "any other net: ")
            continue
        if isinstance(inner, type) and issubclass(inner, Section):
            rows += _rows(inner, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        meaning = about + " ".join((field.description or "").split())
        rows.append(f"| `{prefix}{name}` | {_kind(properties[name])} | {default} | {meaning} |")
        if name == "subset":
            rows += _rows(Subset, f"{prefix}subset.")
        if name == "nets":
            rows += _rows(Net, "nets.<name>.")
        if name == "sweep":
            rows += _rows(Sweep, "sweep.")
        if name == "layers" and section is Config:
            rows += _rows(Place, f"{prefix}layers.<layer>.")
    return rows


def _kind(schema: Mapping[str, Any]) -> str:
    """Describe a type of the JSON schema in words."""
    for choices in ("anyOf", "oneOf"):
        if choices in schema:
            return " or ".join(_kind(choice) for choice in schema[choices])
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2].lower()
    if "enum" in schema:
        return " or ".join(schema["enum"])
    if isinstance(schema.get("additionalProperties"), dict):
        return f"by layer ({_kind(schema['additionalProperties'])})"
    if "patternProperties" in schema:
        return f"by name ({_kind(next(iter(schema['patternProperties'].values())))})"
    if schema["type"] == "array":
        entries = schema["items"] if "items" in schema else schema["prefixItems"][0]
        if not entries:
            return "list"
        least, most = schema.get("minItems"), schema.get("maxItems")
        return f"list of {f'{least} ' if least and least == most else ''}{_kind(entries)}"
    return schema.get("const") or schema["type"]
