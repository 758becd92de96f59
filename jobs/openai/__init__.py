"""Jobs and data sets as OpenAI's fine-tuning API names, orders and shows them. It knows no database and no HTTP."""
