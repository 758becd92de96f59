"""Models: loading, processors, image features, log-probabilities, packed rows, sharded weights."""
