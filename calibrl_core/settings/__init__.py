"""Settings of a run by subject; `calibrl_core.config` joins them. Importable without torch."""
