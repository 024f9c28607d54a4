"""Every event of a real year sent three times in random order, some minutes late, over reconnects and killed processes."""
