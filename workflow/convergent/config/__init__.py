"""The configuration of a run: its sections, checks between keys and of the disk, documentation.

Only :mod:`convergent.runs`, which opens a run that was made, imports from it. All others take plain
values, which the rules read from the configuration.
"""

from convergent.config.checks import (
    ConfigError,
    check_data,
    check_shapes,
    count_images,
    image_sources,
)
from convergent.config.default_layers import default_layers
from convergent.config.documentation import documentation, schema
from convergent.config.run import Config, load

__all__ = [
    "Config",
    "ConfigError",
    "check_data",
    "check_shapes",
    "count_images",
    "default_layers",
    "documentation",
    "image_sources",
    "load",
    "schema",
]
