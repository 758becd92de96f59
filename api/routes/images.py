"""The images of a job's samples."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.deps import Db, ExistingJob
from jobs.repository import images

router = APIRouter(prefix="/jobs/{job_id}/images", tags=["runs"])


@router.get(
    "/{sha256}",
    response_class=Response,
    responses={200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}},
)
def read_image(session: Db, job: ExistingJob, sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")]) -> Response:
    """Return an image as PNG, by the hash in a sample."""
    png = images.get(session, job.id, sha256)
    headers = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(png, media_type="image/png", headers=headers)
