"""The command line: translates options, calls the core, prints. Nothing is computed here."""
