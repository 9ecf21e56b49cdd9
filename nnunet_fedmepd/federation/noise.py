"""Gaussian noise that nobody can draw without a secret, and that a secret draws again for the same content only.

The seeds in a federation file are known to everybody, and torch's and numpy's generators are not made to keep a secret:
torch's on a CPU takes 32 bits of a seed, and parameters that did not change show its numbers as they are, from which
the others can be found. So the bits come from SHAKE-256, keyed by the secret.

The key depends on the content that the noise hides, as in deterministic signatures (RFC 6979): the same content gets
the same noise, so that nobody who asks twice learns more; other content, be it by one bit, gets noise that has nothing
to do with it, so that no two messages differ by their content alone.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtri
from torch import Tensor

_BLOCK = 65536  # values for one call of SHAKE-256: 512 KiB
_MAGNITUDE_BITS = np.uint64(2**63 - 1)


def noise_key(secret: bytes, content: bytes) -> bytes:
    """Return the key of the noise of some content (HMAC-SHA-256).

    Args:
        secret: of the site.
        content: a digest of everything that the noise hides, and of what it is added to.
    """
    return hmac.new(secret, content, hashlib.sha256).digest()


def gaussian_noise(key: bytes, length: int) -> Float[Tensor, " length"]:
    """Return standard normal numbers, float64; the same key gives the same ones.

    Every number is the normal quantile of 64 bits: a sign, and a probability of 63 bits in (0, 1/2), so that the tails
    reach to 9 standard deviations without gaps.
    """
    blocks = [_block(key, start, min(_BLOCK, length - start)) for start in range(0, length, _BLOCK)]
    return torch.from_numpy(np.concatenate([np.zeros(0), *blocks]))


def _block(key: bytes, start: int, length: int) -> np.ndarray:
    stream = hashlib.shake_256(key + start.to_bytes(8, "little"))
    bits = np.frombuffer(stream.digest(8 * length), "<u8")
    probability = ((bits & _MAGNITUDE_BITS).astype(np.float64) + 0.5) * 2.0**-64
    return np.where(bits > _MAGNITUDE_BITS, 1.0, -1.0) * ndtri(probability)
