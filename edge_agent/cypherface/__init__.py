"""CypherFace: the wire client (``client``), its tokens, its answers (``wire``), and what they mean (``verdict``)."""
