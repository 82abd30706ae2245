"""From the entries of a list to the candidates of a scan: model trees are asked for once, and kept in the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from reconstruct.checkpoints.reference import Reference, ReferenceKind, base_and_adapter
from reconstruct.checkpoints.tree_query import PREFIX, TreeQuery
from reconstruct.checkpoints.wire import Wire
from reconstruct.errors import CheckpointError, RemoteError

if TYPE_CHECKING:
    from reconstruct.checkpoints.model_tree import Child

__all__ = ["Listing", "TreeListing", "address_of", "list_all"]


@dataclass(frozen=True)
class TreeListing:
    """What became of one "children:..." entry. `children`: the candidates it added, as "org/name@commit"; `named`:
    repositories whose cards name the base, `complete` if these are all; the rest counts those that were left out.
    `by_name`: such as are candidates already; `beyond`: those with fewer downloads than `most` others.
    """

    entry: str
    children: tuple[str, ...]
    named: int
    complete: bool
    most: int
    quantized: int
    suspect: int
    by_name: int
    beyond: int

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> TreeListing:
        """What `dataclasses.asdict` made of one, by way of JSON."""
        return cls(**document | {"children": tuple(document["children"])})

    def sentence(self) -> str:
        """What a report says of it."""
        count = f"{self.named:,}" if self.complete else f"{self.named:,} or more"
        left_out = [
            f"{number:,} {words}"
            for number, words in (
                (self.quantized, "quantised"), (self.suspect, "the suspect itself"),
                (self.by_name, "listed already"), (self.beyond, f"with fewer downloads (most_children={self.most})"),
            )
            if number
        ]  # fmt: skip
        text = f"{self.entry}: the cards of {count} repositories name it, {len(self.children):,} are candidates"
        return f"{text}; left out: {', '.join(left_out)}." if left_out else f"{text}."


@dataclass(frozen=True)
class Listing:
    """The candidates of a scan, in order. `places`: for each name, the suspect's and the base's among them, what names
    the same checkpoint later: an absolute path, "org/name@commit" for children of a model tree; `trees` by entry.
    """

    names: tuple[str, ...]
    places: dict[str, str]
    trees: tuple[TreeListing, ...] = ()

    def to_fit(self, name: str) -> str:
        """How a fit is told of a candidate: at the commit that was listed, where the user named none."""
        children = {child for tree in self.trees for child in tree.children}
        return self.places[name] if self.places[name] in children else name

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Listing:
        """The inverse of `to_dict`, by way of JSON."""
        return cls(tuple(document["names"]), document["places"], tuple(map(TreeListing.from_dict, document["trees"])))


def address_of(given: str) -> str:
    """What names the same checkpoint from any working directory; as it is where nothing is there."""
    if (pair := base_and_adapter(given)) is not None:
        return "+".join(map(address_of, pair))
    try:
        return Reference.parse(given).address
    except CheckpointError:
        return given


def list_all(entries: Sequence[str], suspect: str, base: str | None, most: int, wire: Wire) -> Listing:
    """Every entry that names a checkpoint, as it is; for "children:..." the repositories of that model tree, in its
    place: at most `most` of them, the most downloaded. Left out of a tree are the suspect, what is named elsewhere in
    the list, and quantised ones that were not asked for.

    Raises ConfigurationError for what is no tree, RemoteError where it cannot be listed or has no candidates.
    """
    places = {name: address_of(name) for name in (suspect, *([base] if base is not None else []))}
    places |= {name: address_of(name) for name in entries if not name.startswith(PREFIX)}
    taken = {_repository(name) for name in entries if not name.startswith(PREFIX)}
    names: list[str] = []
    trees: list[TreeListing] = []
    queries = {entry: TreeQuery.parse(entry) for entry in entries if entry.startswith(PREFIX)}
    for entry in entries:
        if entry not in queries:
            names.append(entry)
            continue
        tree, children = _listed(entry, queries[entry], _repository(suspect), taken, most, wire)
        trees.append(tree)
        taken |= {child.repository.lower() for child in children}
        for child, place in zip(children, tree.children, strict=True):
            names.append(child.repository)
            places[child.repository] = place
    return Listing(tuple(names), places, tuple(trees))


def _listed(
    entry: str, query: TreeQuery, suspect: str | None, taken: set[str | None], most: int, wire: Wire
) -> tuple[TreeListing, list[Child]]:
    from reconstruct.checkpoints.model_tree import list_children  # imports huggingface_hub: only where it is needed

    tree = list_children(query, wire)
    counts = dict.fromkeys(("quantized", "suspect", "by_name", "beyond"), 0)
    chosen: list[Child] = []
    for child in tree.children:
        name = child.repository.lower()
        reason = (
            "suspect" if name == suspect
            else "by_name" if name in taken
            else "quantized" if child.relation == "quantized" and query.relation is None
            else "beyond" if len(chosen) >= most
            else None
        )  # fmt: skip
        if reason is None:
            chosen.append(child)
        else:
            counts[reason] += 1
    addresses = tuple(f"{c.repository}@{c.commit}" if c.commit else f"hf://{c.repository}" for c in chosen)
    listing = TreeListing(entry, addresses, len(tree.children), tree.complete, most, **counts)
    if not chosen and not counts["by_name"]:
        raise RemoteError(
            f"nobody to compare ({listing.sentence().removeprefix(f'{entry}: ').removesuffix('.')})", subject=entry,
            remedy=f"Name the candidates, or ask for {PREFIX}quantized:{query.repository}"
            if counts["quantized"]
            else "Name the candidates",
        )  # fmt: skip
    return listing, chosen


def _repository(given: str) -> str | None:
    """The name of the repository that is meant, in small letters: a Hub has no two that differ in case alone."""
    try:
        reference = Reference.parse(given)
    except CheckpointError:
        return None
    return str(reference.location).lower() if reference.kind is ReferenceKind.REPOSITORY else None
