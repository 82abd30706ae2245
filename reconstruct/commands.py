"""What the verbs do once their configuration is a dataclass: call the API, write the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from reconstruct.api import fit, load_run, refit, resume, verb_of
from reconstruct.reconstruction import Reconstruction
from reconstruct.report.result import to_json
from reconstruct.schema import FitConfig, ReportConfig, ReportVerbConfig, ScanConfig, VerifyConfig

if TYPE_CHECKING:
    from reconstruct.scanning.result import Scan
    from reconstruct.verification.run import Verification

__all__ = ["run_fit", "run_report", "run_scan", "run_verify", "write_report"]


def run_fit(config: FitConfig, console: Console | None = None) -> Reconstruction:
    """`reconstruct fit`: a new run, a resumed one, or a re-fit from a store. Raises ReconstructError."""
    from reconstruct.report.console import progress

    console = console or Console()
    folder = _run_folder(config)
    with progress(console, config.report.console) as watch:
        if config.resume:
            run = resume(config.resume, threads=config.compute.threads, progress=watch)
        elif config.refit:
            run = refit(config.refit, config.parents, config.hypotheses.families, threads=config.compute.threads)
        else:
            assert config.suspect is not None  # the schema demands it
            run = fit(
                config.suspect, config.parents, config.base, folder=folder, families=config.hypotheses.families,
                sampling=config.sampling.plan(), threads=config.compute.threads, kernels=config.compute.kernels,
                proof=config.proof, progress=watch,
            )  # fmt: skip
    write_report(run, config.report, folder / "report", console)
    return run


def run_verify(config: VerifyConfig, console: Console | None = None) -> bool:
    """`reconstruct verify`: whether the claim is refuted. Raises ReconstructError."""
    from reconstruct.report.console import progress
    from reconstruct.report.verification import card_json, print_card
    from reconstruct.verification.card import verify_card
    from reconstruct.verification.run import verify

    console = console or Console()
    assert config.suspect is not None  # the schema demands it
    folder = _output_folder(config.folder)
    options: dict[str, Any] = {
        "paths": config.recipe.folders, "seed": config.recipe.seed, "folder": folder, "threads": config.compute.threads,
        "sampling": config.sampling.plan(),
    }  # fmt: skip
    with progress(console, config.report.console) as watch:
        if config.recipe.file is not None:
            result = verify(config.suspect, config.recipe.file, progress=watch, **options)
        else:
            card = verify_card(config.suspect, parents=config.parents, progress=watch, **options)
    if config.recipe.file is not None:
        _write_verification(result, config.report, folder / "report", console)
        return result.refuted
    for number, outcome in enumerate(card.outcomes):
        if outcome.verification is not None:
            _write_verification(outcome.verification, config.report, folder / f"claim-{number}" / "report", None)
    target = folder / "report"
    target.mkdir(parents=True, exist_ok=True)
    (target / "result.json").write_text(card_json(card), "utf-8")
    if config.report.console:
        print_card(console, card)
        console.print(f"report: {target}", soft_wrap=True, highlight=False)
    return card.refuted


def _write_verification(result: Verification, config: ReportConfig, target: Path, console: Console | None) -> None:
    from reconstruct.report.verification import check_table, print_verification, verification_json

    target.mkdir(parents=True, exist_ok=True)
    (target / "result.json").write_text(verification_json(result), "utf-8")
    if config.table:
        check_table(result).to_parquet(target / "checks.parquet")
    if config.plots:
        from reconstruct.report.plots import draw_verification

        draw_verification(result, target, tuple(config.formats))
    if config.console and console is not None:
        print_verification(console, result)
        console.print(f"report: {target}", soft_wrap=True, highlight=False)


def run_scan(config: ScanConfig, console: Console | None = None) -> Scan:
    """`reconstruct scan`: a new scan or a resumed one. Raises ReconstructError."""
    from reconstruct.report.console import progress
    from reconstruct.scanning.run import resume_scan, scan

    console = console or Console()
    folder = _output_folder(config.resume or config.folder)
    with progress(console, config.report.console) as watch:
        if config.resume:
            result = resume_scan(config.resume, threads=config.compute.threads, progress=watch)
        else:
            assert config.suspect is not None  # the schema demands it
            result = scan(
                config.suspect, config.candidates, config.base, folder=folder, bytes_per_model=config.sampling.bytes,
                requests_per_model=config.sampling.requests, most_children=config.most_children,
                seed=config.sampling.seed, threads=config.compute.threads, progress=watch,
            )  # fmt: skip
    _write_scan(result, config.report, folder / "report", console)
    return result


def _write_scan(result: Scan, config: ReportConfig, target: Path, console: Console) -> None:
    from reconstruct.report.scan import print_scan, scan_json

    target.mkdir(parents=True, exist_ok=True)
    (target / "result.json").write_text(scan_json(result), "utf-8")
    if config.table:
        from reconstruct.report.tables import write_parquet

        write_parquet(result.table(), target / "candidates.parquet")
    if config.console:
        print_scan(console, result)
        console.print(f"report: {target}", soft_wrap=True, highlight=False)


def run_report(config: ReportVerbConfig, console: Console | None = None) -> None:
    """`reconstruct report`: from the store of a finished fit, verification or scan. Raises ReconstructError."""
    assert config.run is not None  # the schema demands it
    console, target = console or Console(), Path(config.run) / "report"
    verb = verb_of(config.run)
    if verb == "scan":
        from reconstruct.scanning.run import load_scan

        _write_scan(load_scan(config.run), config.report, target, console)
    elif verb == "verify":
        from reconstruct.verification.run import load_verification

        _write_verification(load_verification(config.run), config.report, target, console)
    else:
        write_report(load_run(config.run), config.report, target, console)


def write_report(run: Reconstruction, config: ReportConfig, target: Path, console: Console) -> None:
    """result.json and recipe.yml always; table, plots and console as configured."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "result.json").write_text(to_json(run), "utf-8")
    recipe = target / "recipe.yml"
    if run.recipe is not None:
        recipe.write_text(run.recipe.to_yaml(), "utf-8")
    else:
        recipe.unlink(missing_ok=True)  # a re-run with another outcome must not leave an old one
    if config.table:
        from reconstruct.report.tables import write_parquet

        write_parquet(run.table(), target / "tensors.parquet")
    if config.plots:
        run.plot(target, tuple(config.formats))
    if config.console:
        from reconstruct.report.console import print_report

        print_report(
            console, run.evidence, run.verdict, run.suspect, len(run.left_out), tuple(run.revisions.values()),
            run.reading,
        )  # fmt: skip
        console.print(f"report: {target}", soft_wrap=True, highlight=False)


def _run_folder(config: FitConfig) -> Path:
    return _output_folder(config.resume or config.folder)


def _output_folder(named: str | None) -> Path:
    """Hydra's output folder of this job, else what the configuration says, else a new one under runs/."""
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized():
        return Path(HydraConfig.get().runtime.output_dir)
    return Path(named or "runs/fit")
