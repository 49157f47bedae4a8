"""Writes docs/openapi.json and docs/problems.md anew; started by scripts/api-docs."""

from __future__ import annotations

from pathlib import Path

from edge_agent.api import openapi, problem_page
from edge_agent.api.operations import OPERATIONS
from edge_agent.api.routes import route_table

DOCS = Path(__file__).resolve().parents[1] / "docs"


def pages() -> dict[str, str]:
    """What the files in docs/ have to be."""
    return {
        "openapi.json": openapi.text(route_table(), OPERATIONS),
        "problems.md": problem_page.page(OPERATIONS),
    }


def main() -> None:
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
