"""Two versions of the service beside each other: what a rolling upgrade meets."""
