"""Studies for users: their files, and the pages of their reports. Nothing here prints."""
