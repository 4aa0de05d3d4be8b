"""Write the schema and the documentation of the configuration."""

from pathlib import Path

from convergent.config import documentation, schema

top = Path(__file__).parents[3]
(top / "workflow/schemas/config.schema.json").write_text(schema(), encoding="utf-8")
(top / "docs/configuration.md").write_text(documentation(), encoding="utf-8")
