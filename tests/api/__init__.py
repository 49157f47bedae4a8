"""Tests of the terminal API."""
