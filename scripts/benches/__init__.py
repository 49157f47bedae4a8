"""The body of ``scripts/bench``: what the project promises about speed, memory and bytes, measured beside its peers."""
