"""One file per panel of a job's page: what it asks for and how it lays its charts out."""
