"""The adapter to Flower: nothing else in the project imports it."""
