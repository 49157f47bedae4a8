"""edge-agent: on-device face pre-screening and fail-closed verification with CypherFace."""

__version__ = "0.1.0"
