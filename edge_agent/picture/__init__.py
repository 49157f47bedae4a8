"""Reading pictures that come from files and requests."""

from edge_agent.picture.reading import read_picture

__all__ = ["read_picture"]
