"""What the agent counts, how it is shown, and what is made of it."""
