"""The field diagnostics: what of this terminal works, what does not, and what mends it. ``examination.run_checks``."""
