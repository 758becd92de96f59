"""Output of `calibrl data check`: a data report."""

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibrl.schemas import DataReport
from calibrl.views.terminal import plain

NONE = "none"


def report_page(report: DataReport) -> RenderableType:
    """Return the facts of a report, its sizes, and last its warnings."""
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(report).items():
        facts.add_row(Text(name, style="dim"), Text(plain(value)))
    parts: list[RenderableType] = [facts, _sizes(report)]
    if report.warnings:
        parts.append(Text("\nWarnings", style="bold"))
        parts += [Text(plain(one.message), style="yellow") for one in report.warnings]
    else:
        parts.append(Text("No warnings."))
    return Group(*parts)


def _facts(report: DataReport) -> dict[str, str]:
    facts = {
        "rows": f"{report.rows:,}" + ("" if report.complete else " were read; the source has more"),
        "by format": _counts(report.formats),
        "columns used": ", ".join(report.used_columns) or NONE,
        "columns left out": ", ".join(report.unused_columns) or NONE,
        "images": _images(report),
        "converted": _counts(report.images.converted),
        "answers": _counts(report.truths),
        "experts": _experts(report),
        "repeated": f"{report.duplicates:,} duplicates, {report.near_duplicates:,} near duplicates, "
        f"{report.contradictions:,} with another answer",
    }
    if report.overlap_prompts is not None:
        facts["in the validation data"] = (
            f"{report.overlap_prompts:,} prompts, {report.overlap_near or 0:,} more nearly, "
            f"{report.overlap_images or 0:,} more by an image"
        )
    if report.pass_ratios:
        facts["pass ratios"] = ", ".join(
            f"{place / 10:.1f} to {(place + 1) / 10:.1f}: {count:,}" for place, count in enumerate(report.pass_ratios)
        )
    return facts


def _images(report: DataReport) -> str:
    images = report.images
    if not images.count:
        return NONE
    compared = f"; the pixels of {images.decoded:,} files were compared" if images.decoded else ""
    return f"{images.count:,} in {report.with_images:,} rows; {_counts(images.formats)}{compared}"


def _experts(report: DataReport) -> str:
    if not report.with_expert:
        return NONE
    cut = "" if report.cut_experts is None else f"; {report.cut_experts:,} are cut"
    judged = f"the rewards accept {report.right_experts:,} of {report.judged_experts:,} judged"
    return f"{report.with_expert:,} of {report.rows:,} rows; {judged}{cut}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items()) or NONE


def _sizes(report: DataReport) -> Table:
    table = Table("SIZES", "SMALLEST", "MEDIAN", "95 %", "LARGEST", box=None, pad_edge=False)
    for name, spread in report.sizes.items():
        table.add_row(name, f"{spread.smallest:,}", f"{spread.median:,}", f"{spread.p95:,}", f"{spread.largest:,}")
    return table
