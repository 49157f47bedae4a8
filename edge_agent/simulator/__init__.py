"""The simulator: the real agent, store and API with a scripted camera, scripted models and a stand-in for CypherFace.

What is made up is only what a laptop lacks; what happens is chosen per request (see ``outcomes``).
"""
