"""What the terminal may say of a person while CypherFace cannot be reached (offline.policy ``provisional``)."""
