"""Every SQL statement, one file per resource. Functions take the session first and never commit."""
