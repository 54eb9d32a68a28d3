"""``VLM``: one face for every family."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mechvrp.data.sample import Sample
from mechvrp.errors import InputError, NumericalError, ShapeError, UnavailableError
from mechvrp.models.answering import generated
from mechvrp.models.batch import Batch
from mechvrp.models.families import Family, family_of
from mechvrp.models.placing import check_divided, entrance_of, root_of
from mechvrp.models.structure import structural
from mechvrp.models.structure.skeleton import heads_of
from mechvrp.models.tokens import TokenMap

if TYPE_CHECKING:
    from nnsight import NNsight

__all__ = ["VLM"]

#: Stands for the question where only the text around it is wanted.
MARK = "\ue000"

#: Characters that one token can stand for, with room to spare (a run of spaces, for instance).
_LONGEST_TOKEN = 200


class VLM:
    """A vision-language model, its processor, and what is known of its family.

    Made by ``mechvrp.load``. Nothing of the model is changed but its mode (``eval``).

    Attributes:
        model: the Hugging Face module itself.
        processor: its processor, or ``None`` (then ``batch`` wraps inputs encoded elsewhere).
        family: the description of its architecture.
        modules: where its parts are.
        name: the name or path it was loaded by.
        hub: where on the hub it is from (``repo_id``, ``revision``), if it is, and ``dispatch``, whether its
            weights were loaded.
        n_layers, d_model, n_heads, n_kv_heads, d_head, d_mlp, n_vision_layers: its sizes; those
            before the last are the decoder's.
        turn: held by whoever runs it. A trace listens to every forward of its model, so those of two
            threads (a notebook's cell and its explorer) take turns; hold it (``with model.turn:``) around
            forwards of your own where another thread may run the model.
    """

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        family: Family | None = None,
        name: str = "",
        probe: Mapping[str, Tensor] | None = None,
        hub: Mapping[str, Any] | None = None,
    ) -> None:
        model.eval()
        self.turn = threading.RLock()
        self.model: Any = model
        self.processor = processor
        self.name = name or type(model).__name__
        self.hub = dict(hub or {})
        self.family: Family = (
            family
            or family_of(self.model.config)
            or structural(model, self.envoy, processor, dict(probe) if probe is not None else None)
        )
        self.modules = self.family.check(model)

        config: Any = self.model.config.get_text_config(decoder=True)
        self.n_layers = len(self._list(self.modules.layers))
        self.n_vision_layers = (
            0
            if self.family.unavailable("vision_resid_post")
            else len(self._list(self.modules.vision_layers))
        )
        self.d_model: int = config.hidden_size
        self.n_heads: int
        self.n_heads, shared = heads_of(config)
        # From the weights: configs leave these out, or keep a default that is not used.
        self.d_head: int = self._width("z", "o") // max(self.n_heads, 1)
        self.d_mlp: int = self._width("neurons", "neurons")
        given = self._width("k", "k", written=True) // max(self.d_head, 1)
        self.n_kv_heads: int = shared or given or self.n_heads
        self.d_vocab: int = self.model.get_output_embeddings().out_features
        check_divided(self)

    def __getstate__(self) -> dict[str, Any]:
        """What a remote run needs: neither the processor (but its tokenizer) nor what is of a process."""
        state = {k: v for k, v in self.__dict__.items() if k not in ("turn", "_instrumented")}
        state["hub"] = {}
        if self.processor is not None:
            state["processor"] = SimpleNamespace(tokenizer=self.tokenizer)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.turn = threading.RLock()

    def check_weights(self) -> None:
        """Raise ``InputError`` unless the model can run here: it may have been loaded without weights."""
        if self.hub.get("dispatch") is False:
            raise InputError(
                f"{self.name} was loaded without its weights (dispatch=False), so it runs remotely only: give "
                "remote=True to trace, cache, sweep or ablation_curve; other methods have no remote runs"
            )

    def remote_key(self) -> str:
        """The name under which nnsight's servers have this model.

        Raises:
            InputError: it does not come from the hub, so no server has it.
        """
        if "repo_id" not in self.hub:
            raise InputError(
                f"{self.name} was not loaded by a hub id, so no server has it: nothing was sent. Use "
                "mechvrp.load('owner/name', dispatch=False), or remote='local' to simulate a server"
            )
        from nnsight.modeling.transformers import TransformersModel

        # Asked of nnsight's own model, so that its rules for names stay its own.
        own = object.__new__(TransformersModel)
        own.__dict__.update(
            repo_id=self.hub["repo_id"],
            revision=self.hub.get("revision"),
            kwargs={"trust_remote_code": self.hub.get("trust_remote_code")},
            task="image-text-to-text",
        )
        return str(own.to_model_key())

    def _width(self, component: str, field: str, *, written: bool = False) -> int:
        """What a Linear of the blocks reads, or writes, by the first block that has it; 0 where none has."""
        for layer in range(self.n_layers):
            if not self.family.unavailable(component, layer):
                path = f"{self.modules.layers}.{layer}.{getattr(self.modules, field)}"
                found: Any = self.model.get_submodule(path)
                return int(found.out_features if written else found.in_features)
        return 0

    def _list(self, path: str) -> Sequence[nn.Module]:
        return self.model.get_submodule(path)

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer (``None`` without a processor)."""
        return getattr(self.processor, "tokenizer", None)

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device on which the token embedding runs."""
        return entrance_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def attn_implementation(self) -> str:
        """The decoder's attention implementation (``"sdpa"``, ``"eager"``, ...)."""
        return self.model.config.get_text_config(decoder=True)._attn_implementation

    @cached_property
    def envoy(self) -> NNsight:
        """The bare nnsight envoy over ``model``, for everything mechvrp has no name for."""
        return root_of(self.model)

    def instrument(self, layer: int) -> None:
        """Let nnsight see the operations inside a block's own forward, and its attention's.

        Sites between a block's modules (``resid_mid``, ``pattern``) are such operations. It must be done
        before that forward starts, costs every later trace a little, and is inert outside of one.
        """
        with self.turn:
            if layer in self._instrumented:
                return
            _ = self.envoy.get(f"{self.modules.layers}.{layer}").source
            if not self.family.unavailable("pattern", layer):
                _ = self.envoy.get(f"{self.modules.layers}.{layer}.{self.modules.attn}").source
            self._instrumented.add(layer)

    @cached_property
    def _instrumented(self) -> set[int]:
        return set()

    # ---- encoding ---------------------------------------------------------------------------

    def encode(
        self, samples: Sample | Iterable[Sample], *, instruction: str | None = None
    ) -> Batch:
        """Encode samples as one left-padded batch on the model's device.

        Args:
            samples: one or more samples; image sizes and question lengths may differ.
            instruction: text put behind each question. By default the model's own
                (``config.mechvrp_instruction``, as in the embedded checkpoints), else the official
                one of its family for the sample's task; ``""`` asks the bare question.
        """
        if self.processor is None:
            raise UnavailableError(
                f"{self.name} was loaded without a processor, so it cannot encode samples; give one "
                "to mechvrp.load(model, processor=...), or wrap encoded tensors with model.batch"
            )
        if not isinstance(samples, Iterable | Sample) or isinstance(samples, str | bytes):
            raise InputError(
                f"encode takes mechvrp.data.Sample objects; got {samples!r:.60} "
                f"({type(samples).__name__})"
            )
        if instruction is not None:
            self._check_text(instruction, "the instruction")
        chosen = (samples,) if isinstance(samples, Sample) else tuple(samples)
        if not chosen:
            raise InputError("no samples to encode")
        for sample in chosen:
            if not isinstance(sample, Sample):
                raise InputError(
                    f"encode takes mechvrp.data.Sample objects; got {type(sample).__name__}"
                )
        for sample in chosen:
            self._check_question(sample)
        if instruction is None:
            instruction = getattr(self.model.config, "mechvrp_instruction", None)

        def prompt(question: str, task: str) -> str:
            return self.family.prompt(self.processor, question, task=task, instruction=instruction)

        prompts = tuple(prompt(s.question, s.task) for s in chosen)
        tails = {task: prompt(MARK, task).rpartition(MARK)[2] for task in {s.task for s in chosen}}
        images = [s.image for s in chosen]
        try:
            with self.turn:  # fast tokenizers cannot be set up by two threads at once
                inputs = self.family.tokenize(self.processor, prompts, images)
        except ValueError as error:
            self._blame(chosen, prompts, images)
            raise InputError(
                f"the processor of {self.name} refuses these samples: {error}"
            ) from error
        self._check_length(inputs["input_ids"].shape[1], chosen)
        return self._batch(inputs, chosen, prompts, [(s.question, tails[s.task]) for s in chosen])

    def _blame(
        self, samples: Sequence[Sample], prompts: Sequence[str], images: Sequence[Any]
    ) -> None:
        """Raise ``InputError`` for the first sample that the processor does not take by itself."""
        for sample, prompt, image in zip(samples, prompts, images, strict=True):
            try:
                self.family.tokenize(self.processor, (prompt,), [image])
            except ValueError as error:
                raise InputError(
                    f"the processor of {self.name} refuses {sample!r}, whose image is "
                    f"{image.width} x {image.height} pixels: {error}"
                ) from error

    def _check_question(self, sample: Sample) -> None:
        if not sample.question.strip():
            raise InputError(f"{sample!r} has an empty question")
        if (problem := sample.question_problem()) is not None:
            raise InputError(f"{sample!r} cannot be asked: {problem}; remove or replace it")
        self._check_text(sample.question, f"{sample!r:.200}")
        most = self.n_ctx
        if most is not None and len(sample.question) > _LONGEST_TOKEN * most:
            raise InputError(
                f"{sample!r:.100}... has a question of {len(sample.question):,} characters; this model takes "
                f"{most:,} tokens, image included"
            )

    def _check_text(self, text: object, what: str) -> None:
        if not isinstance(text, str):
            raise InputError(f"{what} must be text; got {text!r:.60} ({type(text).__name__})")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{what} does not encode to UTF-8: {error.reason}") from error
        token = str(getattr(self.processor, "image_token", "") or "")
        if token and token in text:
            raise InputError(
                f"{what} spells the image placeholder {token!r}, which stands for an image"
            )

    @property
    def n_ctx(self) -> int | None:
        """How many positions the decoder was made for; ``None`` where its config does not say."""
        found = getattr(
            self.model.config.get_text_config(decoder=True), "max_position_embeddings", None
        )
        return found if isinstance(found, int) and found > 0 else None

    def _check_length(self, length: int, samples: Sequence[Sample]) -> None:
        most = self.n_ctx
        if most is not None and length > most:
            longest = max(samples, key=lambda sample: len(sample.question))
            raise InputError(
                f"a prompt has {length:,} tokens, and {self.name} takes {most:,}, image included: shorten "
                f"the question ({longest!r:.100}, {len(longest.question):,} characters)"
            )

    def batch(self, **inputs: Tensor) -> Batch:
        """Wrap tensors encoded elsewhere (what the model's processor returns).

        ``attention_mask`` defaults to ones. Image positions are found; the question's are not known.
        """
        if "input_ids" not in inputs:
            raise InputError(f"batch needs input_ids; got {sorted(inputs)}")
        for name, value in inputs.items():
            if not isinstance(value, Tensor):
                raise InputError(f"{name} must be a tensor; got {value!r:.60}")
        ids = inputs["input_ids"]
        if ids.ndim != 2:
            raise ShapeError(f"input_ids must be [batch, pos]; got shape {tuple(ids.shape)}")
        if ids.is_floating_point() or ids.is_complex() or not ids.numel():
            raise ShapeError(
                f"input_ids must be whole numbers, at least one; got {ids.dtype} of shape {tuple(ids.shape)}"
            )
        if not 0 <= int(ids.min()) <= int(ids.max()) < self.d_vocab:
            raise InputError(
                f"input_ids must be from 0 to {self.d_vocab - 1}; they are from {int(ids.min())} to "
                f"{int(ids.max())}"
            )
        pixels = inputs.get("pixel_values")
        if pixels is not None and not bool(torch.isfinite(pixels).all()):
            raise NumericalError("pixel_values hold NaN or infinite values")
        inputs.setdefault("attention_mask", torch.ones_like(ids))
        if inputs["attention_mask"].shape != ids.shape:
            raise ShapeError(
                f"attention_mask has shape {tuple(inputs['attention_mask'].shape)}, input_ids "
                f"{tuple(ids.shape)}"
            )
        try:
            return self._batch(dict(inputs), None, None, None)
        except (IndexError, KeyError, TypeError, RuntimeError) as error:
            shapes = {name: tuple(value.shape) for name, value in inputs.items()}
            raise ShapeError(
                f"these inputs are not what the processor of {self.name} makes: {shapes}: {error}"
            ) from error

    def _batch(
        self,
        inputs: dict[str, Tensor],
        samples: tuple[Sample, ...] | None,
        prompts: tuple[str, ...] | None,
        questions: list[tuple[str, str]] | None,
    ) -> Batch:
        inputs = self.family.prepare(self.model, inputs)
        tokens = TokenMap(
            inputs["input_ids"],
            inputs["attention_mask"],
            image_token_id=self.family.image_token_id(self.model),
            grids=self.family.grids(self.model, inputs),
            tokenizer=self.tokenizer,
            questions=questions,
            no_image=self.family.no_image(),
        )
        return Batch(inputs, tokens, samples, prompts).to(self.device)

    # ---- answering --------------------------------------------------------------------------

    def generate(self, batch: Batch, *, max_new_tokens: int = 16, **options: Any) -> list[str]:
        """Answer each sample: the generated text alone, without the prompt, stripped.

        Greedy unless ``options`` (those of ``transformers``' ``generate``) say otherwise. Answers end where
        the checkpoint's generation config ends them, its ``stop_strings`` included.

        Raises:
            UnavailableError: stop strings, or an answer to decode, and no tokenizer; or a generation config
                that asks for more answers than beams; or rotary positions of which an answer so long
                would depend on other prompts.
            NumericalError: logits are NaN or infinite.
        """
        ids = self.generate_ids(batch, max_new_tokens=max_new_tokens, **options)
        if self.tokenizer is None:
            raise UnavailableError(
                f"{self.name} was loaded without a processor, so answers cannot be decoded; use "
                "generate_ids"
            )
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def generate_ids(self, batch: Batch, *, max_new_tokens: int = 16, **options: Any) -> Tensor:
        """Generated token ids, [batch, new]; as ``generate``."""
        ids = self.generate_output(batch, max_new_tokens=max_new_tokens, **options)
        return ids[:, batch.tokens.length :]

    def generate_output(self, batch: Batch, *, max_new_tokens: int = 16, **options: Any) -> Any:
        """What transformers' ``generate`` returns, prompts included; as ``generate``."""
        return generated(self, batch, max_new_tokens=max_new_tokens, **options)

    def __repr__(self) -> str:
        return (
            f"VLM({self.name!r}, family={self.family.name}, n_layers={self.n_layers}, "
            f"d_model={self.d_model}, n_heads={self.n_heads}, n_kv_heads={self.n_kv_heads}, "
            f"d_head={self.d_head}, d_mlp={self.d_mlp}, dtype={self.dtype}, device={self.device})"
        )
