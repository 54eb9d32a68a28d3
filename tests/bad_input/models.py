"""Models: what ``mechvrp.load`` is given, damaged checkpoints, and what ``encode``, ``batch`` and ``generate`` get."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import mechvrp
from mechvrp.data import Sample
from mechvrp.errors import (
    DataError,
    InputError,
    NumericalError,
    ShapeError,
    UnavailableError,
)
from mechvrp.models import chat
from mechvrp.models.structure.family import structural
from mechvrp.study import run_study
from tests.bad_input.rows import DEEP, Bad, Place, bad

__all__ = ["ROWS"]

WEIGHTS = "model.safetensors"


def loaded(given: Any, **options: Any) -> Any:
    return lambda place: mechvrp.load(given, **options)


def damaged(damage: Callable[[Path], Any]) -> Any:
    """A copy of an embedded checkpoint, damaged, and loaded. Files are links until they are changed."""

    def load(place: Place) -> Any:
        folder = place.tmp / "checkpoint"
        folder.mkdir()
        for file in place.checkpoint.iterdir():
            (folder / file.name).symlink_to(file)
        damage(folder)
        return mechvrp.load(folder)

    return load


def write(path: Path, content: bytes | str) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def config(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        found = json.loads((folder / "config.json").read_text())
        for name, value in changes.items():
            part, _, last = name.rpartition("__")
            (found[part] if part else found)[last] = value
        write(folder / "config.json", json.dumps(found))

    return damaged(change)


def file(name: str, content: bytes | str | None) -> Any:
    def change(folder: Path) -> None:
        if content is None:
            (folder / name).unlink()
        else:
            write(folder / name, content)

    return damaged(change)


def weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Any:
    def apply(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        change(held)
        (folder / WEIGHTS).unlink()
        save_file(held, folder / WEIGHTS, metadata={"format": "pt"})

    return damaged(apply)


def cut(folder: Path) -> None:
    write(folder / WEIGHTS, (folder / WEIGHTS).read_bytes()[:-100])


def lying(folder: Path) -> None:
    """A header that gives a tensor more than the file has."""
    raw = (folder / WEIGHTS).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    name = max(
        (n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"][1]
    )
    header[name]["data_offsets"][1] += 10**12
    made = json.dumps(header).encode()
    write(folder / WEIGHTS, len(made).to_bytes(8, "little") + made + raw[8 + size :])


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    write(folder / "pytorch_model.bin", b"\x80\x04K\x01.")


def code(folder: Path) -> None:
    """A checkpoint that brings code of its own: it must not be run."""
    write(folder / "evil.py", f"open({str(folder.parent / 'ran')!r}, 'w')\n")
    found = json.loads((folder / "config.json").read_text())
    found |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.C", "AutoModelForImageTextToText": "evil.M"},
    }
    write(folder / "config.json", json.dumps(found))


def encode(given: Any, **options: Any) -> Any:
    return lambda place: place.model.encode(given, **options)


def ask(question: str, image: Any = None) -> Any:
    return encode(Sample(Image.new("RGB", (48, 48)) if image is None else image, question))


def templated(place: Place, template: str) -> Any:
    """The processor, with another chat template."""
    processor = copy.copy(place.model.processor)
    processor.chat_template = template
    return processor


def template(text: str) -> Any:
    def run(place: Place) -> Any:
        return mechvrp.load(place.model.model, processor=templated(place, text)).encode(
            place.samples
        )

    return run


def looked_at(text: str) -> Any:
    """The model looked at as one of no known family is, with this chat template."""

    def run(place: Place) -> Any:
        return structural(place.model.model, place.model.envoy, templated(place, text))

    return run


def without_end(run: Callable[[Place], Any]) -> Any:
    def limited(place: Place) -> Any:
        with patch.object(chat, "_SECONDS", 0.2):
            return run(place)

    return limited


LOOP = "{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}"
#: Chat templates, and what is said of each.
TEMPLATES = (
    ("{% if x %}", "TemplateSyntaxError"), ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ("{{ 1/0 }}", "ZeroDivisionError"), ("{{ messages[7].a }}", "UndefinedError"),
    ("{{ raise_exception('no') }}", "TemplateError: no"), ("{{ 3 + 'a' }}", "TypeError"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
)  # fmt: skip


def batch(**changes: Callable[[torch.Tensor], Any] | Any) -> Any:
    """The inputs of a good batch, some of them changed."""

    def make(place: Place) -> Any:
        inputs = dict(place.batch.inputs)
        for name, change in changes.items():
            inputs[name] = change(inputs[name]) if callable(change) else change
        return place.model.batch(**inputs)

    return make


def generate(**options: Any) -> Any:
    return lambda place: place.model.generate(place.batch, **options)


def in_memory(**options: Any) -> Any:
    return lambda place: mechvrp.load(place.model.model, **options)


def looping(place: Place) -> Any:
    os.symlink(place.tmp / "loop", place.tmp / "loop")
    return mechvrp.load(place.tmp / "loop")


ROWS: list[Bad] = [
    *(
        bad(f"load({given!r:.20})", loaded(given), says, InputError)
        for given, says in (
            (None, "load takes a name, a folder or a Hugging Face model; got None"), (3, "load takes a name"),
            (["tiny-llava"], "load takes a name"), (b"tiny-llava", "load takes a name"), ("", "a model's name is empty"),
            ("a\0b", "holds a NUL character"), ("a" * 5000, "File name too long"), ("\ud800", "surrogates not allowed"),
            ("tiny-lava", "no model named 'tiny-lava'"), ("../nowhere", "nor a local folder"), ("a/b/c", "nor a hub id"),
            ("/etc", "could not load '/etc'"),
        )
    ),
    bad("a model that is one already", lambda p: mechvrp.load(p.model), "is a VLM already", InputError),
    bad("a link to itself for a model", looping, "Too many levels of symbolic links", InputError),
    *(
        bad(f"load with {options}", loaded("tiny-llava", **options), says, InputError)
        for options, says in (
            ({"device": "abacus"}, "no device 'abacus' here"), ({"device": "cuda:99"}, "no device 'cuda:99' here"),
            ({"device": None}, "no device None here"), ({"dtype": "float99"}, "no torch dtype 'float99'"),
            ({"dtype": 3}, "no torch dtype 3"), ({"attn": 3}, "attn is text; got 3"), ({"attn": "quick"}, "could not load"),
            ({"processor": 3}, "processor is a Hugging Face processor; got 3"), ({"revision": 3}, "revision is text; got 3"),
            ({"trust_remote_code": "yes"}, "trust_remote_code is True or False; got 'yes'"),
            ({"probe": 3}, "probe holds encoded inputs by name; got 3"), ({"device": "cpu", "device_map": "auto"}, "not both"),
        )
    ),
    bad("a revision of a model in memory", in_memory(revision="main"), "are for loading by name", InputError),
    # damaged checkpoints
    bad("weights cut off", damaged(cut), "SafetensorError", InputError),
    bad("weights whose header lies", damaged(lying), "SafetensorError", InputError),
    bad("no bytes for weights", file(WEIGHTS, b""), "SafetensorError", InputError),
    bad("junk for weights", file(WEIGHTS, b"junk" * 100), "SafetensorError", InputError),
    bad("a pickle beside a name of weights", file(WEIGHTS, b"\x80\x04K\x01."), "SafetensorError", InputError),
    bad("pickled weights", damaged(pickled), "only safetensors are read", InputError),
    bad("no weights", file(WEIGHTS, None), "model.safetensors", InputError),
    bad("a weight that is missing", weights(lambda held: held.pop(sorted(held)[0])), "the weights lack", InputError),
    bad("a weight of another shape", weights(lambda held: held.update({sorted(held)[3]: torch.zeros(3, 3)})), "could not load", InputError),
    bad("a config that is no JSON", file("config.json", "{bad"), "could not load", InputError),
    bad("a config that is a list", file("config.json", "[]"), "could not load", InputError),
    bad("a config nested without end", file("config.json", DEEP), "RecursionError", InputError),
    bad("no config", file("config.json", None), "could not load", InputError),
    bad("an unknown model type", config(model_type="nope"), "nope", InputError),
    bad("a list for a model type", config(model_type=["llava"]), "could not load", InputError),
    bad("a model type without images", config(model_type="bert"), "could not load", InputError),
    bad("more layers than weights", config(text_config__num_hidden_layers=9), "the weights lack", InputError),
    bad("-1 layers", config(text_config__num_hidden_layers=-1), "num_hidden_layers = -1; expected", InputError),
    bad("text for a number of layers", config(text_config__num_hidden_layers="4"), "num_hidden_layers", InputError),
    bad("a width of a million millions", config(text_config__hidden_size=10**12), "could not load", InputError),
    bad("a width of 0", config(text_config__hidden_size=0), "text_config says hidden_size = 0; expected", InputError),
    bad("no heads", config(text_config__num_attention_heads=0), "num_attention_heads = 0; expected", InputError),
    bad("patches of 0 pixels", config(vision_config__patch_size=0), "vision_config says patch_size = 0", InputError),
    bad("text for the decoder's config", config(text_config="x"), "text_config", InputError),
    bad("code in a checkpoint", damaged(code), "trust_remote_code", InputError),
    bad("a processor that is no JSON", file("processor_config.json", "{bad"), "no processor could be read", InputError),
    bad("a tokenizer that is no JSON", file("tokenizer.json", "{bad"), "could not load", InputError),
    bad("an empty tokenizer", file("tokenizer.json", "{}"), "could not load", InputError),
    # chat templates
    *(bad(f"a chat template {text:.40}", template(text), f"fails: {says}", UnavailableError) for text, says in TEMPLATES),
    bad("a chat template that loops", without_end(template(LOOP)), "still running after 0.2 s", UnavailableError),
    bad("a chat template that drops the question", template("<image>"), "changed the question", DataError),
    bad("a chat template in a checkpoint", lambda p: file("chat_template.jinja", "{{ 1/0 }}")(p).encode(p.samples), "/checkpoint (", UnavailableError),
    *(bad(f"looking at a model whose chat template is {text:.40}", looked_at(text), says, UnavailableError) for text, says in TEMPLATES[:4]),
    bad("a study of a model whose chat template loops", without_end(lambda p: run_study(mechvrp.load(p.model.model, processor=templated(p, LOOP)), out=p.tmp / "out", n=20, progress=False)), "still running after 0.2 s", UnavailableError),
    bad("looking at a model whose chat template loops", without_end(looked_at(LOOP)), "still running after 0.2 s", UnavailableError),
    # encode
    bad("encode(None)", encode(None), "encode takes mechvrp.data.Sample objects; got None", InputError),
    bad("encode a text", encode("Is it dark?"), "encode takes mechvrp.data.Sample objects", InputError),
    bad("encode an image", encode(Image.new("RGB", (4, 4))), "encode takes mechvrp.data.Sample objects", InputError),
    bad("encode a list of texts", encode(["Is it dark?"]), "encode takes mechvrp.data.Sample objects; got str", InputError),
    bad("encode nothing", encode([]), "no samples to encode", InputError),
    bad("an empty question", ask(""), "has an empty question", InputError),
    bad("a question of spaces", ask(" \n\t"), "has an empty question", InputError),
    bad("a lone surrogate in a question", ask("Is it \ud800?"), "does not encode to UTF-8", InputError),
    bad("a question that spells the image", ask("Is <image> dark?"), "spells the image placeholder '<image>'", InputError),
    bad("a question of 10,000 words", ask("dark " * 10_000), "takes 512", InputError),
    bad("a question of a million signs", ask("a" * 1_000_000), "has a question of 1,000,000 characters", InputError),
    bad("an image without pixels", ask("Is it dark?", Image.new("RGB", (0, 0))), "has no pixels", DataError),
    bad("an instruction that is a number", lambda p: p.model.encode(p.samples, instruction=3), "the instruction must be text; got 3", InputError),
    bad("an instruction that spells the image", lambda p: p.model.encode(p.samples, instruction="<image>"), "the instruction spells the image placeholder", InputError),
    bad("a lone surrogate in an instruction", lambda p: p.model.encode(p.samples, instruction="\ud800"), "the instruction does not encode", InputError),
    # batch
    bad("a batch of nothing", lambda p: p.model.batch(), "batch needs input_ids", InputError),
    bad("a list of ids", batch(input_ids=[1, 2]), "input_ids must be a tensor", InputError),
    bad("ids in one row", batch(input_ids=lambda ids: ids[0]), "input_ids must be [batch, pos]", ShapeError),
    bad("ids that are fractions", batch(input_ids=lambda ids: ids.float()), "input_ids must be whole numbers", ShapeError),
    bad("no rows of ids", batch(input_ids=lambda ids: ids[:0], attention_mask=lambda mask: mask[:0]), "at least one", ShapeError),
    bad("ids beyond the vocabulary", batch(input_ids=lambda ids: ids + 10**6), "input_ids must be from 0 to", InputError),
    bad("negative ids", batch(input_ids=lambda ids: -ids), "input_ids must be from 0 to", InputError),
    bad("a mask of fewer rows", batch(attention_mask=lambda mask: mask[:1]), "attention_mask has shape", ShapeError),
    bad("pixels that are NaN", batch(pixel_values=lambda pixels: pixels * float("nan")), "pixel_values hold NaN", NumericalError),
    bad("a number for pixels", batch(pixel_values=3.0), "pixel_values must be a tensor", InputError),
    bad("pixels in one dimension", batch(pixel_values=torch.zeros(1)), "these inputs are not what the processor", ShapeError),
    # answering
    bad("an answer to None", lambda p: p.model.generate(None), "expected a batch", InputError),
    bad("an answer to samples", lambda p: p.model.generate(p.samples), "expected a batch", InputError),
    *(
        bad(f"{n!r} new tokens", generate(max_new_tokens=n), "max_new_tokens must be", InputError)
        for n in (0, -1, 1.5, "a", None, True)
    ),
    bad("an option that generate lacks", generate(bogus=3), "does not take these options", InputError),
    bad("a temperature below 0", generate(do_sample=True, temperature=-1.0), "does not take these options", InputError),
    bad("a fingerprint of a name", lambda p: mechvrp.models.fingerprint("tiny-llava"), "expected a model", InputError),
    bad("a check of a name", lambda p: mechvrp.models.check_family("tiny-llava"), "expected a model", InputError),
    bad("a family that is a number", lambda p: mechvrp.models.register_family(3), "expected a mechvrp.models.Family", InputError),
]  # fmt: skip
