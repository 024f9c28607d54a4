"""Processes: the only part that knows Ray. Settings, wiring, the supervisor behind ``stockade serve`` and the actors it
keeps alive.
"""
