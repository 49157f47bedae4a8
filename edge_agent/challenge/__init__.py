"""Asking the customer for a small movement that a flat picture cannot show. Pure: no pixels, no clocks."""
