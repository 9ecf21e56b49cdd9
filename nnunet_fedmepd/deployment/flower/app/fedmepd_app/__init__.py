"""What Flower is given to run: it starts the installed package."""
