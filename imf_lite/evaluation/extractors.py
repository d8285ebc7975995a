"""Feature extractors for FID, by name: torch-fidelity's own, and small classifiers registered beside them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torch_fidelity.utils import create_feature_extractor

from ..system.files import read_pickled, sha256
from .classifiers import CLASSIFIERS, Classifier


def extract(
    images: Tensor, extractor: str = "digits", weights: str | None = None, batch: int = 500,
    device: torch.device | str = "cpu",
) -> Tensor:  # fmt: skip
    """Features (N, F), on the CPU, of uint8 images (N, C, H, W).

    extractor: "digits", "fashion", or any extractor of torch-fidelity's, e.g. "inception-v3-compat", whose
    file `weights` is (default: torch-fidelity downloads it). batch: images seen at once. device: where.
    Raises ValueError for images of another dtype.
    """
    return features_and_logits(images, extractor, weights, batch, device)[0]


def features_and_logits(
    images: Tensor, extractor: str = "digits", weights: str | None = None, batch: int = 500,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Features (N, F) as `extract`, and the logits (N, K) that an Inception Score is made of.

    torch-fidelity's own extractors take RGB: grey images become three equal channels.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; "
            "FID is measured on uint8 (N, C, H, W): convert with to_uint8."
        )
    device = torch.device(device) if torch.device(device).type == "cuda" else torch.device("cpu")
    net = load_extractor(extractor, weights, str(device))
    if images.shape[1] == 1 and extractor not in OURS:
        images = images.expand(-1, 3, -1, -1)
    try:
        outputs = [net(part.to(device)) for part in images.split(batch)]
    except RuntimeError as error:
        if "shape" not in str(error) and "channels" not in str(error) and "size" not in str(error):
            raise
        raise ValueError(
            f"the extractor {extractor} does not take images of shape {tuple(images.shape[1:])}."
        ) from error
    features, logits = (torch.cat([layers[k].cpu() for layers in outputs]) for k in (0, -1))
    return features, logits


@cache
def load_extractor(extractor: str, weights: str | None, device: str):
    """torch-fidelity's extractor with the layers that FID and Inception Score read, loaded once."""
    if extractor not in FEATURE_EXTRACTORS_REGISTRY:
        raise ValueError(f"no extractor {extractor!r}; there is: {', '.join(FEATURE_EXTRACTORS_REGISTRY)}.")
    if extractor.startswith("dinov2"):
        raise ValueError(f"{extractor} would run code that torch.hub fetches: choose Inception or CLIP.")
    if extractor.startswith("clip"):
        check_clip(extractor, weights)
    elif weights is not None:
        check_weights(weights)
    elif extractor.startswith("inception-v3-compat"):
        weights = inception_file()
    of = FEATURE_EXTRACTORS_REGISTRY[extractor].get_default_feature_layer_for_metric
    layers = list(dict.fromkeys((of("fid"), of("isc"))))  # one and the same with CLIP
    try:
        net = create_feature_extractor(
            extractor, layers, cuda=False, feature_extractor_weights_path=weights, verbose=False
        )
    except OSError as error:
        raise ValueError(
            f"the weights of {extractor} cannot be loaded ({error}): fetch {URL_INCEPTION_V3} (or, for another "
            "extractor, what torch-fidelity's documentation names), and pass its path as --extractor-weights."
        ) from error
    return net.to(device)


def check_weights(path: str) -> None:
    """Raise ValueError for a file of weights that holds anything but tensors: torch-fidelity would execute it."""
    try:
        tensors = read_pickled(Path(path))
    except FileNotFoundError as error:
        raise ValueError(f"there is no file of extractor weights at {path}: fetch {URL_INCEPTION_V3}.") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path} is not a file of extractor weights: it must map names to tensors.")


def check_clip(extractor: str, weights: str | None) -> None:
    """Raise ValueError for a file that is not OpenAI's: it is TorchScript, whose code runs when it is loaded."""
    known = MODEL_METADATA[extractor]["hash"]
    path = Path(weights or Path(torch.hub.get_dir()) / "checkpoints" / f"{extractor}-{known}.pt")
    if weights is not None and not path.exists():
        raise ValueError(f"there is no file of extractor weights at {path}: fetch {MODEL_URLS[extractor]}.")
    if path.exists() and sha256(path) != known:
        raise ValueError(f"{path} is not {extractor}'s file (its SHA-256 differs): fetch {MODEL_URLS[extractor]}.")


def inception_file() -> str:
    """torch-fidelity's Inception weights, downloaded once; their SHA-256 begins as their name says.

    Raises ValueError, naming the address, where they can be neither found nor fetched.
    """
    name = URL_INCEPTION_V3.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    digits = name.removesuffix(".pth").rpartition("-")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=digits, progress=False)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"the weights of Inception cannot be fetched ({error}): fetch {URL_INCEPTION_V3}, and pass its path as "
                "--extractor-weights."
            ) from error
    if not sha256(path).startswith(digits):
        raise ValueError(f"{path} is not what its name says (its SHA-256 does not begin with {digits}): delete it.")
    check_weights(str(path))
    return str(path)


class ClassifierExtractor(FeatureExtractorBase):
    """A classifier as torch-fidelity wants it: uint8 (B, 1, size, size) -> features."""

    def __init__(self, name: str, features_list: list[str], **kwargs):
        super().__init__(name, features_list)
        self.net, _ = CLASSIFIERS[name]()

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> None:
        return None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = dict(zip(self.get_provided_features_list(), self.net(images), strict=True))
        return tuple(outputs[name] for name in self.features_list)


class StandIn(ClassifierExtractor):
    """A fixed random CNN in place of Inception, for rehearsals; its FIDs compare only with each other."""

    def __init__(self, name: str, features_list: list[str], **kwargs):
        FeatureExtractorBase.__init__(self, name, features_list)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = Classifier(32, (8, 16, 16), (0, 1), features=32).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return super().forward(F.interpolate(images.float().mean(1, keepdim=True), (32, 32), mode="area"))


OURS: dict[str, type[ClassifierExtractor]] = {**dict.fromkeys(CLASSIFIERS, ClassifierExtractor), "stand-in": StandIn}
for _name, _extractor in OURS.items():
    register_feature_extractor(_name, _extractor)
