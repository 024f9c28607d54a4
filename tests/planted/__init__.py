"""Planted bugs: plausible mistakes, applied to a copy of the tree, to see which check catches them and how soon."""
