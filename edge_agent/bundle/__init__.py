"""A support bundle: what helps to find out what is wrong with a terminal, and nothing of a person or a secret."""
