"""The project itself: locks, scripts, layers."""
