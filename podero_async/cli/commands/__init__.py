"""The commands, one module each: `Options`, `add_arguments`, `run`, and the `COMMAND` made of them."""
