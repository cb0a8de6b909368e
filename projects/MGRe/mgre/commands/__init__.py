"""The commands' work. Their options are in mgre_cli, and tools/ has a script for each command."""
