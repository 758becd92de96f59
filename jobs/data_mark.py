"""The mark of a data folder: the database that its files belong to. After a restore, the database does not know the
newest files: they must not be taken for leftovers."""

from uuid import uuid4

from pydantic import BaseModel, ValidationError

from jobs.db import session_scope
from jobs.repository import identity
from jobs.settings import Settings

FILE = "database.json"
CONFIRM = "python -m worker.janitor --confirm"


class DataMark(BaseModel):
    """`database`: identity of the database. `position`: bytes of its write-ahead log so far, which only grow."""

    database: str
    position: int


def check(settings: Settings) -> str | None:
    """Compare the database with the mark of the data folder. Return why its files must not be removed, or None. Without
    a mark, write one; with a valid one, note how far the database has come."""
    file = settings.data_dir / FILE
    try:
        before = DataMark.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        write(settings)
        return None
    except ValidationError:
        return f"{file} is not valid: check the data folder, then run `{CONFIRM}`"
    now = _present()  # after the file: another machine may write it meanwhile, with an earlier position
    if before.database != now.database:
        changed = "the database is not the one that the data folder was used with"
    elif before.position > now.position:
        changed = "the database is older than at the last run of the janitor"
    else:
        write(settings)
        return None
    return f"{changed}: a backup was restored, or another server took over. Check the jobs, then run `{CONFIRM}`"


def write(settings: Settings) -> None:
    """Mark the data folder as that of the present database."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    file = settings.data_dir / FILE
    partial = file.with_name(f"{FILE}.{uuid4().hex}.partial")
    partial.write_text(_present().model_dump_json())
    partial.replace(file)


def _present() -> DataMark:
    with session_scope() as session:
        database, position = identity.of_database(session)
    return DataMark(database=database, position=position)
