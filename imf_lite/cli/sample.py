"""imf-lite sample: draw samples as one picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from .options import (
    NetworkOptions,
    check_counts,
    check_file,
    check_images,
    class_numbers,
    guidance_name,
    latent_space,
    load_network,
    sampler,
)


@dataclass(frozen=True, kw_only=True)
class Sample(NetworkOptions):
    """Draw samples of a run or of trained weights, one class per column: a PNG, or latents as .npy without a VAE."""

    out: Path | None = None
    """the file; default: named after the request, in RUN/samples or samples"""
    nfe: int = 1
    """network evaluations per sample, that is, steps"""
    omega: float | None = None
    """guidance scale, at least 1, of a guided network; default 1"""
    interval: tuple[float, float] | None = None
    """times between which guidance acts; default 0 1"""
    classes: tuple[str, ...] | None = None
    """the columns, by number or name; default: the first ten classes"""
    rows: int = 10
    """samples of each class"""
    seed: int = 0
    """seed of the noise"""
    device: str | None = None
    """cuda, mps or cpu; default: the best there is"""


def sample(options: Sample) -> None:
    """Draw the samples and write them as one file."""
    import numpy as np

    from ..data.images import grid, save_png, to_uint8
    from ..sampling import generate
    from ..system.files import digest, short, write_bytes

    check_counts(options, nfe=1, rows=1, seed=0)
    check_file(options.out)
    net, notes = load_network(options, options.device)
    check_images(net)
    nfe, rows = options.nfe, options.rows
    classes = class_numbers(options.classes, net, notes)
    columns = len(classes or range(10))
    omega, interval = options.omega, options.interval
    x, _ = generate(net, rows * columns, nfe, options.seed, sampler(notes), 100, omega, interval, classes)
    name = "" if options.weights is None else f"{Path(options.weights).stem}-"
    name += f"nfe{nfe}{guidance_name(omega, interval)}"
    name += f"-classes{'-'.join(map(str, classes))}" if options.classes and classes else ""
    space = latent_space(net, notes, options)
    coded = space and {"vae": space.vae, "sha256": space.vae_sha256, "mean": space.mean, "std": space.std}
    decides = {"network": digest(net.state_dict()), "latents": coded, "rows": rows}
    name += (f"-ema{options.ema}" if options.ema else "") + f"-seed{options.seed}-{short(decides)}"
    out = options.out or (options.run or Path(".")) / "samples" / name
    if not x.isfinite().all():
        raise ValueError("the samples are not finite: the network diverged, or is damaged; nothing is saved.")
    if space is not None and not space.vae:
        out = out.with_name(out.name.removesuffix(".npy") + ".npy")
        content = io.BytesIO()
        np.save(content, space.denormalise(x).cpu().numpy())
        write_bytes(out, content.getvalue())
        print(f"{len(x)} raw latents, class by class in turn, at {nfe} NFE: {out} (give --vae for images)")
        return
    images = to_uint8(x) if space is None else space.images(x)
    out = out.with_name(out.name.removesuffix(".png") + ".png")
    save_png(out, grid(images, columns), zoom=max(1, 64 // images.shape[-1]))
    print(f"{rows} x {columns} samples at {nfe} NFE: {out}")
