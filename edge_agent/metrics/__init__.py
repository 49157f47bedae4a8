"""What a fleet operator sees of a terminal: its state and its counts in Prometheus' text format."""
