"""The same plan as Kubernetes Jobs. Kubernetes schedules; this room writes Jobs, reads the store, and tells what happens.

``jobs`` says which Jobs there must be, ``manifests`` what they look like, ``ceiling`` what they may cost, ``conductor``
begins them when what they need is sealed, ``pod`` is what runs inside of one.
"""
