"""Input: forms of specs, dialogs, job picker."""
