"""Settings: of one training, and of a whole federation (one TOML file)."""
