"""One module for each `fedmepd` command; each offers `add_arguments(parser)` and `run(args) -> exit code`."""
