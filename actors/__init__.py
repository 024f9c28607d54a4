"""The core of Stockade: the domain, its shards, their journal and what runs them."""
