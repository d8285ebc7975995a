"""The identity of a score: everything that it depends on, from which its short name is made.

`evaluate` writes it into the result and into its file's name, `search` beside every row of its table, so that the
scores of two networks, references or protocols are never taken for each other.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..configs import Precision
from ..data.autoencoder import load_vae
from ..data.normalisation import Latents
from ..system.files import digest, sha256

if TYPE_CHECKING:
    from ..networks import Network
    from .references import Reference


def identity(
    net: Network, space: Latents | None, extractor: str, extractor_weights: str | None, real: Reference | str,
    precision: Precision, **protocol: object,
) -> dict[str, object]:  # fmt: skip
    """Everything that decides a score, by name, as JSON; contents by their SHA-256, not by their paths.

    space: the latents that the network makes. real: what samples are compared with. protocol: n, nfe, seed, sampler
    and, for one score, omega and interval.
    """
    return {
        "network": digest(net.state_dict(), json.dumps(asdict(net.config), sort_keys=True)),
        "latents": space and {"mean": space.mean, "std": space.std, "vae": autoencoder_digest(space)},
        "extractor": extractor,
        "extractor_weights": extractor_weights and sha256(Path(extractor_weights)),
        "reference": real if isinstance(real, str) else statistics_digest(real.statistics),
        "precision": precision,
        **protocol,
    }


def autoencoder_digest(space: Latents) -> str:
    """SHA-256 of the weights that decode: what the latents note, or else those of the autoencoder that is named."""
    return space.vae_sha256 or digest(load_vae(space.vae).state_dict())


def statistics_digest(statistics: dict[str, np.ndarray]) -> str:
    """SHA-256 of mean and covariance."""
    return digest({name: torch.as_tensor(np.ascontiguousarray(array)) for name, array in statistics.items()})
