"""Model packs: what they are made of (manifest), how their files are had (fetch) and checked (verify)."""
