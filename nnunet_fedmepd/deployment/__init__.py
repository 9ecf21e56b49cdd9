"""A federation over a network: kits, the border to an engine, and the long-lived processes on both sides of it."""
