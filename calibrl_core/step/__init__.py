"""One training step: rollouts and rewards, advantages, the update."""
