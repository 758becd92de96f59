"""Jobs and datasets with the names and shapes of OpenAI's fine-tuning API. Uses no database and no HTTP."""
