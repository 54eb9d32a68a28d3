"""Run folders: written atomically, read back strictly, one writer at a time."""

from mechvrp.store.chunks import Chunks as Chunks
from mechvrp.store.folder import FORMAT_VERSION as FORMAT_VERSION
from mechvrp.store.folder import RunFolder as RunFolder
from mechvrp.store.versions import software_versions as software_versions

__all__ = ["FORMAT_VERSION", "Chunks", "RunFolder", "software_versions"]
