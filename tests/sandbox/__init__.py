"""The sandbox, observed from outside with a plain HTTP client on real sockets."""
