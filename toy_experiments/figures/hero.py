"""The README's picture: several samples of one class in one evaluation, by flow matching and by iMF.

python -m toy_experiments.figures.hero
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import tyro

from imf_lite.data.autoencoder import load_vae
from imf_lite.data.normalisation import Latents
from imf_lite.pretrained import weights
from imf_lite.sampling import euler, generate, sample

from . import plots

CLASSES = {3: "dress", 9: "ankle boot", 8: "bag"}
COLUMNS = {"fashion_fm_plain": "flow matching", "fashion_imf": "improved MeanFlow"}


def main(out: Path = Path("docs/hero.png"), seed: int = 3, each: int = 5) -> None:
    """Draw the picture.

    Args:
        out: the PNG.
        seed: of the noise, the same for both networks.
        each: samples of each class.
    """
    plots.style()
    fig, axes = plt.subplots(len(CLASSES), 2, figsize=(9.2, 3.4))
    for column, (name, title) in enumerate(COLUMNS.items()):
        net, notes = weights.load(name), weights.read_notes(name)
        sampler, omega = (euler, None) if "fm" in name else (sample, 2.0)
        interval = None if omega is None else (0.2, 0.8)
        for row, label in enumerate(CLASSES):
            z, _ = generate(net, each, 1, seed, sampler, classes=(label,), omega=omega, interval=interval)
            images = Latents(**notes["latents"]).images(z, load_vae("fashion"))
            plots.digits(axes[row, column], images, "", each)
        axes[0, column].set_title(f"{title}, one evaluation per image", fontsize=11)
    fig.savefig(out, dpi=110)
    print(out)


if __name__ == "__main__":
    tyro.cli(main)
