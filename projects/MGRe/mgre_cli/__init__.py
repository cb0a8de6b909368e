"""The commands' options, one file for each command.

This package stands beside mgre, because importing any module of mgre imports torch and the toolbox, which takes
seconds: options are parsed, and --help is printed, before that. What a command does is in mgre.commands.
"""
