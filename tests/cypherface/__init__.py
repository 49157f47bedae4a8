"""The CypherFace client."""
