"""The commands' options, one file for each command.

This package stands beside mgre, because the import of any module of mgre imports torch and the toolbox, which takes
seconds. So options are parsed, and --help is printed, before that import. The commands' work is in mgre.commands.
"""
