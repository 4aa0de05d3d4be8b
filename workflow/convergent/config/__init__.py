"""The configuration of a run: its sections, checks between keys and of the disk, documentation.

The last room: it may import from every other, as it knows what they offer, and none imports from
it. The library takes plain values, and the rules read them from the configuration.
"""

from convergent.config.checks import (
    ConfigError,
    check_data,
    check_shapes,
    count_images,
    image_sources,
)
from convergent.config.documentation import documentation, schema
from convergent.config.run import Config, load

__all__ = [
    "Config",
    "ConfigError",
    "check_data",
    "check_shapes",
    "count_images",
    "documentation",
    "image_sources",
    "load",
    "schema",
]
