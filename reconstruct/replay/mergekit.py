"""A mergekit configuration computed again by mergekit itself, one output tensor at a time and without output files.

The only module that imports mergekit (5 to 8 s, when the first replay is made). The plan is the one `mergekit-yaml`
executes, but for its writer, which hands tensors over: names, order, casts and random draws are its own.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import logging
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.errors import CheckpointError, ConfigurationError, ReconstructError

__all__ = ["KNOWN_VERSION", "AdaptedFolder", "Folders", "MergekitReplay", "RecipeOutput"]

KNOWN_VERSION = "0.1.5"
_VERSION = next((found.version for found in importlib.metadata.distributions(name="mergekit")), "none")
_SAMPLED_ABOVE = 1_000_000  # elements from which arcee_fusion estimates its quantiles on a random sample
_OUTPUT = "_model_out_config"  # with the attribute LoaderCache.loaders, all that mergekit does not offer to others
_USED = {  # of mergekit, by module
    "architecture": "get_architecture_info", "common": "ModelReference", "graph": "Executor", "options": "MergeOptions",
    "config": "MergeConfiguration", "merge": _OUTPUT, "plan": "MergePlanner", "tokenizer": "TokenizerInfo",
    "io.tasks": "FinalizeModel LoaderCache SaveTensor TensorWriterTask", "merge_methods": "registered_methods",
}  # fmt: skip
_TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")  # files of which a tokenizer has at least one


@dataclass(frozen=True)
class AdaptedFolder:
    """A local folder and one with a LoRA adapter to it, which mergekit has peft merge: into a subfolder of `merged`, or
    not again if it is there.
    """

    base: Path
    adapter: Path
    merged: Path


#: Reference as a configuration writes it -> where that model lies.
Folders = Mapping[str, Path | AdaptedFolder]


@dataclass(frozen=True)
class RecipeOutput:
    """One tensor of the output, of the dtype and shape that mergekit writes."""

    name: str
    tensor: torch.Tensor


class MergekitReplay:
    """The output of one mergekit configuration, bit for bit what `mergekit-yaml` writes: on the processor, with as many
    threads as torch has here (the last bits of DARE and karcher depend on their number, as sums of large tensors do).

    `document`: the configuration, not changed. `folders`: reference as it writes it ("org/a", "org/a@revision",
    "org/a+adapter") -> local folder with config.json and weights, or a base's and an adapter's. `seed`: of
    `--random-seed`; else torch's state.

    `names`: the output's tensors in the order of the plan (model_stock leaves out, when their turn comes, optional ones
    that too few models have). `methods`: the merge methods. `random`: whether they draw random numbers.

    Raises ConfigurationError (no mergekit configuration, unknown method, missing or wrong parameter, reference without
    folder), CheckpointError (folder without config.json or weights), ReconstructError (a mergekit that is not known).
    """

    def __init__(self, document: Mapping[str, Any], folders: Folders, *, seed: int | None = None) -> None:
        self._seed, self._program, self._paths = seed, _program(), dict[str, str]()
        if cache := next((str(place.merged) for place in folders.values() if isinstance(place, AdaptedFolder)), None):
            self._program.options = self._program.options.model_copy(update={"lora_merge_cache": cache})
        with self._inside(progress="lora_merge_cache" in self._program.options.model_fields_set):
            configuration = self._read(document, folders)
            self.methods: tuple[str, ...] = (configuration.merge_method,)
            self._models = sorted(configuration.referenced_models(), key=str)
            self._reset()
            try:
                self._check_models()
                self._plan(configuration)
            finally:
                self._reset()
        self.names: tuple[str, ...] = tuple(task.tensor_name for task in self._saves)
        sampled = self._models if self.methods == ("arcee_fusion",) else ()
        sizes = (t.elements for model in sampled for t in open_checkpoint(model.model.path).tensors.values())
        self.random = self.methods[0].startswith(("dare", "della")) or max(sizes, default=0) > _SAMPLED_ABOVE

    def tensors(self, wanted: Collection[str] | None = None) -> Iterator[RecipeOutput]:
        """Compute the output, or those of its tensors that are `wanted` (random methods compute all for that too), in
        the order in which mergekit does. One output tensor is in memory at a time, with the inputs it needs.

        Raises ConfigurationError (shapes, vocabularies among them, that do not fit; a tokenizer that cannot be built; a
        value that the method refuses) or CheckpointError (a tensor that a model lacks, an unreadable file).
        """
        written: list[RecipeOutput] = []
        targets = self._targets(frozenset(self.names if wanted is None else wanted), written)
        draws = torch.get_rng_state() if self._seed is None else torch.Generator().manual_seed(self._seed).get_state()
        tokenizer = bool(self._others)  # still to be built, before anything else: till then, failures are its own
        try:
            with self._inside():
                self._reset()
                run = self._program.Executor(targets).run(quiet=True)
            while True:
                with self._inside(tokenizer=tokenizer), torch.random.fork_rng(devices=[]):
                    torch.set_rng_state(draws)  # others may draw between two tensors, and are not disturbed
                    step = next(run, None)
                    draws = torch.get_rng_state()
                if step is None:
                    return
                if isinstance(step[1], self._program.TokenizerInfo):
                    tokenizer = False
                    self._check_order(step[1])
                while written:  # nothing but the list holds the tensor, so that the receiver can let go of it
                    yield written.pop()
        finally:
            self._reset()

    def _read(self, document: Mapping[str, Any], folders: Folders) -> Any:
        """The configuration, validated by mergekit, with local folders in place of its references."""
        try:
            configuration = self._program.MergeConfiguration.model_validate(document)
        except Exception as error:  # pydantic's, and what mergekit's own validators raise
            remedy = "It needs merge_method and one of models, slices or modules"
            raise _refused(f"no mergekit configuration ({_reason(error)})", remedy) from None
        method, known = configuration.merge_method, sorted(m.spec.name for m in self._program.registered_methods())
        if method not in known:
            raise _refused(f"mergekit {_VERSION} has no merge method {method!r}", f"It has {', '.join(known)}")
        missing: dict[str, str] = {}

        def localized(reference: Any) -> Any:
            if (name := str(reference)) not in folders:
                missing[name] = f"{name}: ./{Path(name).name}"
                return reference
            place = folders[name]
            adapter = place.adapter if isinstance(place, AdaptedFolder) else None
            folder = place.base if isinstance(place, AdaptedFolder) else Path(place)
            for part in (folder, *([adapter] if adapter is not None else [])):
                if not part.is_dir():
                    raise CheckpointError("no such folder", subject=str(part), remedy=f"It should hold {name}")
            path = str(folder.absolute())
            while self._paths.setdefault(path, name) != name:  # two names are two models to mergekit, and a base that
                path += "/."  # is also an input by another name counts differently
            # A mapping, not a string: in a string, "@" and "+" of the path would mean a revision and an adapter.
            lora = {"path": str(adapter.absolute())} if adapter is not None else None
            return type(reference)(
                model={"path": path}, lora=lora, override_architecture=reference.override_architecture
            )

        configuration = _with_references(configuration, self._program.ModelReference, localized)
        if missing:
            remedy = f"Say where: recipe.paths={{{', '.join(missing.values())}}}"
            raise _refused(f"no folder is known for {', '.join(missing)}", remedy)
        return configuration

    def _check_models(self) -> None:
        """Raises CheckpointError for models that mergekit could not use, before it tries."""
        remedy = "mergekit needs config.json and model.safetensors or pytorch_model.bin, or shards with their index"
        for model in self._models:
            try:
                if not (Path(model.model.path, "config.json").is_file() and model.config().architectures):
                    raise ValueError("there is no config.json that names its architecture")
                self._program.LoaderCache().get(model)
            except Exception as error:  # transformers and mergekit raise many kinds
                text = f"mergekit cannot use it ({_reason(error)})"
                raise CheckpointError(text, subject=str(Path(model.model.path)), remedy=remedy) from None

    def _plan(self, configuration: Any) -> None:
        """The tasks of `mergekit-yaml`: those that save a tensor, the last one, and perhaps one for the tokenizer."""
        program, options = self._program, self._program.options
        info = program.get_architecture_info(configuration, options)
        output = getattr(program, _OUTPUT)(configuration, info)
        planner = program.MergePlanner(configuration, info, options=options, out_model_config=output)
        tasks = planner.plan_to_disk(out_path="")
        self._saves = [task for task in tasks if isinstance(task, program.SaveTensor)]
        (self._last,) = (task for task in tasks if isinstance(task, program.FinalizeModel))
        self._others = [task for task in tasks if not isinstance(task, program.SaveTensor | program.FinalizeModel)]
        # transformers makes an empty tokenizer for a folder without one, and mergekit a model of its few tokens.
        folders = [Path(path) for path in self._paths if self._others]
        if bare := [str(f) for f in folders if not any(any(f.glob(pattern)) for pattern in _TOKENIZERS)]:
            raise _no_tokenizer(f"there are no tokenizer files in {', '.join(bare)}")

    def _check_order(self, tokenizer: Any) -> None:
        """Raises ConfigurationError if the order of a hash table (of words) or a set (of models) decides over rows."""
        (task,), vocabularies = self._others, list(tokenizer.original_vocabs.values())
        base = {*vocabularies[0], *task.add_tokens}
        sure = task.base_model is not None and sum(not base.issuperset(words) for words in vocabularies) < 2
        tokens = tokenizer.tokenizer.added_tokens_decoder.values()
        added = {token.content for token in tokens if not (sure and token.special)} - base
        if task.tokenizer_source == "union" and len(added) > 1:
            reason = "mergekit leaves the order in which a union takes tokens of other models to chance"
            raise _no_tokenizer(reason, "Name the merged model's own folder as the tokenizer's source")

    def _targets(self, chosen: frozenset[str], written: list[RecipeOutput]) -> list[Any]:
        """The tasks with a writer that fills `written`. The order of draws depends on the whole graph, so for random
        methods nothing else is changed in it; others compute what is `chosen`.
        """

        def take(name: str, tensor: torch.Tensor, **_: Any) -> None:
            if name in chosen:
                written.append(RecipeOutput(name, tensor.contiguous()))

        writer = {"writer_task": self._program.HandOver(out_path="", max_shard_size=0, take=take)}
        saves = [t.model_copy(update=writer) for t in self._saves if self.random or t.tensor_name in chosen]
        last = self._last.model_copy(update={**writer, "tensor_save_tasks": tuple(saves)})
        return [*saves, last, *self._others]

    def _reset(self) -> None:
        """mergekit keeps files open for the whole process, and would not see that a checkpoint was written anew."""
        self._program.LoaderCache().setup(self._program.options)  # an instance for every thread, but one set of files
        for model in self._models:
            self._program.LoaderCache.loaders.pop(model, None)

    @contextlib.contextmanager
    def _inside(self, *, tokenizer: bool = False, progress: bool = False) -> Iterator[None]:
        """Around every call of mergekit: silence, and errors with a subject and a remedy."""
        try:
            with _hidden(progress=tokenizer or progress):
                yield
        except Exception as error:
            raise (
                error if isinstance(error, ReconstructError) else self._translated(error, tokenizer=tokenizer)
            ) from None

    def _translated(self, error: Exception, *, tokenizer: bool) -> ReconstructError:
        if isinstance(error, AttributeError | ImportError | TypeError) and _VERSION != KNOWN_VERSION:
            return _unknown_version(error)
        text, method = _reason(error), self.methods[0]
        for path in sorted(self._paths, key=len, reverse=True):
            text = text.replace(path, self._paths[path])
        if tokenizer:
            return _no_tokenizer(text)
        if found := re.match(r"Missing required parameter (\S+) for (.+)", text):
            remedy = f"Give each model, or the recipe, parameters: {{{found[1]}: ...}}"
            return _refused(f"{method} needs the parameter {found[1]!r}, and {found[2]} has none", remedy)
        if found := re.match(r"Tensor size mismatch for (.+?): (\[.+?\])\.( Align vocabulary)?", text):
            words = "vocabularies differ, and the recipe names no tokenizer source", "Add the merge's tokenizer_source"
            reason, hint = words if found[3] else ("shapes differ", None)
            return ConfigurationError(f"{reason} ({found[2]})", subject=found[1], remedy=hint)
        if found := re.match(r"Tensor (\S+) required but not present in model (.+)", text):
            return CheckpointError(f"has no tensor {found[1]}, which the recipe needs", subject=found[2])
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            return CheckpointError(f"a model's weights cannot be read ({text})", subject="recipe")
        return _refused(f"mergekit cannot compute {method} as this recipe says ({text})")


def _with_references(value: Any, reference: type, change: Callable[[Any], Any]) -> Any:
    """A copy of a validated configuration in which every model reference, wherever it is, is changed."""
    if isinstance(value, reference):
        return change(value)
    if isinstance(value, dict):
        return {key: _with_references(item, reference, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_references(item, reference, change) for item in value]
    fields = getattr(type(value), "model_fields", {})
    updated = {name: _with_references(getattr(value, name), reference, change) for name in fields}
    return value.model_copy(update=updated) if fields else value


@contextlib.contextmanager
def _hidden(*, progress: bool = False) -> Iterator[None]:
    """mergekit's log lines and warnings are not shown, nor a progress bar that it cannot be asked to leave out."""
    handler, disabled = logging.NullHandler(), logging.root.manager.disable
    logging.root.addHandler(handler)  # without any, its logging.warning would install one for good
    logging.disable(logging.CRITICAL)
    shown = contextlib.redirect_stderr(io.StringIO()) if progress else contextlib.nullcontext()
    try:
        with warnings.catch_warnings(), shown:
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        logging.root.removeHandler(handler)


