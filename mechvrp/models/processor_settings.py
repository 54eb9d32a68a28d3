"""What a processor does to images and text, so that a run is not gone on with by another one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["processor_settings"]

# Of where it comes from and what last used it, not of what it does.
_OTHER = ("name_or_path", "_commit_hash", "transformers_version", "auto_map", "processor_class")


def processor_settings(processor: Any) -> dict[str, str]:
    """Settings of a processor and its parts by name, as JSON; of a tokenizer and a chat template a digest.

    The last two are always there: empty where there is none.

    Args:
        processor: of transformers; of another one, or none, nothing is known.
    """
    template = getattr(processor, "chat_template", None)
    tokenizer = getattr(processor, "tokenizer", None)
    settings: dict[str, Any] = getattr(processor, "to_dict", dict)()
    found = dict(sorted(_flat("", settings)))
    found["chat_template"] = (
        "" if template is None else _digest(json.dumps(template, sort_keys=True))
    )
    found["tokenizer"] = "" if tokenizer is None else _digest(_vocabulary(tokenizer))
    return found


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        inside = [_flat(f"{name}.{k}".lstrip("."), v) for k, v in value.items() if k not in _OTHER]
        return [pair for pairs in inside for pair in pairs]
    return [(name, json.dumps(value, default=_plain))]


def _plain(value: Any) -> Any:
    """The same in every process: no addresses, and sets in order."""
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return type(value).__name__


def _vocabulary(tokenizer: Any) -> str:
    whole = getattr(tokenizer, "backend_tokenizer", None)
    if whole is None:
        return json.dumps(sorted(tokenizer.get_vocab().items()))
    parts = json.loads(whole.to_str())
    for last_used in ("truncation", "padding"):
        parts.pop(last_used, None)
    return json.dumps(parts, sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
