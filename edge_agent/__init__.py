"""edge-agent: on-device face pre-screening and fail-closed verification with CypherFace."""

import os

# Before numpy is imported anywhere: its BLAS would start a thread per core that nothing here uses (10 MB, 60 ms).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Before pydantic is: it would look through every installed package for plugins, which nobody here wants.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")

__version__ = "0.1.0"
