"""Parts of pages that show one thing."""
