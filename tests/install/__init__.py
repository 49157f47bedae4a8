"""The installer, without root and without systemd."""
