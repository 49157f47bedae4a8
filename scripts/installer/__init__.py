"""The body of ``scripts/install``: the standard library only, because nothing else is there yet."""
