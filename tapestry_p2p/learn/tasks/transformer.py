"""A byte-level decoder-only transformer in flax.nnx: bytes in, scores of the next byte out.

Rule: the model alone. It knows neither data nor training. Pre-norm blocks, no biases, rotary
positions (Su et al. 2021), tied input and output embedding.

Parameters: 256·width for the embedding, 12·width² per layer, and the norms' scales:
layers 2, width 48 gives 67,824; 2 x 52 gives 78,468; 3 x 40 gives 68,120.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

BYTES = 256
EXPANSION = 4  # hidden width of the feed-forward part, in widths


class Block(nnx.Module):
    """Attention, then a feed-forward part, each added to what came in."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.norm_attention = nnx.RMSNorm(width, rngs=rngs)
        self.mix = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.join = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.norm_feed = nnx.RMSNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, EXPANSION * width, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(EXPANSION * width, width, use_bias=False, rngs=rngs)

    def __call__(self, stream: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
        stream = stream + self._attend(self.norm_attention(stream), rotation)
        return stream + self.down(jax.nn.gelu(self.up(self.norm_feed(stream))))

    def _attend(self, inputs: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
        batch, length, width = inputs.shape
        size = width // self.heads
        parts = self.mix(inputs).reshape(batch, length, 3, self.heads, size)
        query, key, value = (parts[:, :, index] for index in range(3))
        query, key = rotate(query, rotation), rotate(key, rotation)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * size**-0.5
        past = np.tril(np.ones((length, length), bool))
        weights = jax.nn.softmax(jnp.where(past, scores, -1e9), axis=-1)
        found = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        return self.join(found.reshape(batch, length, width))


class Transformer(nnx.Module):
    """int[batch, length] bytes -> float32[batch, length, 256] scores of the byte that follows."""

    def __init__(self, layers: int, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.size = width // heads
        self.embed = nnx.Embed(BYTES, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs) for _ in range(layers)])
        self.norm = nnx.RMSNorm(width, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        stream = self.embed(tokens)
        rotation = rotations(tokens.shape[1], self.size)
        for block in self.blocks:
            stream = block(stream, rotation)
        return self.embed.attend(self.norm(stream))


def rotations(length: int, size: int) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines float32[length, 1, size/2] of every position's angles."""
    rates = 10.0 ** (-3 * np.arange(size // 2) / max(1, size // 2))
    angles = np.arange(length)[:, None, None] * rates
    return jnp.asarray(np.cos(angles), jnp.float32), jnp.asarray(np.sin(angles), jnp.float32)


def rotate(parts: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turn each pair of features by its position's angle; shapes [.., length, heads, size]."""
    cosine, sine = rotation
    first, second = jnp.split(parts, 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, first * sine + second * cosine], -1)
