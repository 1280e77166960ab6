"""The verbs of the command line; each imports only what it needs."""
