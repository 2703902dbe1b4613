"""Checks of the installation: Python, packages, OpenSlide, torch and GPUs, models, Snakemake."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sampath_wsi.errors import ConfigError, SampathError
from sampath_wsi.machine.doctor import Finding, fail, ok, warn
from sampath_wsi.training import require_extra

_PYTHON = (3, 11)
_DRIVER = Path("/proc/driver/nvidia/version")
_REINSTALL = "Install again: make install, or pip install -c envs/constraints.txt -e . in the environment."


def python() -> Iterator[Finding]:
    """Check the interpreter."""
    found, wanted = platform.python_version(), ".".join(map(str, _PYTHON))
    if sys.version_info < _PYTHON:
        yield fail(f"{found}, but {wanted} or newer is needed", "Make an environment with a newer Python.")
    else:
        yield ok(f"{found} at {sys.executable}")


def packages() -> Iterator[Finding]:
    """Check every requirement against the version that is installed."""
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in importlib.metadata.requires("sampath-wsi") or []]
    needed = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = 0
    for each in needed:
        try:
            found = importlib.metadata.version(each.name)
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found is None or not each.specifier.contains(found, prereleases=True):
            wrong += 1
            yield fail(f"{each.name} {found or 'is missing'}, but {each.specifier} is needed", _REINSTALL)
    if not wrong:
        yield ok(f"all {len(needed)} that are needed are there, in versions that fit")
    try:
        require_extra()
    except ConfigError as error:
        yield ok(str(error))


def openslide() -> Iterator[Finding]:
    """Check the library by opening and reading a small slide made for the purpose."""
    import numpy as np
    import openslide
    import tifffile

    from sampath_wsi.geometry import Box
    from sampath_wsi.slides import SlideReader, inspect_slide

    ramp = np.arange(256, dtype=np.uint8)
    rgb = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(128)), axis=-1)
    versions = f"library {openslide.__library_version__}, openslide-python {openslide.__version__}"
    with tempfile.TemporaryDirectory(prefix="sampath-doctor-") as folder:
        path = Path(folder) / "slide.tif"
        with tifffile.TiffWriter(path) as file:
            half_um = (20_000, 20_000)
            file.write(rgb, tile=(128, 128), photometric="rgb", resolution=half_um, resolutionunit="CENTIMETER")
        try:
            info = inspect_slide(path)
            with SlideReader(info) as reader:
                pixels = reader.read(Box(0, 0, 256, 256), (256, 256))
        except SampathError as error:
            yield fail(f"{versions}: cannot open a small TIFF: {error}", _REINSTALL)
            return
    if abs(info.mpp[0] - 0.5) > 1e-6 or not np.array_equal(pixels, rgb):
        yield fail(f"{versions}: a small TIFF is read wrongly", _REINSTALL)
    else:
        yield ok(f"{versions}: a small TIFF was opened and read")


def torch() -> Iterator[Finding]:
    """Check the library that computes."""
    import torch

    if float((torch.ones(8, 8) @ torch.ones(8, 8)).sum()) != 512:
        yield fail(f"{torch.__version__} computes wrongly", _REINSTALL)
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for the CPU"
    yield ok(f"{torch.__version__}, {built}, {torch.get_num_threads()} threads")


def gpu() -> Iterator[Finding]:
    """Check the devices that torch sees, who holds them, and why it sees none where there is a driver."""
    import torch

    from sampath_wsi.machine.device import held_gpus

    count = torch.cuda.device_count()
    if not count:
        yield _no_gpu(torch.version.cuda)
        return
    held = held_gpus()
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        what = f"cuda:{index} {properties.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        what += ", used by a job of sampath-wsi" if held[index] else ""
        try:
            torch.ones(8, 8, device=f"cuda:{index}").sum().item()
        except RuntimeError as error:
            yield fail(f"{what}: does not compute: {error}", "Update the driver, or choose device: cpu.")
            continue
        yield ok(what)


def _no_gpu(built_for: str | None) -> Finding:
    import torch

    if torch.backends.mps.is_available():
        return ok("Apple's GPU (mps)")
    driver = _DRIVER.exists() or shutil.which("nvidia-smi") is not None
    if driver and built_for is None:
        return warn(
            "an NVIDIA driver is installed, but torch is built for the CPU alone",
            "Install torch for CUDA: pip install --force-reinstall torch torchvision "
            "--index-url https://download.pytorch.org/whl/cu128",
        )
    if driver:
        return warn(
            "an NVIDIA driver is installed, but torch sees no GPU",
            "Look at nvidia-smi and CUDA_VISIBLE_DEVICES; a driver older than torch's CUDA must be updated.",
        )
    return warn(
        "none: models run on the CPU",
        "For studies use a machine with an NVIDIA GPU; small models and trials are fine as it is.",
    )


def models() -> Iterator[Finding]:
    """Check card and weights (by checksum) of every model that is here."""
    from sampath_wsi.files import sha256
    from sampath_wsi.model.card import CARD_NAME, ModelCard
    from sampath_wsi.model.zoo import installed_models, resolve_model

    whole = []
    for name in installed_models():
        path = resolve_model(name)
        weights = path / "weights.safetensors"
        try:
            card = ModelCard.read(path / CARD_NAME)
            if card.weights_sha256 and sha256(weights) != card.weights_sha256:
                raise OSError("truncated or altered")
        except (SampathError, OSError) as error:
            yield fail(f"{name}: {weights}: {error}", "Get the model again (those that ship: install again).")
            continue
        whole.append(name)
    if whole:
        yield ok(f"{', '.join(whole)}: whole")


def encoders() -> Iterator[Finding]:
    """Check the public weights that trainings begin with, where they are cached; none is needed to segment."""
    from sampath_wsi.model.zoo import ENCODERS, find_encoder

    missing = []
    for name, weights in ENCODERS.items():
        if not weights.cached_path.exists():
            missing.append(name)
            continue
        try:
            find_encoder(name)
        except SampathError as error:
            yield fail(str(error), f"Delete {weights.cached_path}; it is downloaded again when it is needed.")
            continue
        yield ok(f"{name}: whole, at {weights.cached_path}")
    if missing:
        yield ok(f"{', '.join(missing)}: not here; a training that needs them downloads them (docs/models.md)")


def snakemake() -> Iterator[Finding]:
    """Check that the engine is that of this environment."""
    found = importlib.metadata.version("snakemake")
    program = shutil.which("snakemake")
    activate = f"Activate the environment: source {Path(sys.prefix) / 'bin' / 'activate'}"
    if program is None:
        yield warn(f"{found} is installed, but the command is not in PATH", activate)
    elif Path(program).parent.resolve() != Path(sys.executable).parent.resolve():
        yield warn(f"the command in PATH is {program}, of another environment than this one", activate)
    else:
        yield ok(f"{found} at {program}")
