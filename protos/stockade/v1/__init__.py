"""The contract of Stockade, version 1: generated messages and stubs, one module per proto."""
