"""The journal port, its codec and its adapters."""
