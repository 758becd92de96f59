"""Logs as JSON lines on standard error."""

import logging
import sys

import structlog


def configure_logs() -> None:
    """Render structlog's events as JSON, with what `structlog.contextvars` knows of the request."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    # Every request has its line from us already.
    logging.getLogger("uvicorn.access").disabled = True
