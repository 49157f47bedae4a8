"""Measurements of this machine, each beside a bare one of the same work: ``edge-agent bench``."""
