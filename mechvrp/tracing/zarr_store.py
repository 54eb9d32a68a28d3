"""The zarr stores that ``cache_to_zarr`` writes: one writer each, and read strictly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvrp.errors import MechVRPError, RunFolderError, UnavailableError
from mechvrp.files import parse_json, path_of
from mechvrp.store.holding import hold
from mechvrp.store.places import make_folder, place

if TYPE_CHECKING:
    import zarr

__all__ = ["ROW_AXES", "checked_to_read", "given", "held_store", "located", "zarr_here"]

_FORMAT = {"format": "mechvrp-activations", "format_version": 1}
#: The axis of rows that sites of a kind share.
ROW_AXES = {"prompt": "row", "projected": "image_row", "vision": "vision_row"}


@contextmanager
def held_store(
    to: str | Path, call: Mapping[str, Any], storage_options: Mapping[str, Any] | None
) -> Iterator[tuple[zarr.Group, Callable[[], AbstractContextManager[None]]]]:
    """The store of a call, new or with what an earlier one has written, held against other writers.

    Args:
        to: where.
        call: what tells it from other calls.
        storage_options: for fsspec.

    Yields:
        The group, and what each write is to be made within.

    Raises:
        RunFolderError: another process holds it, or it holds something else.
    """
    at = place(to, storage_options)
    make_folder(at.parent)
    with hold(at.parent, f"{at.name}.lock") as held:

        @contextmanager
        def writing() -> Iterator[None]:
            held()
            with _told(to, "be written"):
                yield

        yield _opened(located(to), {**_FORMAT, **call}, storage_options), writing


def checked_to_read(path: str | Path, storage_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The attributes of a store of ours whose arrays are what we write: plain numbers, in the rows that count.

    Anything else in a store of strangers (a codec that unpickles, objects) is refused before a value is read.

    Raises:
        RunFolderError: it is not there, not ours, or damaged.
    """
    group = _existing(path, storage_options, "r")
    attrs: dict[str, Any] = dict(group.attrs)
    _check_ours(path, attrs)
    if attrs["done"] == attrs["examples"]:
        _check_arrays(path, group, attrs)
    return attrs


def located(path: str | Path) -> str:
    """As zarr takes it: an address, or a path of this machine."""
    return str(path if "://" in str(path) else path_of(path, "a store's folder", RunFolderError))


def given(storage_options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Options as zarr takes them."""
    return dict(storage_options) if storage_options else None


def zarr_here() -> Any:
    """The package ``zarr``, if it is installed."""
    try:
        import zarr
    except ImportError as error:
        raise UnavailableError(
            "activations on disk need zarr, which is not installed: pip install 'mechvrp[zarr]'"
        ) from error
    return zarr


def _opened(
    to: str | Path, call: dict[str, Any], storage_options: Mapping[str, Any] | None
) -> zarr.Group:
    try:
        group = _existing(to, storage_options, "r+")
    except _NothingThereError:
        local = "://" not in str(to)
        if local and Path(to).exists() and (Path(to).is_file() or any(Path(to).iterdir())):
            raise RunFolderError(f"{to} holds something else; choose a new folder") from None
        with _told(to, "be written"):
            new: zarr.Group = zarr_here().open_group(
                str(to),
                mode="w-",
                zarr_format=3,
                storage_options=given(storage_options),
                # All at once: a store that is there says what it is of.
                attributes={**call, "rows": "{}", "done": 0},
            )
        return new
    held = dict(group.attrs)
    _check_ours(to, held)
    differing = [
        f"{k}: {held.get(k)!r:.60} against {v!r:.60}" for k, v in call.items() if held.get(k) != v
    ]
    if differing:
        raise RunFolderError(
            f"{to} holds the activations of another call; in the store against asked for: "
            f"{'; '.join(differing)}. Choose another folder"
        )
    return group


class _NothingThereError(RunFolderError):
    """There is no group at all."""


def _existing(path: str | Path, storage_options: Mapping[str, Any] | None, mode: Any) -> zarr.Group:
    zarr = zarr_here()
    with _told(path, "be read"):
        try:
            found: zarr.Group = zarr.open_group(
                str(path), mode=mode, zarr_format=3, storage_options=given(storage_options)
            )
        except FileNotFoundError as error:  # zarr's own of a missing group is one
            raise _NothingThereError(f"there are no activations at {path}: {error}") from error
    return found


def _check_ours(path: str | Path, attrs: Mapping[str, Any]) -> None:
    if attrs.get("format") != _FORMAT["format"]:
        raise RunFolderError(f"{path} is a zarr store of another program")
    if attrs.get("format_version") != _FORMAT["format_version"]:
        raise RunFolderError(
            f"{path} is of format {attrs.get('format_version')!r}; this mechvrp reads "
            f"{_FORMAT['format_version']}"
        )
    done, examples, sites = (attrs.get(name) for name in ("done", "examples", "sites"))
    counted = type(done) is int and type(examples) is int and 0 <= done <= examples
    named = isinstance(sites, list) and all(isinstance(site, str) for site in sites)
    if not counted or not named or _ends(attrs) is None:
        raise RunFolderError(f"{path} is damaged: its attributes are {dict(attrs)!r:.200}")


def _ends(attrs: Mapping[str, Any]) -> dict[str, int] | None:
    """The rows that count, by the name of their axis; ``None`` where the store does not say."""
    try:
        rows = parse_json(str(attrs["rows"]).encode())
        return {ROW_AXES[kind]: int(end) for kind, end in rows.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _check_arrays(path: str | Path, group: zarr.Group, attrs: Mapping[str, Any]) -> None:
    from zarr.codecs import BytesCodec

    ends = _ends(attrs) or {}
    with _told(path, "be read"):
        arrays: dict[str, Any] = dict(group.arrays())
        for name, array in arrays.items():
            names = array.metadata.dimension_names or ("",)
            plain = isinstance(array.serializer, BytesCodec) and not array.compressors
            if array.filters or not plain or array.dtype.kind not in "fi":
                raise RunFolderError(
                    f"{path} is damaged: {name} is not numbers as they are in memory, as they were written"
                )
            if array.ndim < 1 or array.shape[0] != ends.get(names[0]):
                raise RunFolderError(
                    f"{path} is damaged: {name} has the shape {array.shape}, and the rows that count are {ends}"
                )
    absent = sorted(set(attrs["sites"]) - set(arrays))
    if absent:
        raise RunFolderError(f"{path} is damaged: it lacks {', '.join(absent)}")


@contextmanager
def _told(path: str | Path, what: str) -> Iterator[None]:
    """What zarr, its codecs and file systems raise, which is nearly anything, is an error of the store."""
    try:
        yield
    except MechVRPError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        raise RunFolderError(f"{path} cannot {what} ({type(error).__name__}): {error}") from error
