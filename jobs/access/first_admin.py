"""`python -m jobs.access.first_admin NAME`: add an admin on the service's machine, and print the new key once."""

import argparse
import sys

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import OperationalError, ProgrammingError

from calibrl.schemas import UserName
from calibrl.schemas.fault_texts import fault_text
from calibrl.settings import SettingsError
from jobs.access import callers
from jobs.db import session_scope


def main() -> None:
    """Run the command of the module."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.access.first_admin", description=(__doc__ or "").partition(": ")[2]
    )
    parser.add_argument("name", help="Name of the user: lower-case letters, digits, dots, dashes.")
    name = parser.parse_args().name
    try:
        TypeAdapter(UserName).validate_python(name)
        with session_scope() as session:
            key = callers.first_admin(session, name)
    except ValidationError as error:
        parser.error(f"name: {fault_text(error.errors()[0])}")
    except SettingsError as error:
        parser.error(str(error))
    except (OperationalError, ProgrammingError) as error:
        sys.exit(f"the database cannot be used: {str(error.orig).splitlines()[0]} (is it running and migrated?)")
    sys.stdout.write(f"{key}\n")


if __name__ == "__main__":
    main()
