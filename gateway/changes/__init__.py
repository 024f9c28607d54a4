"""Changes out: the gateway follows the hosts' change feed once and serves readers, watchers and its own view from it."""
