"""The shape of a mergekit configuration: which inputs each output slice has, and where their parameters stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from reconstruct.claims.mergekit_methods import MERGEKIT_METHODS
from reconstruct.claims.recipe_findings import Notebook, suggestion

__all__ = ["KEYS", "SEEDS", "Group", "Input", "Settings", "Structure", "read_structure"]

#: The keys that mergekit reads, by level.
KEYS = {
    "top": (
        "merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype", "out_dtype",
        "tokenizer_source", "tokenizer", "chat_template",
    ),
    "module": ("models", "slices", "parameters"),
    "model": ("model", "parameters"),
    "slice": ("sources", "base_model", "parameters", "residual_weight"),
    "source": ("model", "layer_range", "parameters"),
    "reference": ("model", "lora", "override_architecture"),
    "path": ("path", "revision"),
    "tokenizer": ("source", "tokens", "pad_to_multiple_of"),
    "token": ("source", "force"),
}  # fmt: skip
#: Keys that would be meant as a seed; mergekit reads none from the file.
SEEDS = ("random_seed", "seed")
_PARAMETERS = {name for method in MERGEKIT_METHODS.values() for name in method.names}
_CONTAINERS = ("models", "slices", "modules")


@dataclass(frozen=True)
class Settings:
    """A `parameters` mapping and its path."""

    path: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """One model of a group. `path` is that of its entry."""

    reference: str
    path: str
    settings: Settings


@dataclass(frozen=True)
class Group:
    """What is merged with one another. `outer`: settings around the inputs, the innermost first.

    `sliced`: written with layer ranges, where mergekit does not add a base that is missing.
    """

    path: str
    inputs: tuple[Input, ...]
    base: str | None
    outer: tuple[Settings, ...]
    sliced: bool


@dataclass(frozen=True)
class Structure:
    """All groups. `references`: every model in the order of the text, each once."""

    groups: tuple[Group, ...]
    references: tuple[str, ...]
    base: str | None


def read_structure(notebook: Notebook, document: dict[str, Any]) -> Structure:
    """Raise for what mergekit cannot read; note keys that it ignores."""
    reader = _StructureReader(notebook)
    container = reader.only_container("", document, _CONTAINERS)
    groups: list[Group] = []
    base: str | None = document.get("base_model") and reader.peek(document["base_model"])
    reader.keys("", document, "top")
    top = reader.settings("parameters", document.get("parameters"))
    for key in document:  # in the order of the text: so are the references
        if key == "base_model" and document[key] is not None:
            base = reader.reference("base_model", document[key])
        elif key == container and key == "modules":
            for name, value in reader.mapping("modules", document[key]).items():
                path = f"modules.{name}"
                module = reader.mapping(path, value)
                reader.keys(path, module, "module")
                inner = reader.only_container(path, module, _CONTAINERS[:2])
                own = reader.settings(f"{path}.parameters", module.get("parameters"))
                groups += reader.groups(f"{path}.{inner}", inner, module[inner], base, (own, top))
        elif key == container:
            groups += reader.groups(key, key, document[key], base, (top,))
    reader.tokenizer(document)
    return Structure(tuple(groups), tuple(reader.references), base)


class _StructureReader:
    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self.references: dict[str, None] = {}

    def only_container(self, path: str, document: dict[str, Any], allowed: tuple[str, ...]) -> str:
        """The one of models, slices and modules that is there."""
        present = [key for key in allowed if document.get(key)]
        prefix = f"{path}." if path else ""
        if not present:
            at = next((prefix + key for key in allowed if key in document), path or "merge_method")
            self.notebook.fail(path, f"none of {_listed(allowed)}", "Name the models that are merged", at=at)
        if len(present) > 1:
            later = max(present, key=lambda key: self.notebook.document.line(prefix + key) or 0)
            self.notebook.fail(prefix + later, f"{_listed(present, 'and')} in one configuration", "Keep one of them")
        return present[0]

    def groups(self, path: str, kind: str, items: Any, base: str | None, outer: tuple[Settings, ...]) -> list[Group]:
        """One group of `models`, or one for each of the `slices`."""
        entries = self.sequence(path, items)
        if kind == "models":
            inputs = tuple(self._input(f"{path}[{i}]", entry, "model") for i, entry in enumerate(entries))
            return [Group(path, inputs, base, outer, sliced=False)]
        return [self._slice(f"{path}[{i}]", entry, base, outer) for i, entry in enumerate(entries)]

    def _slice(self, path: str, entry: Any, base: str | None, outer: tuple[Settings, ...]) -> Group:
        entry = self.mapping(path, entry)
        self.keys(path, entry, "slice")
        if entry.get("residual_weight") is not None:
            self.notebook.note(f"{path}.residual_weight", "never used: mergekit reads it and does nothing with it")
        if not entry.get("sources"):
            self.notebook.fail(path, "a slice without sources", "Name the models and layers it is made of")
        inputs: list[Input] = []
        for key in entry:
            if key == "base_model" and entry[key] is not None:
                base = self.reference(f"{path}.base_model", entry[key])
            elif key == "sources":
                sources = self.sequence(f"{path}.sources", entry[key])
                inputs = [self._input(f"{path}.sources[{i}]", s, "source") for i, s in enumerate(sources)]
        lengths = [self._layers(item.path, source) for item, source in zip(inputs, entry["sources"], strict=True)]
        for item, length in zip(inputs, lengths, strict=True):
            if length != lengths[0]:
                place = f"{item.path}.layer_range"
                self.notebook.fail(
                    place, f"{length} layers beside {lengths[0]}", "Give the sources of a slice equally many layers"
                )
        own = self.settings(f"{path}.parameters", entry.get("parameters"))
        return Group(path, tuple(inputs), base, (own, *outer), sliced=True)

    def _layers(self, path: str, source: dict[str, Any]) -> int:
        span, place = source.get("layer_range"), f"{path}.layer_range"
        if span is None:
            self.notebook.fail(path, "no layer_range", "Add 'layer_range: [first, end]'; the end is not included")
        try:
            numbers = [int(n) for n in span] if isinstance(span, list) else []
            exact = [float(n) for n in span] == numbers and len(numbers) == 2
        except (TypeError, ValueError, OverflowError):
            exact = False
        if not exact or numbers[0] < 0:
            self.notebook.fail(place, "not two whole numbers from 0", "Write [first, end]; the end is not included")
        if numbers[1] <= numbers[0]:
            self.notebook.note(place, "no layers: the end is not beyond the start")
        return numbers[1] - numbers[0]

    def _input(self, path: str, entry: Any, level: str) -> Input:
        entry = self.mapping(path, entry)
        self.keys(path, entry, level)
        if entry.get("model") is None:
            self.notebook.fail(path, "no model", "Add 'model: ...' to it")
        reference = self.reference(f"{path}.model", entry["model"])
        return Input(reference, path, self.settings(f"{path}.parameters", entry.get("parameters")))

    def settings(self, path: str, values: Any) -> Settings:
        """A `parameters` mapping; what it sets is checked against the method, which knows the types."""
        return Settings(path, {} if values is None else dict(self.mapping(path, values)))

    def reference(self, path: str, value: Any) -> str:
        """A model as written; a reference that is spelt out as a mapping in mergekit's short form."""
        text = self._checked(path, value)
        self.references.setdefault(text)
        return text

    def peek(self, value: Any) -> str | None:
        """A reference that stands later in the text, for the groups before it; it is checked in its place."""
        return value if isinstance(value, str) else _spelt(value) if isinstance(value, dict) else None

    def _checked(self, path: str, value: Any) -> str:
        if isinstance(value, dict):
            self.keys(path, value, "reference")
            for key in ("model", "lora"):
                if isinstance(value.get(key), dict):
                    self.keys(f"{path}.{key}", value[key], "path")
        text = value if isinstance(value, str) else _spelt(value) if isinstance(value, dict) else None
        if not text or not text.strip():
            self.notebook.fail(path, "not the name of a model", "Write 'org/name' or a folder, in quotes if need be")
        parts = text.split("+")
        if len(parts) > 2 or any(part.count("@") > 1 for part in parts):
            self.notebook.fail(
                path, f"{text[:80]!r} is no reference", "Write 'model', 'model@revision' or 'model+lora'"
            )
        return text

    def tokenizer(self, document: dict[str, Any]) -> None:
        """Its models are no inputs of the merge; but it decides on the rows of embeddings, and is checked like all."""
        template = document.get("chat_template")
        if template is not None and not isinstance(template, str):
            self.notebook.fail("chat_template", "not text", "Give 'auto', the name of a template, or one in quotes")
        if document.get("tokenizer_source") is not None:
            self._checked("tokenizer_source", document["tokenizer_source"])
        if document.get("tokenizer") is None:
            return
        if document.get("tokenizer_source"):
            self.notebook.fail("tokenizer", "tokenizer and tokenizer_source in one configuration", "Keep one of them")
        settings = self.mapping("tokenizer", document["tokenizer"])
        self.keys("tokenizer", settings, "tokenizer")
        if "source" in settings:
            self._checked("tokenizer.source", settings["source"])
        tokens = settings.get("tokens")
        for name, value in self.mapping("tokenizer.tokens", {} if tokens is None else tokens).items():
            place = f"tokenizer.tokens.{name}"
            token = self.mapping(place, value)
            self.keys(place, token, "token")
            source = token.get("source")
            if source is not None and not (isinstance(source, dict) and "kind" in source):
                self._checked(f"{place}.source", source)

    def keys(self, path: str, mapping: dict[str, Any], level: str) -> None:
        """Note unknown keys: mergekit ignores them."""
        for key in mapping:
            if key in KEYS[level]:
                continue
            if key in _PARAMETERS and "parameters" in KEYS[level]:
                hint = "; it belongs under 'parameters'"
            elif key in SEEDS:
                hint = "; a seed is its option --random-seed"
            else:
                hint = suggestion(key, KEYS[level])
            self.notebook.note(f"{path}.{key}" if path else key, f"mergekit ignores {key[:80]!r} here{hint}")

    def mapping(self, path: str, value: Any) -> dict[str, Any]:
        """The value, which must be a mapping."""
        if not isinstance(value, dict):
            self.notebook.fail(path, "not a mapping", "Write 'key: value' lines under it")
        return value

    def sequence(self, path: str, value: Any) -> list[Any]:
        """The value, which must be a list."""
        if not isinstance(value, list):
            self.notebook.fail(path, "not a list", "Begin each entry with '- '")
        return value


def _spelt(value: dict[str, Any]) -> str | None:
    """{model: {path: a, revision: r}, lora: b} -> "a@r+b"."""
    parts = []
    for part in (value.get("model"), value.get("lora")):
        if isinstance(part, dict) and isinstance(part.get("path"), str):
            revision = part.get("revision")
            if revision is not None and not isinstance(revision, str):
                return None
            parts.append(f"{part['path']}@{revision}" if revision else part["path"])
        elif isinstance(part, str):
            parts.append(part)
        elif part is not None or not parts:
            return None
    return "+".join(parts) if parts else None


def _listed(names: Iterable[str], word: str = "or") -> str:
    *most, last = names
    return f"{', '.join(most)} {word} {last}" if most else last
