"""``RunFolder``: one study run on disk, written atomically, read back strictly.

Layout of a run folder (format 1)::

    config.json             what was asked for; its header marks the folder as ours
    versions.json           packages, Python and threads, at creation and at each resumption
    examples.parquet        one row per example
    run.lock                held by the process that writes
    chunks/STAGE/MODEL/     results by example, in pieces (`mechvrp.store.Chunks`)
    stages/STAGE/MODEL.json what a stage found for a model
    summary.json            the results (strict JSON: no NaN, an absent number is null)
    gallery/*.png, *.webp   small pictures of examples' images
    report.html             the report, made from the files above

Files are written beside their place and moved there: the old one or the new, never half. Nothing is pickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mechvrp.errors import InputError, RunFolderError
from mechvrp.store.atomic import TEMPORARY, remove_temporaries, write_atomically
from mechvrp.store.chunks import Chunks
from mechvrp.store.columns import column_kinds
from mechvrp.store.holding import always, hold
from mechvrp.store.json_files import differences, plain, read_json, read_object
from mechvrp.store.places import fetched, is_file, make_folder, place, refuse_links, unreachable
from mechvrp.store.versions import UNKNOWN, software_versions

__all__ = ["FORMAT_VERSION", "RunFolder"]

FORMAT_VERSION = 1
_FORMAT_NAME = "mechvrp-run"
_LOCK = "run.lock"
_AGAIN = "run the study's command again: it goes on, and makes what is missing"
_GALLERY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.(png|webp)")
_MAGIC = {".png": re.compile(rb"\x89PNG\r\n"), ".webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL)}


class RunFolder:
    """A run's folder. Make one with `create` (new, or the same run again) or `open`."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        self._may_write: Callable[[], None] = always

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> RunFolder:
        """Make a run folder, or return to the one that already holds exactly this run.

        A folder of the same configuration is resumed: its files stay, and if the software has
        changed meanwhile ``versions.json`` records the second environment beside the first.

        Args:
            path: a folder that does not exist, is empty, or holds a run of the same ``config``; or an address
                that fsspec knows, such as ``s3://bucket/run``.
            config: what was asked for; JSON values only (numpy scalars are converted).

        Raises:
            RunFolderError: the folder holds something else, or a run with another configuration
                (the message lists the settings that differ).
            NumericalError: a number in ``config`` is NaN or infinite.
            InputError: a value in ``config`` is not JSON.
        """
        folder = place(path)
        if not isinstance(config, Mapping):
            raise InputError(f"config holds settings by name; got {config!r:.60}")
        wanted = plain(config, "config")
        with unreachable(folder):
            there = folder.exists()
        if there and not folder.is_dir():
            raise RunFolderError(f"{path} is a file; a run needs a folder of its own")
        if is_file(folder / "config.json"):
            run = cls.open(folder)
            found = differences(run.config, wanted)
            if found:
                raise RunFolderError(
                    f"{path} holds a run with another configuration; in the folder against asked "
                    f"for: {'; '.join(found)}. Choose another folder, or ask for the same run"
                )
            run._note_resumption()
            return run
        if folder.exists():
            # What a run that was killed while its folder was made can have left.
            own = (TEMPORARY, _LOCK, "versions.json")
            held = sorted(p.name for p in folder.iterdir() if not p.name.startswith(own))
            if held:
                more = f" and {len(held) - 5} more" if len(held) > 5 else ""
                raise RunFolderError(
                    f"{path} is not a run folder and is not empty: it holds "
                    f"{', '.join(held[:5])}{more}. Choose another folder"
                )
        make_folder(folder)
        run = cls(folder, wanted)
        with run.lock():
            if not is_file(folder / "config.json"):
                run._write_json("versions.json", {"created": software_versions(), "resumed": []})
                # config.json comes last: a folder that has it is complete as a run folder.
                header = {"format": _FORMAT_NAME, "format_version": FORMAT_VERSION}
                run._write_json("config.json", {**header, "config": wanted})
                return run
        return cls.create(path, config)  # another process was faster

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run folder.

        Raises:
            RunFolderError: the folder is missing, was not written by mechvrp, is of a newer
                format, has a link that leaves it, or its ``config.json`` is damaged.
        """
        folder = place(path)
        with unreachable(folder):
            there = folder.is_dir()
        if not there:
            raise RunFolderError(f"no run folder at {path}; make one with `mechvrp study --out`")
        if not is_file(folder / "config.json"):
            raise RunFolderError(f"{path} is not a run folder: it has no config.json")
        refuse_links(folder)
        header = read_json(folder / "config.json")
        if not isinstance(header, dict) or header.get("format") != _FORMAT_NAME:
            raise RunFolderError(
                f"{path} is not a run folder: its config.json is another program's"
            )
        version = header.get("format_version")
        if type(version) is not int or version != FORMAT_VERSION:
            raise RunFolderError(
                f"{path} is of run-folder format {header.get('format_version')!r}; this mechvrp "
                f"reads format {FORMAT_VERSION}. Use the version of mechvrp that wrote it"
            )
        if not isinstance(header.get("config"), dict):
            raise RunFolderError(f"{path}: config.json is damaged, it holds no configuration")
        return cls(folder, header["config"])

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for writing; the system lets go of it however the process ends.

        What killed runs left unfinished is removed on the way in. Where the hold of a remote place is lost
        meanwhile, whatever this object would write next is refused.

        Raises:
            RunFolderError: another process (or another run in this one) holds it.
        """
        refuse_links(self.path)
        with hold(self.path, _LOCK) as held:
            remove_temporaries(self.path)
            self._may_write = held
            try:
                yield
            finally:
                self._may_write = always

    def chunks(self, stage: str, part: str, total: int, size: int) -> Chunks:
        """The pieces of a stage's results for one model (or another part), see `Chunks`.

        Args:
            stage, part: name the folder; other signs than letters, digits, ``.``, ``_`` and ``-``
                become ``-``.
            total, size: examples in all, and a piece.
        """
        folder = self.path.joinpath("chunks", *_folder_names(stage, part))
        return Chunks(folder, total, size, self._check_held)

    def written_chunks(self, stage: str) -> dict[str, Chunks]:
        """A stage's pieces by part, e.g. by model, in order; complete or not (``Chunks.complete``)."""
        folder = self._inside(f"chunks/{stage}")
        parts = sorted(p for p in folder.glob("*") if p.is_dir()) if folder.is_dir() else []
        return {part.name: Chunks.open(part) for part in parts}

    def write_stage(self, stage: str, part: str, value: Mapping[str, Any]) -> Path:
        """Write what a stage found for a part, ``stages/STAGE/PART.json``; NaN is refused."""
        name = f"stages/{'/'.join(_folder_names(stage, part))}.json"
        make_folder((self.path / name).parent)
        return self._write_json(name, plain(value, f"{stage} of {part}"))

    def read_stage(self, stage: str, part: str) -> dict[str, Any] | None:
        """What `write_stage` wrote; ``None`` if that stage has not ended for the part."""
        path = self.path / f"stages/{'/'.join(_folder_names(stage, part))}.json"
        return _read_object(path) if is_file(path) else None

    def discard(self, *names: str) -> None:
        """Remove files of the run that are out of date; only for who holds its lock."""
        self._check_held()
        for name in names:
            self._inside(name).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether the file ``name`` (``"summary.json"``, ``"gallery/a.png"``, ...) was written."""
        return is_file(self._inside(name))

    @property
    def versions(self) -> dict[str, Any]:
        """``{"created": {...}, "resumed": [{...}, ...]}``; see `software_versions`."""
        return _read_object(self._existing("versions.json"))

    def write_summary(self, summary: Mapping[str, Any]) -> Path:
        """Write ``summary.json``. NaN is refused: write None (null) where a number is absent."""
        if not isinstance(summary, Mapping):
            raise InputError(f"a summary holds values by name; got {summary!r:.60}")
        return self._write_json("summary.json", plain(summary, "summary"))

    def read_summary(self) -> dict[str, Any]:
        """The content of ``summary.json``."""
        return _read_object(self._existing("summary.json"))

    def write_examples(self, examples: pd.DataFrame) -> Path:
        """Write the per-example table (its index is not kept).

        Raises:
            InputError: the table has no rows, or a column that Parquet cannot hold.
        """
        if not isinstance(examples, pd.DataFrame):
            raise InputError(f"the examples are a pandas DataFrame; got {examples!r:.60}")
        if examples.empty:
            raise InputError("the table of examples has no rows; a run has at least one example")

        def write(target: Path) -> None:
            try:
                examples.to_parquet(target, engine="pyarrow", index=False)
            except (ValueError, TypeError) as error:  # pyarrow's errors derive from these
                raise InputError(f"the table of examples cannot be written: {error}") from error

        return self._atomically("examples.parquet", write)

    def write_examples_in_parts(self, parts: Callable[[], Iterable[pd.DataFrame]]) -> Path:
        """Write the per-example table from its parts, one in memory at a time.

        Args:
            parts: gives the tables, in order; called twice, since a column that is empty in one part
                takes its type from the others.

        Raises:
            InputError: there are no rows, or a column has different types.
        """

        def write(target: Path) -> None:
            try:
                schemas = [pa.Schema.from_pandas(part, preserve_index=False) for part in parts()]
                if not schemas:
                    raise InputError("the table of examples has no rows")
                schema = pa.unify_schemas(schemas, promote_options="permissive")
                with pq.ParquetWriter(target, schema.remove_metadata()) as writer:
                    for part in parts():
                        table = pa.Table.from_pandas(part, preserve_index=False)
                        wanted = pa.schema([schema.field(name) for name in table.column_names])
                        table = table.cast(wanted)
                        for name in schema.names:
                            if name not in table.column_names:
                                empty = pa.nulls(len(table), schema.field(name).type)
                                table = table.append_column(name, empty)
                        writer.write_table(table.select(schema.names).replace_schema_metadata())
            except (ValueError, TypeError, pa.ArrowException) as error:
                raise InputError(f"the table of examples cannot be written: {error}") from error

        return self._atomically("examples.parquet", write)

    def read_examples(
        self, columns: Iterable[str] | None = None, *, where: Any = None
    ) -> pd.DataFrame:
        """The per-example table.

        Args:
            columns: those wanted; by default all.
            where: a filter of ``pyarrow.parquet.read_table``, e.g. ``[("model", "=", "tiny-llava")]``.
        """
        path = self._existing("examples.parquet")
        wanted = None if columns is None else list(columns)
        try:
            with fetched(path) as file:
                return pq.read_table(file, columns=wanted, filters=where).to_pandas()
        except (ValueError, OSError, pa.ArrowException) as error:
            raise RunFolderError(f"{path} is damaged: {error}. Remove it, and {_AGAIN}") from error

    def example_columns(self) -> dict[str, str]:
        """The per-example table's columns, and what each holds (`column_kinds`)."""
        path = self._existing("examples.parquet")
        try:
            with fetched(path) as file:
                return column_kinds(pq.read_schema(file))
        except (ValueError, OSError, pa.ArrowException) as error:
            raise RunFolderError(f"{path} is damaged: {error}. Remove it, and {_AGAIN}") from error

    def write_gallery_image(self, name: str, content: bytes) -> str:
        """Write ``gallery/<name>``, a PNG or WebP file's bytes; returns ``name``.

        Raises:
            InputError: ``name`` is not letters, digits, ``_`` and ``-`` followed by ``.png`` or ``.webp``, or
                the content is of another kind.
        """
        _check_gallery_name(name)
        if not _MAGIC[Path(name).suffix].match(content):
            raise InputError(f"the content for {name} is no {Path(name).suffix[1:]} image")
        make_folder(self.path / "gallery")
        self._atomically(f"gallery/{name}", lambda target: target.write_bytes(content))
        return name

    def gallery_names(self) -> list[str]:
        """Names of the gallery's images, sorted."""
        folder = self.path / "gallery"
        return sorted(p.name for p in folder.glob("*") if _GALLERY_NAME.fullmatch(p.name))

    def read_gallery_image(self, name: str) -> bytes:
        """The bytes of one gallery image.

        Raises:
            RunFolderError: it is missing, or no image.
        """
        _check_gallery_name(name)
        path = self._existing(f"gallery/{name}")
        content = path.read_bytes()
        if not _MAGIC[path.suffix].match(content):
            raise RunFolderError(
                f"{path} is damaged: its {len(content)} bytes are no {path.suffix[1:]} image. Remove it, and "
                f"{_AGAIN}"
            )
        return content

    def write_report(self, html: str) -> Path:
        """Write ``report.html`` (UTF-8)."""
        return self._write_text("report.html", html)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def _existing(self, name: str) -> Path:
        path = self.path / name
        if not is_file(path):
            raise RunFolderError(
                f"{self.path} has no {name}: that stage has not ended, or the file was removed. In either case "
                f"{_AGAIN}"
            )
        return path

    def _inside(self, name: str) -> Path:
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts:
            raise InputError(
                f"{name!r:.60} is not the name of a file in the run folder {self.path}"
            )
        return self.path / name

    def _note_resumption(self) -> None:
        now = software_versions()
        # Where the file was lost nobody knows what the run was begun with.
        known: dict[str, Any] = self.versions if self.has("versions.json") else {"created": UNKNOWN}
        if now != known.get("created") and now not in known.get("resumed", []):
            known["resumed"] = [*known.get("resumed", []), now]
            self._write_json("versions.json", known)

    def _write_json(self, name: str, value: Any) -> Path:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        return self._write_text(name, text + "\n")

    def _write_text(self, name: str, text: str) -> Path:
        # A lone surrogate (seen in scraped questions) has no UTF-8 form; "?" stands for it.
        data = text.encode("utf-8", errors="replace")
        return self._atomically(name, lambda target: target.write_bytes(data))

    def _check_held(self) -> None:
        self._may_write()

    def _atomically(self, name: str, write: Callable[[Path], Any]) -> Path:
        self._check_held()
        return write_atomically(self.path / name, write)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except RunFolderError as error:
        raise RunFolderError(f"{error}. Remove it, and {_AGAIN}") from error


def _folder_names(stage: str, part: str) -> list[str]:
    if not isinstance(stage, str) or not isinstance(part, str):
        raise InputError(f"a stage and a part have names; got {stage!r:.60} and {part!r:.60}")
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".") for name in (stage, part)]
    if not all(names):
        raise InputError(f"a stage and a part need names; got {stage!r} and {part!r}")
    return names


def _check_gallery_name(name: str) -> None:
    if not _GALLERY_NAME.fullmatch(name):
        raise InputError(
            f"gallery image name {name!r}: use letters, digits, '_' and '-', then '.png' or '.webp' "
            "(a name from the data could otherwise point outside the folder)"
        )
