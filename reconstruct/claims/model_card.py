"""What a checkpoint's folder claims about its origin: README.md with its front matter, and mergekit_config.yml."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from reconstruct.claims.recipe_file import ClaimedRecipe, parse_recipe
from reconstruct.claims.recipe_yaml import LocatedDocument, load_located
from reconstruct.errors import ConfigurationError

__all__ = ["Claim", "ClaimKind", "ModelCard", "read_model_card"]

_LARGEST_FILE = 1 << 20
_README, _RECIPE = "README.md", "mergekit_config.yml"
_MOST_BLOCKS = 16  # fenced configurations that are read; a card has one, seldom a few
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([^\s`]*)")
_HUB = re.compile(r"\w[\w.-]*/[\w.-]+")


class ClaimKind(StrEnum):
    """What the checkpoint is said to be. DERIVED: base models are named, and no relation to them."""

    FINE_TUNE = "fine-tune"
    MERGE = "merge"
    ADAPTER = "adapter"
    QUANTIZED = "quantized"
    RECIPE = "recipe"
    DERIVED = "derived"


_RELATIONS = {
    "finetune": ClaimKind.FINE_TUNE,
    "merge": ClaimKind.MERGE,
    "adapter": ClaimKind.ADAPTER,
    "quantized": ClaimKind.QUANTIZED,
}
_SAID = {
    ClaimKind.FINE_TUNE: "a fine-tune",
    ClaimKind.MERGE: "a merge",
    ClaimKind.ADAPTER: "an adapter",
    ClaimKind.QUANTIZED: "quantized",
}
_OF_ONE = (ClaimKind.FINE_TUNE, ClaimKind.ADAPTER, ClaimKind.QUANTIZED)
_MERGE_TAGS = ("merge", "mergekit")


@dataclass(frozen=True)
class Claim:
    """One statement about the origin. `source`: "README.md line 3" or "mergekit_config.yml"."""

    kind: ClaimKind
    models: tuple[str, ...]
    recipe: ClaimedRecipe | None
    source: str


@dataclass(frozen=True)
class ModelCard:
    """All claims of a folder. `notes`: what could not be read, and where the claims contradict one another."""

    claims: tuple[Claim, ...]
    notes: tuple[str, ...]


def read_model_card(folder: Path) -> ModelCard:
    """Read what is there. Nothing is raised for a malformed card: what cannot be read becomes a note."""
    reader = _CardReader()
    text = reader.text(folder / _README)
    if text is not None:
        reader.read_card(text.replace("\r\n", "\n").split("\n"))
    text = reader.text(folder / _RECIPE)
    if text is not None:
        reader.add_recipe(text, _RECIPE, 1, _RECIPE)
    reader.compare()
    return ModelCard(tuple(reader.claims), tuple(dict.fromkeys(reader.notes)))


class _CardReader:
    """Gathers claims and notes."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.notes: list[str] = []

    def text(self, path: Path) -> str | None:
        """A file's text; None where there is none, or none that can be read."""
        try:
            if not path.is_file():  # a pipe of that name would keep us waiting
                if path.exists():
                    self.notes.append(f"{path.name}: not a file")
                return None
            with path.open("rb") as file:
                content = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            self.notes.append(f"{path.name}: cannot be read: {error.strerror}")
            return None
        if len(content) > _LARGEST_FILE:
            self.notes.append(f"{path.name}: not read, for it is larger than {_LARGEST_FILE >> 20} MB")
            return None
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            self.notes.append(f"{path.name} line {line}: not UTF-8; what is not was replaced")
            return content.decode("utf-8-sig", errors="replace")

    def read_card(self, lines: list[str]) -> None:
        """README.md: the front matter between two lines of ---, then the fenced blocks of the text."""
        end = 0
        if lines and lines[0].rstrip() == "---":
            end = next((i for i, line in enumerate(lines) if i and line.rstrip() == "---"), 0)
            if end:
                self._front_matter("\n".join(lines[1:end]))
            else:
                self.notes.append(f"{_README} line 1: the front matter is not closed by a line of ---")
        blocks = 0
        for first_line, block in _fenced_yaml(lines, end):
            if "merge_method" not in block:
                continue
            blocks += 1
            if blocks > _MOST_BLOCKS:
                self.notes.append(f"{_README} line {first_line}: configurations beyond {_MOST_BLOCKS} are not read")
                break
            self._block(block, first_line)

    def _block(self, block: str, first_line: int) -> None:
        source = f"{_README} line {first_line}"
        try:
            value = load_located(block, _README, first_line).value
        except ConfigurationError as error:
            self.notes.append(f"{_README}: {error.message}")
            return
        if isinstance(value, dict) and "merge_method" in value:
            self.add_recipe(block, _README, first_line, source)

    def add_recipe(self, text: str, location: str, first_line: int, source: str) -> None:
        """A configuration as a claim."""
        try:
            recipe = parse_recipe(text, location, first_line=first_line)
        except ConfigurationError as error:
            self.notes.append(f"{location}: {error.message}")
            return
        self.claims.append(Claim(ClaimKind.RECIPE, recipe.models, recipe, source))

    def _front_matter(self, text: str) -> None:
        try:
            located = load_located(text, _README, first_line=2)
        except ConfigurationError as error:
            self.notes.append(f"{_README}: the front matter cannot be read: {error.message}")
            return
        if located.value is None:
            return
        if not isinstance(located.value, dict):
            self.notes.append(f"{_README} line 2: the front matter is not a mapping")
            return
        self._metadata(located, located.value)

    def _metadata(self, located: LocatedDocument, metadata: dict[str, Any]) -> None:
        models = self._names(metadata.get("base_model"))
        if models is None:
            self._note(located, "base_model", "base_model is neither a name nor a list of names")
            models = ()
        relation = metadata.get("base_model_relation")
        kind = _RELATIONS.get(relation) if isinstance(relation, str) else None
        if relation is not None and kind is None:
            self._note(located, "base_model_relation", f"there is no relation {str(relation)[:40]!r}")
        tags = self._names(metadata.get("tags")) or ()
        tag = next((tag for tag in tags if tag.lower() in _MERGE_TAGS), None)
        self._contradictions(located, models, kind, tag)
        if not models:
            return
        if kind is None:
            peft = str(metadata.get("library_name")).lower() == "peft"
            kind = ClaimKind.ADAPTER if peft else ClaimKind.MERGE if len(models) > 1 else ClaimKind.DERIVED
        self.claims.insert(0, Claim(kind, models, None, f"{_README} line {located.line('base_model')}"))

    def _contradictions(
        self, located: LocatedDocument, models: tuple[str, ...], kind: ClaimKind | None, tag: str | None
    ) -> None:
        """Between the models, the relation to them (if any) and a tag that says merge (if any)."""
        if kind is not None and not models:
            self._note(located, "base_model_relation", f"said to be {_SAID[kind]}, and no base model is named")
        elif kind in _OF_ONE and len(models) > 1:
            self._note(located, "base_model_relation", f"said to be {_SAID[kind]}, of {len(models)} base models")
        elif kind is ClaimKind.MERGE and len(models) == 1:
            self._note(located, "base_model_relation", f"said to be a merge, of one base model: {models[0]}")
        if tag is None:
            return
        if not models:
            self._note(located, "tags", f"tagged {tag!r}, and no base model is named")
        elif kind in _OF_ONE:
            self._note(located, "tags", f"tagged {tag!r}, and said to be {_SAID[kind]}")
        elif len(models) == 1:
            self._note(located, "tags", f"tagged {tag!r}, and only one base model is named: {models[0]}")

    def _note(self, located: LocatedDocument, key: str, message: str) -> None:
        self.notes.append(f"{_README} line {located.line(key)}: {message}")

    @staticmethod
    def _names(value: Any) -> tuple[str, ...] | None:
        """A name or a list of names, each once; None for anything else."""
        names = [value] if isinstance(value, str) else value or []
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            return None
        return tuple(dict.fromkeys(name.strip() for name in names))

    def compare(self) -> None:
        """Note where the front matter and the recipes contradict one another."""
        recipes = [claim for claim in self.claims if claim.recipe is not None]
        front = next((claim for claim in self.claims if claim.recipe is None), None)
        for claim in recipes[1:]:
            if claim.recipe and recipes[0].recipe and claim.recipe.document != recipes[0].recipe.document:
                self.notes.append(f"{claim.source}: another recipe than that of {recipes[0].source}")
        for claim in recipes if front else []:
            assert front is not None
            if front.kind not in (ClaimKind.MERGE, ClaimKind.DERIVED):
                self.notes.append(f"{front.source}: said to be {_SAID[front.kind]}, and {claim.source} is a recipe")
            named = {name.partition("@")[0] for name in front.models}
            used = {part.partition("@")[0] for name in claim.models for part in name.split("+")}
            for name in sorted(named - used):
                self.notes.append(f"{front.source}: names {name}, which the recipe of {claim.source} does not use")
            # A front matter can only name models of the Hub: folders that a recipe uses are no contradiction.
            for name in sorted(n for n in used - named if _HUB.fullmatch(n)):
                self.notes.append(f"{claim.source}: uses {name}, which {front.source} does not name")


def _fenced_yaml(lines: list[str], start: int) -> Iterator[tuple[int, str]]:
    """(line number of its first line, text) of each fenced block of YAML; one that is not closed ends with the file."""
    index = start
    while index < len(lines):
        opening = _FENCE.match(lines[index])
        index += 1
        if not opening:
            continue
        fence, first = opening[1], index
        while index < len(lines) and not _closes(lines[index], fence):
            index += 1
        if opening[2].lower() in ("yaml", "yml"):
            yield first + 1, "\n".join(lines[first:index])
        index += 1


def _closes(line: str, fence: str) -> bool:
    text = line.strip()
    return len(text) >= len(fence) and set(text) == {fence[0]}
