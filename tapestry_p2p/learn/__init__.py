"""JAX and private data: trains, evaluates, generates. Imports no other room; has no network."""