def _program() -> SimpleNamespace:
    """All that is used of mergekit. Raises ReconstructError if something of it is not there."""
    variables = set(os.environ)
    try:
        with _hidden():
            modules = {importlib.import_module(f"mergekit.{name}"): names for name, names in _USED.items()}
            used = {name: getattr(module, name) for module, names in modules.items() for name in names.split()}
            used["options"] = used["MergeOptions"](device="cpu", quiet=True, allow_crimes=True)
            _ = used["LoaderCache"].loaders, used["MergePlanner"].plan_to_disk
    except (ImportError, AttributeError) as error:
        raise _unknown_version(error) from None
    for name in set(os.environ) - variables:  # torch's compiler, which comes with it, leaves one
        del os.environ[name]

    # In place of the task that opens the output file: what it returns takes the tensors.
    members: dict[str, Any] = {"__annotations__": {"take": Any}, "__module__": __name__}
    members["execute"] = lambda task, **_: SimpleNamespace(save_tensor=task.take, finalize=lambda: None)
    return SimpleNamespace(**used, HandOver=type("HandOver", (used["TensorWriterTask"],), members))


def _unknown_version(error: Exception) -> ReconstructError:
    reason = f"this version of mergekit ({_VERSION}) is not known; {KNOWN_VERSION} is ({_reason(error)})"
    return ReconstructError(reason, subject="mergekit", remedy=f"pip install mergekit=={KNOWN_VERSION}")


def _refused(reason: str, remedy: str | None = None) -> ConfigurationError:
    return ConfigurationError(reason, subject="recipe", remedy=remedy)


def _no_tokenizer(reason: str, remedy: str = "Put tokenizer files into every model's folder") -> ConfigurationError:
    return _refused(f"its tokenizer decides the rows of embeddings, and cannot be replayed yet ({reason})", remedy)


def _reason(error: Exception) -> str:
    """One line of what went wrong: of pydantic the first faults, of others the first line."""
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):
        faults = [(".".join(map(str, fault["loc"])), fault) for fault in error.errors()[:3]]
        return "; ".join(f"{where or repr(fault['input'])}: {fault['msg']}" for where, fault in faults)
    return (str(error).splitlines() or [""])[0] or type(error).__name__
