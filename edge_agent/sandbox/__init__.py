"""The sandbox: CypherFace's merchant API as a real HTTP server on loopback, for the demo, the tests and technicians.

``server.SandboxServer`` runs it in a thread, ``edge-agent sandbox`` as a process. It keeps pictures and user ids in
the clear: it is a test double and must never see a customer.
"""
