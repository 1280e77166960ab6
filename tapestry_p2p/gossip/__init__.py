"""Bytes only, pure: identity, signed streams, verdicts, membership. One door: Protocol.step."""
