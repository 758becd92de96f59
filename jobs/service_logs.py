"""Logs of all processes of the service as JSON lines on standard error."""

import logging
import sys

import structlog
from structlog.typing import Processor

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
_RENDERED: tuple[Processor, ...] = (structlog.processors.format_exc_info, structlog.processors.JSONRenderer())


def configure_logs(*libraries: str) -> None:
    """Render events of structlog as JSON, with the request context from `structlog.contextvars`, and the lines of
    the named library loggers in the same form; "": all loggers."""
    structlog.configure(
        processors=[*_SHARED, *_RENDERED],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO lines have URLs with signatures
    form = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_SHARED, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_RENDERED],
    )
    for name in libraries:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(form)
        logging.getLogger(name).handlers[:] = [handler]
