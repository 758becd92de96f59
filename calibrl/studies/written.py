"""Writes the report of a study to files."""

from pathlib import Path

from calibrl.schemas.study_reports import StudyReport
from calibrl.specfile import SpecError
from calibrl.studies.document import Drawing, html, markdown
from calibrl.studies.pages import JobUrl, report_parts


def write_report(report: StudyReport, folder: Path, job_url: JobUrl) -> list[Path]:
    """Write NAME.md with its figures, and NAME.html with everything in it. Return the paths, the two pages first.

    Raises:
        SpecError: a file cannot be written.
    """
    parts = report_parts(report, job_url)
    pages = {
        f"{report.name}.md": markdown(parts, f"{report.name}-"),
        f"{report.name}.html": html(parts, f"Study {report.name}"),
        **{f"{report.name}-{part.name}.svg": part.svg for part in parts if isinstance(part, Drawing)},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{folder}: {error.strerror}") from error
    return [folder / name for name in pages]
