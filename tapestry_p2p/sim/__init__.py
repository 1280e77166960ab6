"""Shipped simulator: a seeded network that runs the production gossip and mix in virtual time."""
