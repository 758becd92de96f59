"""Every SQL statement, one file a resource. Functions take the session first and never commit."""
