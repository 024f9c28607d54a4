"""Power loss, played on a modelled disk: what a journal holds after the power went at any moment of its life.

``python -m tests.power_loss`` is the long run, ``tests/unit/test_power_loss.py`` the short one.
"""
