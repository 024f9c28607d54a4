"""A SQL picture of stock and reservations that people query and join: a reader of the change feed, never asked by anything."""
