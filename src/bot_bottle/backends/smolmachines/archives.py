"""What an archive of an image is: a bare root file system, what `docker save` writes, or an OCI layout (its specification 1.1)."""

import hashlib
import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from bot_bottle.backends.smolmachines.unpacking import BOUNDS, BoundedInfo, Unpacking, members
from bot_bottle.errors import HostError, PlanError

_LARGEST_TEXT = 8 << 20
_MOST_PARTS = 10_000
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class _Layers(NamedTuple):
    """The image's parts in the archive, the lowest first, and its configuration as the OCI has it."""

    names: Sequence[str]
    config: Mapping[str, Any]
    checked: bool
    """Whether names are digests of what they name."""


def unpack(file: IO[bytes], into: Unpacking, say: Callable[[str], None]) -> Mapping[str, Any]:
    """Puts the image together in `into`; its configuration (`Env`, …), empty for a bare one. Raises HostError, PlanError."""
    with _opened(file) as archive:
        kind = _kind(archive)
    with _opened(file) as archive:
        if kind is None:
            say("Unpacking the root file system")
            into.add(archive)
            return {}
        found = kind(archive)
        for number, name in enumerate(found.names, 1):
            say(f"Unpacking the image: layer {number} of {len(found.names)}")
            with _layer(archive, name, found.checked) as layer:
                into.take_away(layer)
            with _layer(archive, name, checked=False) as layer:
                into.add(layer, layered=True)
        config = found.config.get("config")
        return config if isinstance(config, dict) else {}


@contextmanager
def _opened(file: IO[bytes]) -> Iterator[tarfile.TarFile]:
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:*", tarinfo=BoundedInfo) as archive:
            yield archive
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise HostError("The image can't be unpacked", details=str(error) or "it ends too early") from error
    except OSError as error:
        raise HostError("The image can't be unpacked", details=error.strerror or str(error)) from error


def _kind(archive: tarfile.TarFile) -> Callable[[tarfile.TarFile], _Layers] | None:
    """What reads its layers; None for a bare root file system."""
    found, count = set(), 0
    for member in members(archive, BOUNDS.entries):
        name, count = member.name.removeprefix("./"), count + 1
        if name.split("/", 1)[0] in ("etc", "usr"):
            return None
        if name in ("manifest.json", "oci-layout", "index.json"):
            found.add(name)
    if found and count > _MOST_PARTS:
        raise HostError("The image can't be unpacked", details=f"it has more than {_MOST_PARTS} parts")
    if "manifest.json" in found:
        return _saved
    return _oci if {"oci-layout", "index.json"} <= found else None


def _saved(archive: tarfile.TarFile) -> _Layers:
    images = _json(archive, "manifest.json")
    if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], dict):
        raise PlanError(
            "The archive has more than one image, or none", resolution="Save one image by its name."
        )
    layers, config = images[0].get("Layers"), images[0].get("Config")
    if not isinstance(layers, list) or not isinstance(config, str):
        raise _wrong("manifest.json")
    return _Layers([str(one) for one in layers], _dict(archive, config), False)


def _oci(archive: tarfile.TarFile) -> _Layers:
    """By the index, which may lead to an index of machines, to the manifest, to the layers."""
    found = _dict(archive, "index.json")
    for _ in range(4):
        if "layers" in found:
            break
        found = _blob(archive, _choose(found.get("manifests")))
    if not isinstance(found.get("layers"), list):
        raise _wrong("index.json")
    return _Layers([_name(one) for one in found["layers"]], _blob(archive, found.get("config")), True)


def _choose(entries: Any) -> Any:
    """The one for this machine."""
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise _wrong("index.json")
    ours = _ARCHITECTURES.get(os.uname().machine, os.uname().machine)
    fitting = [one for one in entries if (one.get("platform") or {}).get("architecture", ours) == ours]
    if len(fitting) != 1:
        raise PlanError(
            f"The archive has {len(fitting)} images for this machine", details=f"This is {ours}.",
            resolution="Save one image for this machine.",
        )  # fmt: skip
    return fitting[0]


def _name(entry: Any) -> str:
    """Where in the archive the blob is that `entry` describes."""
    kind, _, digest = str(entry.get("digest") if isinstance(entry, dict) else "").partition(":")
    if kind != "sha256" or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise _wrong("a digest")
    return f"blobs/sha256/{digest}"


def _blob(archive: tarfile.TarFile, entry: Any) -> Mapping[str, Any]:
    name = _name(entry)
    text = _text(archive, name)
    _check(name, hashlib.sha256(text).hexdigest())
    return _as_dict(text, name)


def _check(name: str, digest: str) -> None:
    if not name.endswith(digest):
        raise HostError("The image can't be unpacked", details=f"{name} is not what its name says")


@contextmanager
def _layer(archive: tarfile.TarFile, name: str, checked: bool) -> Iterator[tarfile.TarFile]:
    with _file(archive, name) as file:
        if checked:
            _check(name, hashlib.file_digest(file, "sha256").hexdigest())  # type: ignore[arg-type]
            file.seek(0)
        if file.read(4) == b"\x28\xb5\x2f\xfd":
            raise HostError(
                "The image can't be unpacked", details=f"{name} is compressed with zstd",
                resolution="Save it again with gzip, or uncompressed.",
            )  # fmt: skip
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:*", tarinfo=BoundedInfo) as layer:
            yield layer


@contextmanager
def _file(archive: tarfile.TarFile, name: str) -> Iterator[IO[bytes]]:
    try:
        file = archive.extractfile(name)
    except KeyError as error:
        raise HostError("The image can't be unpacked", details=f"it lacks {name[:100]!r}") from error
    if file is None:
        raise _wrong(name)
    with file:
        yield file


def _text(archive: tarfile.TarFile, name: str) -> bytes:
    with _file(archive, name) as file:
        text = file.read(_LARGEST_TEXT + 1)
    if len(text) > _LARGEST_TEXT:
        raise _wrong(name)
    return text


def _json(archive: tarfile.TarFile, name: str) -> Any:
    try:
        return json.loads(_text(archive, name))
    except (ValueError, RecursionError) as error:
        raise _wrong(name) from error


def _dict(archive: tarfile.TarFile, name: str) -> Mapping[str, Any]:
    return _as_dict(_text(archive, name), name)


def _as_dict(text: bytes, name: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(name) from error
    if not isinstance(found, dict):
        raise _wrong(name)
    return found


def _wrong(name: str) -> HostError:
    return HostError("The image can't be unpacked", details=f"{name[:100]!r} in it is not as it should be")
