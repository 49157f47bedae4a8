"""The demo: the real daemon and the sandbox as separate processes, six scenarios, two people."""
