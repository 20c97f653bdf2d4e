"""Output of the commands: plain text, tables and bars (rich), JSON, progress, and reports."""
