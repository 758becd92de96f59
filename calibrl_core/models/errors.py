"""What can be wrong with a model that a config names."""


class ModelError(ValueError):
    """A model that can't be trained as asked; the message names the field at fault and what would mend it."""
