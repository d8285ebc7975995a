"""Fetches and makes what the built book needs, so that it needs no network: `python docs/assets.py`.

MathJax and onnxruntime-web come from the npm registry in the versions of package-lock.json; the live page's networks
are exported from those that ship with the package. What is there already is not made again.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from imf_lite.data.normalisation import Latents
from imf_lite.pretrained import export, weights
from imf_lite.system.paths import pretrained_folder
from imf_lite.system.rng import generator

DOCS = Path(__file__).parent
LIVE = DOCS / "live"
NETWORKS = {
    "fashion-imf": pretrained_folder("fashion") / "networks" / "fashion_imf",
    "fashion-fm": pretrained_folder("fashion") / "networks" / "fashion_fm_plain",
    "fashion-pixels": pretrained_folder("fashion") / "networks" / "fashion_pixels",
    **{f"plane-{name}": pretrained_folder("plane") / name for name in ("fm", "mf", "imf")},
}
VENDORED = {
    "mathjax/es5/tex-chtml.js": DOCS / "_static" / "mathjax" / "tex-chtml.js",
    "mathjax/es5/output/chtml/fonts": DOCS / "_static" / "mathjax" / "output" / "chtml" / "fonts",
    "mathjax/es5/input/tex/extensions": DOCS / "_static" / "mathjax" / "input" / "tex" / "extensions",
    "onnxruntime-web/dist/ort.wasm.bundle.min.mjs": LIVE / "vendor" / "ort.wasm.bundle.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm": LIVE / "vendor" / "ort-wasm-simd-threaded.wasm",
}


def vendor() -> None:
    """Install the packages of package-lock.json and copy the files that pages load. Raises SystemExit without npm."""
    if shutil.which("npm") is None:
        sys.exit("npm is missing: install Node.js 18 or later; the book gets MathJax and onnxruntime-web by npm.")
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=DOCS, check=True)
    for source, target in VENDORED.items():
        vendored = DOCS / "node_modules" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if vendored.is_dir():
            shutil.copytree(vendored, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(vendored, target)


def noise(*shape: int) -> np.ndarray:
    """What the live page starts from, (13, *shape): three corners of its plane of noise, and one for each class."""
    return torch.randn(13, *shape, generator=generator("cpu", 0)).numpy()


def models(out: Path) -> None:
    """Write every network and the decoder as ONNX in half precision, the noise, and a digest of their sources."""
    folders = [*NETWORKS.values(), pretrained_folder("fashion") / "vae"]
    sources = [path for folder in folders for path in sorted(folder.iterdir())]
    sources += [Path(export.__file__), Path(__file__)]
    made_from = hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()
    stamp = out / "made_from.txt"
    if stamp.exists() and stamp.read_text() == made_from:
        return
    shutil.rmtree(out, ignore_errors=True)
    for name, folder in NETWORKS.items():
        notes = weights.read_notes(folder)
        data = {"data": notes["data"]} if "data" in notes else {}
        export.export_u(weights.load(folder), out / f"{name}.onnx", half=True, notes=data)
    notes = weights.read_notes(NETWORKS["fashion-imf"])
    export.export_decoder(Latents(**notes["latents"]), (4, 8, 8), out / "fashion-decoder.onnx", half=True)
    noise(4, 8, 8).tofile(out / "noise.bin")
    noise(1, 32, 32).tofile(out / "noise-pixels.bin")
    stamp.write_text(made_from)


if __name__ == "__main__":
    vendor()
    models(LIVE / "models")
