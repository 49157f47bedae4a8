"""Measuring on the operator's own material: how often faces are confused, and how often attacks pass. Changes nothing."""
