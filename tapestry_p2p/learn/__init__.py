"""JAX and private data: trains, evaluates, generates. Never imports another room; has no network."""
