"""Tests of edge_agent.vision."""
