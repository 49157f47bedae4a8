"""``edge-agent aim``: a page on loopback that shows what the camera sees and what the gate makes of it."""
